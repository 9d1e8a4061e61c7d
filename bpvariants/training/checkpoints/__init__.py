"""Checkpoints on disk: writing, keeping, reading."""
