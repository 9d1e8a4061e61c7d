"""The engine of the online rules: the influence M_t = dh_t/dθ, kept sparsely."""
