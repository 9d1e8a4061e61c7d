"""Numbers as a table of plain text."""

import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def short(value: float) -> str:
    """Return four digits of a number."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    plain = 1e-3 <= abs(value) < 1e4
    return f"{value:#.4g}" if plain else f"{value:.1e}"
