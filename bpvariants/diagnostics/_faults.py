"""Count of NaN and infinite elements in arrays, and search for the first of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants._tables import aligned, named_leaves
from bpvariants.types import PyTree

DIRECTIONS = ("before", "forward", "backward")


class Fault(NamedTuple):
    """First occurrence of NaN or infinity in an array.

    Attributes:
      direction: where the NaN or infinity occurs: "before" the first step, in the
        "forward" pass, or in the "backward" pass.
      time: index of the step, counted from 0; None if the array does not belong to a
        single step, such as the given params or a sum over all steps.
      place: name of the array, such as "xs['pixels']", "carry[0]" or "loss".
      numbers: number of NaN and infinite elements of the array at the step `time`.
    """

    direction: str
    time: int | None
    place: str
    numbers: int


def count_nonfinite(tree: PyTree) -> PyTree:
    """Return how many elements of each leaf are NaN or infinite."""

    def count(leaf: Any) -> jax.Array:
        if not is_floating(leaf):
            return jnp.zeros((), jnp.int32)
        return jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32)

    return jax.tree.map(count, tree)


def faults(
    before: Sequence[tuple[str, PyTree]],
    forward: Sequence[tuple[str, PyTree]],
    backward: Sequence[tuple[str, PyTree]] = (),
) -> list[Fault]:
    """Return the first NaN or infinity of each array, in the order of their occurrence.

    Each array is given by its name and its counts of NaN and infinite elements. The
    counts have shape [T], one for each of T steps, or [] if the array does not belong
    to a single step. Several arrays with their first NaN or infinity at the same step
    are returned in the order of the arguments.
    """
    found = []
    for stage, arrays in enumerate((before, forward, backward)):
        for rank, (name, tree) in enumerate(arrays):
            for path, leaf in named_leaves(tree):
                counts = np.asarray(leaf)
                if not counts.any():
                    continue
                times = np.flatnonzero(counts)
                i = int(times[-1] if stage == 2 else times[0])
                time = i if counts.ndim else None
                count = int(counts.reshape(-1)[i])
                fault = Fault(DIRECTIONS[stage], time, name + path, count)
                order = stage, time is None, -i if stage == 2 else i, rank, len(found)
                found.append((order, fault))
    return [fault for _, fault in sorted(found, key=lambda each: each[0])]


def tabulate(found: Sequence[Fault]) -> str:
    """Return text with a line for each fault, or "All is finite." without faults."""
    if not found:
        return "All is finite."
    rows = [["first not finite", "direction", "step", "numbers"]]
    for fault in found:
        step = "" if fault.time is None else str(fault.time)
        rows.append([fault.place, fault.direction, step, str(fault.numbers)])
    return aligned(rows)
