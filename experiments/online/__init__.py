"""Studies of gradients that are known at every step, and learned from there."""
