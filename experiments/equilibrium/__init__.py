"""Studies of recurrent backpropagation: networks that settle at an equilibrium."""
