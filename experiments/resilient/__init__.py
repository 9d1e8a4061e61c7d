"""Studies of resilient backpropagation (Rprop), compared with published results."""
