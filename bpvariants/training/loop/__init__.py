"""The training loop: chunks of jitted steps, logs, metrics, non-finite values."""
