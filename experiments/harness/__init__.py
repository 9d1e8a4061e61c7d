"""Common parts of all studies: options, jobs, devices, precision and timing."""
