"""Sweeps: many training runs together under `vmap`."""
