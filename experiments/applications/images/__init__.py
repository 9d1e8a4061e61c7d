"""Handwritten digits (MNIST)."""
