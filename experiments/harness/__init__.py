"""Code that all studies share: options, jobs, devices, precision and timing."""
