"""Trace a function to a flat jaxpr; analyse and evaluate jaxprs."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import jax

# Primitives that call an inner jaxpr, as `jit` does. Which of them occur depends on
# JAX's version.
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
# Calls that may be inlined before differentiation. A `custom_jvp` may not, because it
# would lose its own derivative.
PLAIN_CALLS = CALLS - {"custom_jvp_call"}


def is_variable(atom: Any) -> bool:
    """Return whether an operand is a variable, and not a literal."""
    return not hasattr(atom, "val")


def has_refs(jaxpr: Any) -> bool:
    """Return whether a jaxpr uses refs, which hide how its values depend on each other.

    A ref is a mutable array of JAX.
    """
    arrays = type(jax.typeof(0.0))
    atoms = (a for e in jaxpr.eqns for a in (*e.invars, *e.outvars))
    return any(not isinstance(a.aval, arrays) for a in (*jaxpr.constvars, *atoms))


def needed_equations(jaxpr: Any) -> list[Any]:
    """Return a jaxpr's equations that have effects, or that its outputs depend on."""
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

    `results(equation)` returns those results of an equation that count as dependent on
    its operands. By default, these are all results.
    """
    found = set(sources)
    for equation in equations:
        if any(is_variable(atom) and atom in found for atom in equation.invars):
            found.update(results(equation))
    return found


def flat_program(
    function: Callable, *arguments: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Any]:
    """Trace a function and inline its calls; return (jaxpr, structure of outputs).

    `calls` names the primitives to inline. By default, a `custom_jvp` is inlined too,
    so its own derivative is lost. To keep this derivative, pass `calls=PLAIN_CALLS`, or
    let `function` compute the derivative. Inlining costs one more trace.
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
    """Run a jaxpr by :func:`interpret`, and return its outputs."""
    env = environment(jaxpr, consts, arguments)
    read = interpret(jaxpr.eqns, env, run, of_literal=of_literal)
    return [read(atom) for atom in jaxpr.outvars]


def environment(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]
) -> dict[Any, Any]:
    """Return the values of a jaxpr's constants and arguments, by variable."""
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    return env | dict(zip(jaxpr.invars, arguments, strict=True))


def interpret(
    equations: Iterable[Any],
    env: dict[Any, Any],
    run: Callable[..., Sequence[Any]] | None = None,
    change: Callable[[Any, Any], Any] = lambda variable, value: value,
    of_literal: Callable[[Any], Any] = attrgetter("val"),
) -> Callable[[Any], Any]:
    """Run equations in order; return a function from operands to their values.

    `env` maps variables to values that are known beforehand. By default,
    :func:`run_equation` computes each equation's results. Another function
    `run(equation, operands)` may compute other properties of the arrays, such as which
    results are constant; `of_literal` then returns this property of a literal.
    `change(variable, result)` may replace single results.
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
    # The type of `bound` depends on JAX's version.
    functions, parameters = bound if isinstance(bound, tuple) else ([], bound)
    results = equation.primitive.bind(*functions, *values, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]


def called(
    equation: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Sequence[Any]] | None:
    """Return the jaxpr that an equation calls, and its constants; None if no call."""
    if equation.primitive.name not in calls:
        return None
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
