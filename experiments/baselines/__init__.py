"""Baseline models that networks are compared with in several studies."""
