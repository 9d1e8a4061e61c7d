"""Rprop family: updates that use only the signs of gradients, not their sizes."""
