"""A function as a flat list of primitive operations, to be read and to be run again."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

# Programs within the program, as a jitted helper is; names differ by version of JAX.
CALLS = {
    "checkpoint",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "jit",
    "pjit",
    "remat",
    "remat2",
}
# All but those that have a derivative of their own, which entering them would lose.
PLAIN_CALLS = CALLS - {"custom_jvp_call"}


def is_variable(atom: Any) -> bool:
    """Whether an operand is a variable; literals have a value of their own."""
    return not hasattr(atom, "val")


def flat_program(
    function: Callable, *arguments: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Any]:
    """Return (closed jaxpr, structure of the outputs) with no `calls` left in it.

    A `custom_jvp` is replaced by what it computes, so that its own derivative is lost:
    to keep it, trace the derivative, or enter PLAIN_CALLS only. Costs one more trace of
    the function.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    run = lambda *leaves: evaluate(closed.jaxpr, closed.consts, leaves, calls)
    flat = jax.make_jaxpr(run)(*jax.tree.leaves(arguments))
    return flat, jax.tree.structure(shapes)


def evaluate(
    jaxpr: Any,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    calls: Collection[str] = CALLS,
    run: Callable[..., list[Any]] | None = None,
) -> list[Any]:
    """Run a program, entering the programs that it calls.

    `run` may take the place of :func:`run_equation`, and then enters them by itself.
    """
    run = run_equation if run is None else run
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda atom: env[atom] if is_variable(atom) else atom.val
    for equation in jaxpr.eqns:
        values = run(equation, [read(atom) for atom in equation.invars], calls)
        env |= dict(zip(equation.outvars, values, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def run_equation(
    equation: Any, values: Sequence[Any], calls: Collection[str] = CALLS
) -> list[Any]:
    """Return the results of one equation, as a list."""
    inner = called(equation, calls)
    if inner is not None:
        return evaluate(*inner, values, calls)
    bound = equation.primitive.get_bind_params(equation.params)
    functions, parameters = bound if isinstance(bound, tuple) else ([], bound)  # by JAX
    results = equation.primitive.bind(*functions, *values, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]


def called(
    equation: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Sequence[Any]] | None:
    """Return (jaxpr, consts) of the program that an equation calls, if it is a call."""
    if equation.primitive.name not in calls:
        return None
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
