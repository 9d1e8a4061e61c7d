"""Checkpoints of a training on disk: writing, keeping and reading them."""
