"""Learners in files: programs that predict and learn, and their state."""
