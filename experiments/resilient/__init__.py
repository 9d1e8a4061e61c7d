"""Studies of resilient backpropagation (Rprop), beside published results."""
