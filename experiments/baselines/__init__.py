"""Models that networks are compared with, shared by several studies."""
