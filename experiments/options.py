"""Checks of a study's options."""

from typing import Any


def check_at_least_one(config: Any, *names: str) -> None:
    """Check that options that count something, if they are given, count something."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
