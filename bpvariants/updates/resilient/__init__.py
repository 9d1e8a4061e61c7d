"""The Rprop family: updates whose steps depend only on the signs of gradients."""
