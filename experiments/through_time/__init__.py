"""Studies of backpropagation through time."""
