"""Generated tests: networks, gradient rules, test conditions, and reference results."""
