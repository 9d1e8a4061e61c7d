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
    env = environment(jaxpr, consts, arguments)
    read = interpret(jaxpr.eqns, env, calls, run)
    return [read(atom) for atom in jaxpr.outvars]


def environment(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]
) -> dict[Any, Any]:
    """Return the values of the variables with which a program begins."""
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    return env | dict(zip(jaxpr.invars, arguments, strict=True))


def interpret(
    equations: Sequence[Any],
    env: dict[Any, Any],
    calls: Collection[str] = CALLS,
    run: Callable[..., list[Any]] | None = None,
    change: Callable[[Any, Any], Any] = lambda variable, value: value,
) -> Callable[[Any], Any]:
    """Run equations on variables of known values; return how to read an operand.

    `run` may take the place of :func:`run_equation`; `change(variable, value)` is what
    a result is to be instead.
    """
    run, env = run_equation if run is None else run, dict(env)
    read = lambda atom: env[atom] if is_variable(atom) else atom.val
    for equation in equations:
        values = run(equation, [read(atom) for atom in equation.invars], calls)
        for variable, value in zip(equation.outvars, values, strict=True):
            env[variable] = change(variable, value)
    return read


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
