"""Random networks drawn by hypothesis, and checks of all gradient rules on them."""
