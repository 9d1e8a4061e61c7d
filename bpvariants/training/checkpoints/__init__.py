"""Checkpoints of a training on disk: writing, selecting and reading them."""
