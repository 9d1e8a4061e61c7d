"""Correct derivatives of maxima and minima in compiled programs.

The derivative of a maximum compares each element of the operand with the result. In a
compiled program, XLA may compute the operand twice: once for the result, once for the
comparison. If the two copies are rounded differently, for example by a fused
multiply-add, no element equals the maximum. The derivative is then silently wrong
(jax-ml/jax#40564).

This file stores the operand of each differentiated maximum or minimum in memory before
the operand is used. The result and the comparison then read equal values. The results,
and the derivatives at ties and NaN, are the same as in JAX.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._jaxpr.program import (
    evaluate,
    is_variable,
    PLAIN_CALLS,
    run_equation,
)
from bpvariants.types import PyTree

# Primitives whose derivatives compare an operand with the result.
COMPARING = {
    "cummax",
    "cummin",
    "max",
    "min",
    "reduce_max",
    "reduce_min",
    "scatter-max",
    "scatter-min",
}
# Primitives whose inner jaxprs are searched for maxima and minima. A `custom_jvp` is
# not searched, because it has its own derivative. The function that `reduce` applies
# may be a maximum.
ENTERED = PLAIN_CALLS | {"cond", "reduce", "scan", "while"}


def with_stored_operands(function: Callable, *arguments: PyTree) -> Callable:
    """Return `function` with correct derivatives of its maxima and minima.

    The function is traced with `arguments`, which may be `jax.ShapeDtypeStruct`s. The
    function is returned unchanged if it has no differentiable maxima or minima.
    """
    if not _compares(jax.make_jaxpr(function)(*arguments)):
        return function

    def stored(*arguments):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = list(map(jnp.asarray, jax.tree.leaves(arguments)))
        jaxpr, consts = closed.jaxpr, closed.consts
        results = evaluate(jaxpr, consts, leaves, storing(jaxpr))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return stored


def storing(jaxpr: Any, flags: Sequence[bool] | None = None) -> Callable:
    """Return a function (equation, operands) -> results that runs one equation.

    The returned function stores the operands of differentiated maxima and minima in
    memory, also in inner jaxprs. `flags` mark which outputs of the jaxpr are
    differentiated; by default, all outputs are.
    """
    differentiated = _differentiated(jaxpr, flags)

    def run(equation, operands):
        return run_stored(equation, operands, differentiated)

    return run


def run_stored(
    equation: Any, operands: Sequence[Any], differentiated: set[Any] | None = None
) -> list[Any]:
    """Run one equation; store the operands of a differentiated maximum or minimum.

    `differentiated` is the set of variables through which derivatives flow; None means
    all variables.
    """
    flags = [differentiated is None or v in differentiated for v in equation.outvars]
    if equation.primitive.name in COMPARING and any(flags):
        pairs = zip(equation.invars, operands, strict=True)
        operands = [
            _stored(value) if _has_maximum(atom) else value for atom, value in pairs
        ]
    elif _compares_inside(equation, flags):
        change = partial(_with_stored_operands, flags=_inner_flags(equation, flags))
        parameters = {name: change(value) for name, value in equation.params.items()}
        equation = equation.replace(params=parameters)
    return run_equation(equation, operands, calls=())


def _with_stored_operands(parameter: Any, flags: Sequence[bool] | None) -> Any:
    """Store the operands of maxima and minima in the jaxprs of an equation's parameter.

    Only a parameter that is a jaxpr or a tuple of jaxprs is changed.
    """
    if isinstance(parameter, tuple):
        return tuple(_with_stored_operands(each, flags) for each in parameter)
    if not _is_program(parameter) or not _compares(parameter, flags):
        return parameter
    jaxpr = getattr(parameter, "jaxpr", parameter)
    consts = getattr(parameter, "consts", ())
    run = storing(jaxpr, flags)
    new = jax.make_jaxpr(lambda *values: evaluate(jaxpr, consts, values, run))(
        *(variable.aval for variable in jaxpr.invars)
    )
    if parameter is not jaxpr:
        return new
    assert not new.consts  # an open jaxpr cannot hold constants
    return new.jaxpr


def _compares(program: Any, flags: Sequence[bool] | None = None) -> bool:
    """Return whether a jaxpr has differentiated maxima or minima of real arrays."""
    jaxpr = getattr(program, "jaxpr", program)
    differentiated = _differentiated(jaxpr, flags)

    def compares(equation):
        flags = [variable in differentiated for variable in equation.outvars]
        if equation.primitive.name in COMPARING:
            return any(flags) and any(map(_has_maximum, equation.invars))
        return _compares_inside(equation, flags)

    return any(map(compares, jaxpr.eqns))


def _compares_inside(equation: Any, flags: Sequence[bool]) -> bool:
    inner = _inner_flags(equation, flags)
    return any(_compares(program, inner) for program in _inner_programs(equation))


def _inner_flags(equation: Any, flags: Sequence[bool]) -> Sequence[bool] | None:
    return flags if equation.primitive.name in PLAIN_CALLS else None


def _differentiated(jaxpr: Any, flags: Sequence[bool] | None) -> set[Any]:
    """Return the variables on which a differentiated output depends.

    Paths through `stop_gradient` do not count. For example, `logsumexp` stops the
    gradient of its maximum.
    """
    outputs = jaxpr.outvars
    flags = [True] * len(outputs) if flags is None else flags
    pairs = zip(outputs, flags, strict=True)
    found = {atom for atom, yes in pairs if yes and _varies(atom, jnp.inexact)}
    for equation in reversed(jaxpr.eqns):
        stops = equation.primitive.name == "stop_gradient"
        if not stops and (equation.effects or found.intersection(equation.outvars)):
            found |= {a for a in equation.invars if _varies(a, jnp.inexact)}
    return found


def _varies(atom: Any, kind: Any = jnp.floating) -> bool:
    """Return whether an operand is a variable whose dtype is of the kind `kind`."""
    is_array = is_variable(atom) and hasattr(atom.aval, "dtype")
    return is_array and jnp.issubdtype(atom.aval.dtype, kind)


def _has_maximum(atom: Any) -> bool:
    """Return whether an atom varies and has elements, so that it can have a maximum.

    An axis of symbolic length counts as an axis with elements.
    """
    lengths = atom.aval.shape if _varies(atom) else (0,)
    return not any(isinstance(length, int) and length == 0 for length in lengths)


def _inner_programs(equation: Any) -> Iterator[Any]:
    if equation.primitive.name in ENTERED:
        for parameter in equation.params.values():
            several = parameter if isinstance(parameter, tuple) else (parameter,)
            yield from filter(_is_program, several)


def _is_program(parameter: Any) -> bool:
    return hasattr(parameter, "eqns")


@jax.custom_jvp
def _stored(x: jax.Array) -> jax.Array:
    """Return x; if the call is differentiated, store x in memory first."""
    return _one_column(x)[..., 0]


@_stored.defjvp
def _stored_jvp(primals, tangents):
    return _in_memory(*primals), tangents[0]


@jax.custom_jvp
def _in_memory(x: jax.Array) -> jax.Array:
    """Store x in memory and return it, so that no operation computes x again.

    On accelerators, the optimization barrier suffices. XLA's CPU compiler removes
    barriers before it fuses operations, but it never fuses a windowed reduction with
    the operations that use its result. Here, each window of the reduction holds one
    element of x and one element of padding, −∞. The maximum is therefore x itself.
    """
    column = _one_column(x)
    if not x.size:
        return column[..., 0]
    rank, padding = x.ndim, [(0, 0)] * x.ndim + [(0, 1)]
    largest = jax.lax.reduce_window(
        column,
        # With a concrete initial value, JAX recognises that the reduction is a maximum.
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        window_dimensions=(1,) * rank + (2,),
        window_strides=(1,) * (rank + 1),
        padding=padding,
    )
    return jax.lax.optimization_barrier(largest[..., 0])


@_in_memory.defjvp
def _in_memory_jvp(primals, tangents):
    return _in_memory(*primals), tangents[0]


def _one_column(x: jax.Array) -> jax.Array:
    """Append an axis of length 1, so that `vmap` puts its mapped axis first.

    JAX requires that a `custom_jvp` function and its derivative return the mapped axis
    at the same position.
    """
    return x[..., None]
