"""Make the derivatives of maxima and minima right in compiled programs.

JAX finds the place of a maximum by comparing the operand with the result. In a compiled
program XLA may compute the operand twice: once for the result, once for the comparison.
If the two roundings differ, for example by a fused multiply-add, no element equals the
maximum, and the derivative is lost without a word (jax-ml/jax#40564).

Here the operands of such primitives are first stored in memory, in every program that
is differentiated. Both then read the same numbers. Values, ties and NaN are as in JAX.
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

# Primitives whose derivative compares an operand with the result.
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
# Primitives whose inner programs are searched. A `custom_jvp` keeps its own derivative.
# The function of a general `reduce` may compare, too.
ENTERED = PLAIN_CALLS | {"cond", "reduce", "scan", "while"}


def with_stored_operands(function: Callable, *arguments: PyTree) -> Callable:
    """Return the function with the derivatives of its maxima and minima made safe.

    `arguments`, or their shapes, serve to trace it. A function without maxima and
    minima that are differentiated is returned as it is.
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
    """Return a function that runs the equations of a program.

    It stores the operands of maxima and minima that are differentiated, in inner
    programs too. Calls stay calls, and `custom_jvp` functions keep their own
    derivatives. `flags` say which outputs are differentiated, by default all.
    """
    differentiated = _differentiated(jaxpr, flags)

    def run(equation, operands):
        return run_stored(equation, operands, differentiated)

    return run


def run_stored(
    equation: Any, operands: Sequence[Any], differentiated: set[Any] | None = None
) -> list[Any]:
    """Run one equation as :func:`storing` does.

    `differentiated` are variables, by default all results of the equation.
    """
    flags = [differentiated is None or v in differentiated for v in equation.outvars]
    if equation.primitive.name in COMPARING and any(flags):
        pairs = zip(equation.invars, operands, strict=True)
        operands = [_stored(value) if _varies(atom) else value for atom, value in pairs]
    elif _compares_inside(equation, flags):
        change = partial(_with_stored_operands, flags=_inner_flags(equation, flags))
        parameters = {name: change(value) for name, value in equation.params.items()}
        equation = equation.replace(params=parameters)
    return run_equation(equation, operands, calls=())


def _with_stored_operands(parameter: Any, flags: Sequence[bool] | None) -> Any:
    """Rewrite a parameter of an equation if it is a program, or a tuple of programs."""
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
    assert not new.consts  # an open program had none, and none were added
    return new.jaxpr


def _compares(program: Any, flags: Sequence[bool] | None = None) -> bool:
    """Whether a program differentiates maxima or minima of real numbers."""
    jaxpr = getattr(program, "jaxpr", program)
    differentiated = _differentiated(jaxpr, flags)

    def compares(equation):
        flags = [variable in differentiated for variable in equation.outvars]
        if equation.primitive.name in COMPARING:
            return any(flags) and any(map(_varies, equation.invars))
        return _compares_inside(equation, flags)

    return any(map(compares, jaxpr.eqns))


def _compares_inside(equation: Any, flags: Sequence[bool]) -> bool:
    inner = _inner_flags(equation, flags)
    return any(_compares(program, inner) for program in _inner_programs(equation))


def _inner_flags(equation: Any, flags: Sequence[bool]) -> Sequence[bool] | None:
    """Return which outputs of an inner program are differentiated; None for all."""
    return flags if equation.primitive.name in PLAIN_CALLS else None


def _differentiated(jaxpr: Any, flags: Sequence[bool] | None) -> set[Any]:
    """Return the variables from which a path leads to a differentiated output.

    The maximum in a `logsumexp` goes through `stop_gradient`, so it is not among them.
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
    """Whether an atom is an array of this kind, by default real, and not a literal."""
    is_array = is_variable(atom) and hasattr(atom.aval, "dtype")
    return is_array and jnp.issubdtype(atom.aval.dtype, kind)


def _inner_programs(equation: Any) -> Iterator[Any]:
    if equation.primitive.name in ENTERED:
        for parameter in equation.params.values():
            several = parameter if isinstance(parameter, tuple) else (parameter,)
            yield from filter(_is_program, several)


def _is_program(parameter: Any) -> bool:
    return hasattr(parameter, "eqns")


@jax.custom_jvp
def _stored(x: jax.Array) -> jax.Array:
    """Return x; if it is differentiated, return it from memory."""
    return _one_column(x)[..., 0]


@_stored.defjvp
def _stored_jvp(primals, tangents):
    return _in_memory(*primals), tangents[0]


@jax.custom_jvp
def _in_memory(x: jax.Array) -> jax.Array:
    """Return x from memory, so that no consumer computes it again.

    The barrier does this on accelerators. XLA's CPU compiler removes barriers before it
    fuses, but never fuses a windowed reduction into its consumers. The maximum over a
    window of x and one element of padding is x.
    """
    column = _one_column(x)
    if not x.size:
        return column[..., 0]
    rank, padding = x.ndim, [(0, 0)] * x.ndim + [(0, 1)]
    largest = jax.lax.reduce_window(
        column,
        np.array(-np.inf, x.dtype),  # known while tracing, else it is no maximum
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
    """Append an axis of length 1.

    Under `vmap` this makes the mapped axis the first. JAX needs the function of a
    `custom_jvp` and its derivative to return the mapped axis in one place.
    """
    return x[..., None]
