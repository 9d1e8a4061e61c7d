"""Sparsity pattern and nonzero factors of each linear primitive's Jacobian."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._jaxpr.program import is_variable
from bpvariants._jaxpr.rearrangements import (
    positions,
    REARRANGEMENTS,
    UNCHANGED,
)

# Largest number of pairs (result element, operand element) to list for one primitive.
LARGEST = 50_000_000


class Link(NamedTuple):
    """Dependence of a linear primitive's result on one operand, element by element.

    Attributes:
      rows: flat positions of elements of the result.
      columns: for each entry of `rows`, the flat position of the operand's element that
        the result's element depends on.
      factor: function (read) -> one factor for each entry of `rows`, by which the
        operand's element is multiplied; `read` is a function that returns the value of
        a variable. None: all factors are 1.
      apply: linear function to apply after the multiplication, such as `jnp.real`; None
        is the identity.
      mixes: whether the primitive adds up different elements of the operand.
    """

    rows: np.ndarray
    columns: np.ndarray
    factor: Callable[[Callable], jax.Array] | None = None
    apply: Callable[[jax.Array], jax.Array] | None = None
    mixes: bool = False


# Element-wise linear primitives. Each result is the sum of the primitive's operands,
# after the listed functions are applied to them; None is the identity.
ALONG: dict[str, list[Callable | None]] = {
    **{name: [None] for name in UNCHANGED},
    "add": [None, None],
    "add_any": [None, None],
    "complex": [None, lambda value: 1j * value],
    "conj": [jnp.conj],
    "imag": [jnp.imag],
    "neg": [jnp.negative],
    "real": [jnp.real],
    "reduce_precision": [None],
    "sub": [None, jnp.negative],
}


def links(
    equation: Any,
    is_tangent: Sequence[bool],
    known: dict[Any, np.ndarray],
    nonzero: dict[Any, np.ndarray],
) -> list[list[Link | None]] | None:
    """Return, for each output of a linear equation, its link to each operand.

    An operand that is not a tangent has None instead of a link. `is_tangent` tells
    which operands are tangents. `known` contains values known while tracing, by
    variable; `nonzero` contains masks of the elements that may be nonzero. Return None
    for a primitive whose links cannot be found. Each element of its results must then
    be assumed to depend on every element of its operands.
    """
    name = equation.primitive.name
    tangents = [i for i, yes in enumerate(is_tangent) if yes]
    size = sum(variable.aval.size for variable in equation.outvars)
    if name in ALONG:
        found = [_along(equation, i, ALONG[name][i]) for i in tangents]
    elif name in ("mul", "div") and len(tangents) == 1:
        found = [_scaled(equation, tangents[0], nonzero)]
    elif name == "dot_general" and len(tangents) == 1:
        link = _contracted(equation, tangents[0], nonzero)
        if link is None:
            return None
        found = [link]
    elif name == "reduce_sum":
        found = [_summed(equation)]
    elif name == "select_n" and not _known(equation.invars[0], known):
        found = [_chosen(equation, i) for i in tangents]
    elif name in REARRANGEMENTS and size < LARGEST:
        return _rearranged(equation, is_tangent, known)
    else:
        return None
    full: list[Link | None] = [None] * len(is_tangent)
    for i, link in zip(tangents, found, strict=True):
        full[i] = link
    return [full]


def _rearranged(
    equation: Any, is_tangent: Sequence[bool], known: dict[Any, np.ndarray]
) -> list[list[Link | None]] | None:
    values = [
        known.get(atom) if is_variable(atom) else np.asarray(atom.val)
        for atom in equation.invars
    ]
    found: list[list[Link | None]]
    found = [[None] * len(values) for _ in equation.outvars]
    for i, yes in enumerate(is_tangent):
        if not yes:
            continue
        results = positions(equation, i, values)
        if results is None:
            return None
        for output, (rows, columns) in zip(found, results, strict=True):
            output[i] = Link(rows, columns)
    return found


def _known(atom: Any, known: dict[Any, np.ndarray]) -> bool:
    return not is_variable(atom) or atom in known


def _positions(equation: Any, i: int) -> tuple[np.ndarray, np.ndarray]:
    operand, out = equation.invars[i].aval, equation.outvars[0].aval
    columns = np.arange(operand.size).reshape(operand.shape)
    return np.arange(out.size), np.broadcast_to(columns, out.shape).reshape(-1)


def _along(equation, i, apply):
    return Link(*_positions(equation, i), apply=apply)


def _scaled(equation, i, nonzero):
    rows, columns = _positions(equation, i)
    other = equation.invars[1 - i]
    shape = equation.outvars[0].aval.shape
    divides = equation.primitive.name == "div"
    mark = nonzero.get(other) if is_variable(other) else np.asarray(other.val) != 0
    if mark is not None and not divides:
        chosen = np.flatnonzero(np.broadcast_to(mark, shape))
        rows, columns = rows[chosen], columns[chosen]

    def factor(read):
        value = jnp.broadcast_to(read(other), shape).reshape(-1)
        value = _taken(value, rows)
        return 1 / value if divides else value

    return Link(rows, columns, factor)


def _chosen(equation, i):
    rows, columns = _positions(equation, i)
    condition, shape = equation.invars[0], equation.outvars[0].aval.shape

    def factor(read):
        value = jnp.broadcast_to(read(condition), shape).reshape(-1)
        return (value.astype(np.int32) == i - 1).astype(equation.outvars[0].aval.dtype)

    return Link(rows, columns, factor)


def _summed(equation):
    shape, axes = equation.invars[0].aval.shape, equation.params["axes"]
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    rows = np.arange(int(np.prod(kept))).reshape(kept)
    rows = np.broadcast_to(rows, shape).reshape(-1)
    return Link(rows, np.arange(rows.size), mixes=True)


def _contracted(equation, i, nonzero):
    (contracted, batch), other = equation.params["dimension_numbers"], 1 - i
    names = [_axis_names(equation, k, contracted, batch) for k in (0, 1)]
    shared = [n for n in names[0] if n[0] == "b"]
    free = [[n for n in names[k] if n[0] == f"f{k}"] for k in (0, 1)]
    sizes = {}
    for k in (0, 1):
        sizes |= dict(zip(names[k], equation.invars[k].aval.shape, strict=True))
    order = shared + free[0] + free[1] + [n for n in names[0] if n[0] == "c"]
    full = [sizes[n] for n in order]
    if np.prod(full, dtype=float) > LARGEST:
        return None

    def position(axes):
        flat = np.arange(int(np.prod([sizes[n] for n in axes])))
        array = flat.reshape([sizes[n] for n in axes])
        array = array.transpose([axes.index(n) for n in order if n in axes])
        shape = [sizes[n] if n in axes else 1 for n in order]
        return np.broadcast_to(array.reshape(shape), full).reshape(-1)

    result = shared + free[0] + free[1]
    rows, columns, others = position(result), position(names[i]), position(names[other])
    atom = equation.invars[other]
    mark = nonzero.get(atom) if is_variable(atom) else np.asarray(atom.val) != 0
    if mark is not None:
        chosen = np.flatnonzero(mark.reshape(-1)[others])
        rows, columns, others = rows[chosen], columns[chosen], others[chosen]
    factor = lambda read: _taken(jnp.asarray(read(atom)).reshape(-1), others)
    return Link(rows, columns, factor, mixes=True)


def _axis_names(equation, k, contracted, batch):
    """Return a name for each axis of operand k of a `dot_general`.

    A name is a pair (kind, index). The kind is "b" for a batch axis, "c" for a
    contracted axis, and "f0" or "f1" for all other axes of operand 0 or 1.
    """
    names = [(f"f{k}", axis) for axis in range(len(equation.invars[k].aval.shape))]
    for index, axis in enumerate(batch[k]):
        names[axis] = ("b", index)
    for index, axis in enumerate(contracted[k]):
        names[axis] = ("c", index)
    return names


def _taken(flat, positions):
    if len(positions) == flat.size and np.array_equal(positions, np.arange(flat.size)):
        return flat
    return flat[positions]
