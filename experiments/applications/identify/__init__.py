"""Identification of a plant online, before and after it changes."""
