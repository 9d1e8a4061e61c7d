"""Applications of backpropagation that the tutorial names, on real data."""
