"""Recognition of spoken digits."""
