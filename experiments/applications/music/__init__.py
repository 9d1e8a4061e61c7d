"""Polyphonic music: chorales and folk tunes."""
