"""A robot that follows a wall."""
