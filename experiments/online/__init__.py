"""Studies of online learning: gradients that are available at every step."""
