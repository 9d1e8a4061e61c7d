"""Training loop: jitted chunks of steps, logs, metrics, and handling of NaN."""
