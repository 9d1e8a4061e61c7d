"""Studies of static backpropagation, and of what is put in its place."""
