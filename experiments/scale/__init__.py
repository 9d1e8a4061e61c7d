"""Studies of many devices and of many processes."""
