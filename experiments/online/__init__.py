"""Studies of online learning: gradients are available after every step."""
