"""Trace a function to a flat list of primitives; read it, and run it again."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import attrgetter
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
# Calls that may be inlined before differentiation; `custom_jvp` may not.
PLAIN_CALLS = CALLS - {"custom_jvp_call"}


def is_variable(atom: Any) -> bool:
    """Whether an operand is a variable; literals have a value of their own."""
    return not hasattr(atom, "val")


def has_refs(jaxpr: Any) -> bool:
    """Whether a program reads or writes refs, through which values pass unseen."""
    arrays = type(jax.typeof(0.0))
    atoms = (a for e in jaxpr.eqns for a in (*e.invars, *e.outvars))
    return any(not isinstance(a.aval, arrays) for a in (*jaxpr.constvars, *atoms))


def needed_equations(jaxpr: Any) -> list[Any]:
    """Return the equations that a program's outputs depend on, and those of effects."""
    needed = {atom for atom in jaxpr.outvars if is_variable(atom)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars) or equation.effects:
            equations.append(equation)
            needed |= {atom for atom in equation.invars if is_variable(atom)}
    return equations[::-1]


def reached(
    equations: Iterable[Any],
    sources: Iterable[Any],
    results: Callable[[Any], Iterable[Any]] = attrgetter("outvars"),
) -> set[Any]:
    """Return the sources and all variables that depend on them.

    `results(equation)` are those results that depend on the operands.
    """
    found = set(sources)
    for equation in equations:
        if any(is_variable(atom) and atom in found for atom in equation.invars):
            found.update(results(equation))
    return found


def flat_program(
    function: Callable, *arguments: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Any]:
    """Return (closed jaxpr, structure of the outputs) with no `calls` left in it.

    A `custom_jvp` is replaced by what it computes, so that its own derivative is lost:
    to keep it, trace the derivative, or enter PLAIN_CALLS only. Costs one more trace of
    the function.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    run = partial(run_equation, calls=calls)
    flat = jax.make_jaxpr(
        lambda *leaves: evaluate(closed.jaxpr, closed.consts, leaves, run)
    )(*jax.tree.leaves(arguments))
    return flat, jax.tree.structure(shapes)


def evaluate(
    jaxpr: Any,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    run: Callable[..., Sequence[Any]] | None = None,
    of_literal: Callable[[Any], Any] = attrgetter("val"),
) -> list[Any]:
    """Walk a program from its arguments to its outputs, as :func:`interpret` does."""
    env = environment(jaxpr, consts, arguments)
    read = interpret(jaxpr.eqns, env, run, of_literal=of_literal)
    return [read(atom) for atom in jaxpr.outvars]


def environment(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]
) -> dict[Any, Any]:
    """Return the values of the variables with which a program begins."""
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    return env | dict(zip(jaxpr.invars, arguments, strict=True))


def interpret(
    equations: Iterable[Any],
    env: dict[Any, Any],
    run: Callable[..., Sequence[Any]] | None = None,
    change: Callable[[Any, Any], Any] = lambda variable, value: value,
    of_literal: Callable[[Any], Any] = attrgetter("val"),
) -> Callable[[Any], Any]:
    """Walk equations forwards from known variables; return how to read an operand.

    By default this computes values. `run(equation, operands)` replaces
    :func:`run_equation`; with `of_literal` beside it, the walk may follow any fact
    about each array. `change(variable, result)` replaces single results.
    """
    run, env = run_equation if run is None else run, dict(env)
    read = lambda atom: env[atom] if is_variable(atom) else of_literal(atom)
    for equation in equations:
        results = run(equation, [read(atom) for atom in equation.invars])
        for variable, result in zip(equation.outvars, results, strict=True):
            env[variable] = change(variable, result)
    return read


def run_equation(
    equation: Any, values: Sequence[Any], calls: Collection[str] = CALLS
) -> list[Any]:
    """Return the results of one equation, as a list."""
    inner = called(equation, calls)
    if inner is not None:
        return evaluate(*inner, values, partial(run_equation, calls=calls))
    bound = equation.primitive.get_bind_params(equation.params)
    functions, parameters = bound if isinstance(bound, tuple) else ([], bound)  # by JAX
    results = equation.primitive.bind(*functions, *values, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]


# Runs an equation so that functions with a derivative of their own keep it.
run_plainly = partial(run_equation, calls=PLAIN_CALLS)


def called(
    equation: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Sequence[Any]] | None:
    """Return (jaxpr, consts) of the program that an equation calls, if it is a call."""
    if equation.primitive.name not in calls:
        return None
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
