"""What the tutorial says that backpropagation is for, on real data."""
