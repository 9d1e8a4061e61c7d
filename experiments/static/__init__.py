"""Studies of static backpropagation and of feedback alignment."""
