"""Planted faults in the library, which the tests should notice."""
