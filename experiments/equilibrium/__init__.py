"""Studies of recurrent backpropagation, for networks that settle at a fixed point."""
