"""Plain-text tables, short texts of results, and names of pytree leaves."""

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


def in_short(result: Any, words: Callable[[], str]) -> str:
    """Return the `repr` of a result: its class and a few words.

    If the values are not known, as within `jit`, the fields and their types are shown
    instead of the words.
    """
    name = type(result).__name__
    try:
        return f"{name}({words()})"
    except Exception:  # a `repr` must not fail, whatever the fields are
        fields = result._asdict().items()
        return (
            f"{name}({', '.join(f'{field}={_kind(part)}' for field, part in fields)})"
        )


def _kind(part: Any) -> str:
    leaves = jax.tree.leaves(part)
    if len(leaves) == 1 and leaves[0] is part:
        shape, dtype = getattr(part, "shape", None), getattr(part, "dtype", None)
        return repr(part) if shape is None else f"{dtype}{[*shape]}"
    return f"{len(leaves)} arrays" if leaves else repr(part)


def convergence(steps: Any, residual: Any, converged: Any, unit: str) -> str:
    """Return a few words on the convergence of examples, whose arrays are [*batch]."""
    steps, residual, good = (
        np.ravel(np.asarray(a)) for a in (steps, residual, converged)
    )
    if not good.size:
        return "no examples"
    few, many = int(steps.min()), int(steps.max())
    span = str(few) if few == many else f"{few} to {many}"
    unit = unit.removesuffix("s") if span == "1" else unit
    worst = short(residual.astype(float).max())
    if np.ndim(converged) == 0:
        began = "converged in" if good[0] else "not converged after"
        return f"{began} {span} {unit}, residual {worst}"
    return (
        f"{int(good.sum())} of {good.size} examples converged, {span} {unit}, residual "
        f"up to {worst}"
    )


def table_of_examples(columns: dict[str, Any], most: int) -> str:
    """Return a table with a line for each example, from arrays [*batch].

    If there are more than `most` examples, the table has only those with the largest
    values of the column "residual".
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    flat = {name: np.broadcast_to(a, shape).ravel() for name, a in arrays.items()}
    residual = flat["residual"].astype(float)
    chosen = np.arange(residual.size)
    if residual.size > most:
        worst = np.argsort(-np.nan_to_num(residual, nan=np.inf), kind="stable")
        chosen = np.sort(worst[:most])
    place = lambda i: ", ".join(map(str, np.unravel_index(i, shape))) if shape else ""
    rows = [["example", *flat]]
    for i in chosen:
        rows.append([place(i), *(_cell(column[i]) for column in flat.values())])
    text = aligned(rows)
    left = residual.size - len(chosen)
    return text + f"\n{left} more, with residuals that are not larger" * (left > 0)


def _cell(value: Any) -> str:
    if value.dtype == bool:
        return "yes" if value else "no"
    return short(value) if value.dtype.kind not in "iu" else str(value)
