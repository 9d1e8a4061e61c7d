"""Applications named in "4 Types of Backpropagation" (OpenGenus), on real data."""
