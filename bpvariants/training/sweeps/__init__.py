"""Many runs under one `vmap`."""
