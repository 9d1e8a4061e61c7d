"""Make the derivatives of maxima and minima right in compiled programs.

To differentiate a maximum, JAX finds its place by comparing the operand with the
result. In a compiled program XLA may compute the operand twice: for the maximum and for
the comparison. If the two values of an operand are rounded differently, for example by
a fused multiply-add, no element equals the maximum, and the derivative of the maximum
is lost without a warning (jax-ml/jax#40564).

This file stores the operands of maxima and minima in memory first, in every program
that is differentiated. A maximum, and the comparison that finds its place, then read
the same values. Results, ties and NaN are as in JAX.
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
# Primitives whose inner programs are searched for maxima. A `custom_jvp` is not
# searched, because it keeps its own derivative. The inner program of a general `reduce`
# may take maxima, too.
ENTERED = PLAIN_CALLS | {"cond", "reduce", "scan", "while"}


def with_stored_operands(function: Callable, *arguments: PyTree) -> Callable:
    """Return the function with the derivatives of its maxima and minima made safe.

    `arguments`, or their shapes, serve to trace the function. A function without maxima
    and minima is returned as it is.
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

    Calls such as `jit` are not inlined, and `custom_jvp` functions keep their own
    derivatives.
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


def _with_stored_operands(parameter: Any) -> Any:
    """Rewrite an equation's parameter if it is a program, or a tuple of programs."""
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
    assert not new.consts  # a jaxpr that is not closed has no constants
    return new.jaxpr


def _compares(program: Any) -> bool:
    """Return whether a program takes maxima or minima of real numbers, at any depth."""
    return any(
        any(map(_varies, equation.invars))
        if equation.primitive.name in COMPARING
        else any(map(_compares, _inner_programs(equation)))
        for equation in program.eqns
    )


def _varies(atom: Any) -> bool:
    """Return whether an operand is a real floating array, and not a literal."""
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
    """Return x; in a program that is differentiated, return it from memory."""
    return x


@_stored.defjvp
def _stored_jvp(primals, tangents):
    return _in_memory(*primals), tangents[0]


@jax.custom_jvp
def _in_memory(x: jax.Array) -> jax.Array:
    """Store x in memory and return it from there, so that no consumer computes x again.

    On accelerators, `optimization_barrier` keeps x in memory. XLA's CPU compiler
    removes barriers before it fuses operations, but never fuses a windowed reduction
    into its consumers. x is therefore also a windowed maximum, of each element and −∞.
    """
    if not x.size:
        return x
    rank, padding = x.ndim, [(0, 0)] * x.ndim + [(0, 1)]
    largest = jax.lax.reduce_window(
        x[..., None],
        np.array(-np.inf, x.dtype),  # JAX must know this value to see a maximum
        jax.lax.max,
        window_dimensions=(1,) * rank + (2,),
        window_strides=(1,) * (rank + 1),
        padding=padding,
    )
    return jax.lax.optimization_barrier(largest[..., 0])


@_in_memory.defjvp
def _in_memory_jvp(primals, tangents):
    return _in_memory(*primals), tangents[0]
