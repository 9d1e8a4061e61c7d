"""Engine of the online rules: the influence M_t = dh_t/dθ in a sparse layout."""
