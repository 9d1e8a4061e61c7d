"""Studies of resilient backpropagation, beside its published numbers."""
