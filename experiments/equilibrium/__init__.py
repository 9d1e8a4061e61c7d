"""Studies of recurrent backpropagation and of the forgetting factor."""
