"""The Rprop family: steps by the sign of the gradient."""
