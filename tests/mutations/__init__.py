"""Faults planted in copies of the library, to check that the tests fail."""
