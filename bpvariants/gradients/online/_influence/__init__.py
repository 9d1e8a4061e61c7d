"""The influence M_t = dh_t/dθ of params θ on the carry h_t, in a sparse layout."""
