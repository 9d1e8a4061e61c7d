"""Operations that only put numbers elsewhere: where each of them gets to."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._jaxpr.program import run_equation

# Which operands say where to, rather than what; their values must be known.
MOVES: dict[str, Sequence[int]] = {
    "broadcast_in_dim": (),
    "concatenate": (),
    "dynamic_slice": range(1, 99),
    "dynamic_update_slice": range(2, 99),
    "expand_dims": (),
    "gather": (1,),
    "pad": (),
    "reshape": (),
    "rev": (),
    "scatter": (1,),
    "scatter-add": (1,),
    "select_n": (0,),
    "slice": (),
    "split": (),
    "squeeze": (),
    "transpose": (),
}


def moved(
    equation: Any, marks: Sequence[np.ndarray], values: Sequence[np.ndarray | None]
) -> list[np.ndarray] | None:
    """Return where the marks, int32, of operands get to; None if that is not known.

    `values` holds those of the operands that are known.
    """
    name, out = equation.primitive.name, equation.outvars[0].aval
    if name == "select_n" and values[0] is None:
        whole = [np.broadcast_to(mark, out.shape) for mark in marks[1:]]
        return [np.maximum.reduce(whole)]
    operands = list(marks)
    for i in set(MOVES[name]).intersection(range(len(operands))):
        value = values[i]
        if value is None:
            return None
        operands[i] = value
    if name in _IN_NUMPY:  # nothing to compile
        return _IN_NUMPY[name](equation, *operands)
    try:
        with jax.ensure_compile_time_eval():
            results = _run_on_marks(equation, [jnp.asarray(m) for m in operands])
            return [np.asarray(result) for result in results]
    except (OverflowError, TypeError, ValueError):
        return None  # such as a fill of NaN, which integers have not


def positions(
    equation: Any, i: int, values: Sequence[np.ndarray | None]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return, for each output, where numbers of operand i stand, and which they are.

    Both are flat. None if that is not known.
    """
    zeros = [np.zeros(atom.aval.shape, np.int32) for atom in equation.invars]
    shape, size = zeros[i].shape, zeros[i].size
    marks = np.arange(1, size + 1, dtype=np.int32).reshape(shape)
    results = moved(equation, [*zeros[:i], marks, *zeros[i + 1 :]], values)
    if equation.primitive.name == "scatter-add":  # which may sum up several
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
    """Run an operation that puts numbers elsewhere on integers."""
    run: dict[str, Callable[..., jax.Array]]
    run = {"scatter": jax.lax.scatter, "scatter-add": jax.lax.scatter_add}
    name, parameters = equation.primitive.name, equation.params
    if name == "gather":  # a fill of 1/2, or of NaN, is a mark too, which int32 lacks
        names = "dimension_numbers", "slice_sizes", "mode"
        given = {name: parameters[name] for name in names}
        fill = int(parameters["fill_value"] != 0)
        operand, places = operands
        return [jax.lax.gather(operand, places, **given, fill_value=fill)]
    if name not in run:
        return run_equation(equation, operands)
    names = "dimension_numbers", "indices_are_sorted", "unique_indices", "mode"
    return [run[name](*operands, **{name: parameters[name] for name in names})]


def _reshaped(equation, operand):
    return [operand.reshape(equation.outvars[0].aval.shape)]


def _broadcast(equation, operand):
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for axis, size in zip(axes, operand.shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(operand.reshape(aligned), shape)]


def _sliced(equation, operand):
    p = equation.params
    bounds = p["start_indices"], p["limit_indices"], p["strides"] or [1] * operand.ndim
    return [operand[tuple(map(slice, *bounds))]]


def _split(equation, operand):
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(operand, ends, axis=equation.params["axis"])


_IN_NUMPY: dict[str, Callable[..., list[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda equation, *operands: [
        np.concatenate(operands, axis=equation.params["dimension"])
    ],
    "expand_dims": _reshaped,
    "reshape": _reshaped,
    "slice": _sliced,
    "split": _split,
    "squeeze": _reshaped,
    "transpose": lambda equation, operand: [
        operand.transpose(equation.params["permutation"])
    ],
}
