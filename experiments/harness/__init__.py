"""What every study runs on: options, jobs, devices, precision and timing."""
