"""Sweeps: many training runs, several at a time under `vmap`."""
