"""Numbers as a table of plain text."""

import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text: the first column to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        padded = [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
        lines.append(" ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def short(value: float) -> str:
    """Return four digits of a number, without the zero before its point."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e4:
        return f"{value:.0e}"
    text = f"{value:#.4g}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
