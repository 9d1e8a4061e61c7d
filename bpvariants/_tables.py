"""Plain-text tables, and names of pytree leaves for the rows of tables."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bpvariants.types import PyTree


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: first column left-aligned, all others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        padded = [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
        lines.append(" ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def short(value: Any) -> str:
    """Return a number as text: four significant digits, or two digits and an exponent.

    A zero before the decimal point is left out: .5000 for one half.
    """
    value = float(value)
    if not np.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}"
    text = f"{value:#.4g}".rstrip(".")
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def named_leaves(
    tree: PyTree, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[str, Any]]:
    """Return (name, leaf) for each leaf; if the tree is one leaf, its name is ''."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_leaf)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
