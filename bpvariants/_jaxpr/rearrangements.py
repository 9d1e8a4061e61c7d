"""Primitives that only rearrange array elements, and the elements' new positions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.program import evaluated_on_cpu, run_equation


def _unchanged(equation, operand):
    del equation
    return [operand]


def _reshaped(equation, operand):
    return [operand.reshape(equation.outvars[0].aval.shape)]


def _broadcast(equation, operand):
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for axis, size in zip(axes, operand.shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(operand.reshape(aligned), shape)]


def _concatenated(equation, *operands):
    return [np.concatenate(operands, axis=equation.params["dimension"])]


def _reversed(equation, operand):
    return [np.flip(operand, equation.params["dimensions"])]


def _sliced(equation, operand):
    p = equation.params
    bounds = p["start_indices"], p["limit_indices"], p["strides"] or [1] * operand.ndim
    return [operand[tuple(map(slice, *bounds))]]


def _split(equation, operand):
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(operand, ends, axis=equation.params["axis"])


def _transposed(equation, operand):
    return [operand.transpose(equation.params["permutation"])]


class Rearrangement(NamedTuple):
    """Description of a primitive that only rearranges elements.

    Attributes:
      indices: indices of the operands that say from where or to where elements are
        moved. The values of these operands must be known while tracing.
      in_numpy: function (equation, *operands) -> results that runs the primitive in
        NumPy, to avoid a compilation. None if `indices` is not empty, or for `pad`.
    """

    indices: Sequence[int] = ()
    in_numpy: Callable[..., list[np.ndarray]] | None = None


UNCHANGED = ("convert_element_type", "copy", "copy_p", "name")
REARRANGEMENTS: dict[str, Rearrangement] = {
    **{name: Rearrangement(in_numpy=_unchanged) for name in UNCHANGED},
    "broadcast_in_dim": Rearrangement(in_numpy=_broadcast),
    "concatenate": Rearrangement(in_numpy=_concatenated),
    "dynamic_slice": Rearrangement(indices=range(1, 99)),
    "dynamic_update_slice": Rearrangement(indices=range(2, 99)),
    "expand_dims": Rearrangement(in_numpy=_reshaped),
    "gather": Rearrangement(indices=(1,)),
    "pad": Rearrangement(),
    "reshape": Rearrangement(in_numpy=_reshaped),
    "rev": Rearrangement(in_numpy=_reversed),
    "scatter": Rearrangement(indices=(1,)),
    "scatter-add": Rearrangement(indices=(1,)),
    "select_n": Rearrangement(indices=(0,)),
    "slice": Rearrangement(in_numpy=_sliced),
    "split": Rearrangement(in_numpy=_split),
    "squeeze": Rearrangement(in_numpy=_reshaped),
    "transpose": Rearrangement(in_numpy=_transposed),
}


def rearranges(equation: Any) -> bool:
    """Return whether an equation moves elements in a way fixed by its parameters."""
    found = REARRANGEMENTS.get(equation.primitive.name)
    return found is not None and found.in_numpy is not None


def reorders(equation: Any) -> bool:
    """Return whether an equation only reorders the elements of one floating operand."""
    old, new = equation.invars, equation.outvars
    return (
        rearranges(equation)
        and len(old) == len(new) == 1
        and is_floating(old[0].aval)
        and old[0].aval.size == new[0].aval.size
    )


def moved(
    equation: Any, marks: Sequence[np.ndarray], values: Sequence[np.ndarray | None]
) -> list[np.ndarray] | None:
    """Rearrange `marks` as an equation rearranges the elements of its operands.

    `marks` has one int32 array for each operand. `values` has the value of each
    operand, or None if the value is unknown. Return None if the rearrangement depends
    on unknown values or cannot be run on integers. For a `select_n` with an unknown
    condition, return the element-wise maximum of the marks of its cases.
    """
    name, out = equation.primitive.name, equation.outvars[0].aval
    if name == "select_n" and values[0] is None:
        whole = [np.broadcast_to(mark, out.shape) for mark in marks[1:]]
        return [np.maximum.reduce(whole)]
    operands = list(marks)
    indices, in_numpy = REARRANGEMENTS[name]
    for i in set(indices).intersection(range(len(operands))):
        value = values[i]
        if value is None:
            return None
        operands[i] = value
    if in_numpy is not None:
        return in_numpy(equation, *operands)
    try:
        with evaluated_on_cpu():
            results = _run_on_marks(equation, [jnp.asarray(m) for m in operands])
            return [np.asarray(result) for result in results]
    except (OverflowError, TypeError, ValueError):
        return None  # for example, integers cannot represent a fill value of NaN


def positions(
    equation: Any, i: int, values: Sequence[np.ndarray | None]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return the positions to which an equation moves the elements of its operand i.

    Return one pair (rows, columns) of arrays for each output. Both arrays hold flat
    positions: element columns[j] of the operand becomes element rows[j] of the output.
    Return None if the positions are unknown, or if the equation adds up elements.
    """
    zeros = [np.zeros(atom.aval.shape, np.int32) for atom in equation.invars]
    shape, size = zeros[i].shape, zeros[i].size
    marks = np.arange(1, size + 1, dtype=np.int32).reshape(shape)
    results = moved(equation, [*zeros[:i], marks, *zeros[i + 1 :]], values)
    if equation.primitive.name == "scatter-add":  # may add two elements at one position
        ones = [*zeros[:i], np.ones_like(marks), *zeros[i + 1 :]]
        counts = moved(equation, ones, values)
        if counts is None or any(np.max(count, initial=0) > 1 for count in counts):
            return None
    if results is None:
        return None
    flat = [result.reshape(-1) for result in results]
    rows = [np.flatnonzero(result > 0) for result in flat]
    return [(row, result[row] - 1) for row, result in zip(rows, flat, strict=True)]


def _run_on_marks(equation: Any, operands: list[jax.Array]) -> list[jax.Array]:
    """Run a primitive that rearranges elements on int32 marks in place of floats."""
    run: dict[str, Callable[..., jax.Array]]
    run = {"scatter": jax.lax.scatter, "scatter-add": jax.lax.scatter_add}
    name, parameters = equation.primitive.name, equation.params
    if name == "gather":
        # int32 cannot hold every fill value, so 1 stands for each nonzero fill value.
        names = "dimension_numbers", "slice_sizes", "mode"
        given = {name: parameters[name] for name in names}
        fill = int(parameters["fill_value"] != 0)
        operand, places = operands
        return [jax.lax.gather(operand, places, **given, fill_value=fill)]
    if name not in run:
        return run_equation(equation, operands)
    names = "dimension_numbers", "indices_are_sorted", "unique_indices", "mode"
    return [run[name](*operands, **{name: parameters[name] for name in names})]
