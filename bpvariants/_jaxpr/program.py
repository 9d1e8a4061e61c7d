"""Trace functions to jaxprs without inner calls; analyse and evaluate jaxprs."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import jax

# Names of the primitives that call an inner jaxpr, as `jit` does. Each version of JAX
# uses only some of these names.
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
# Calls that may be inlined before differentiation. A `custom_jvp` function must not be
# inlined, because JAX would then ignore the derivative that the function defines.
PLAIN_CALLS = CALLS - {"custom_jvp_call"}


def is_variable(atom: Any) -> bool:
    """Return whether an operand of a jaxpr's equation is a variable, not a literal."""
    return not hasattr(atom, "val")


def has_refs(jaxpr: Any) -> bool:
    """Return whether a jaxpr uses refs, the mutable arrays of JAX.

    A jaxpr does not show which values depend on what is written to a ref.
    """
    arrays = type(jax.typeof(0.0))
    atoms = (a for e in jaxpr.eqns for a in (*e.invars, *e.outvars))
    return any(not isinstance(a.aval, arrays) for a in (*jaxpr.constvars, *atoms))


def needed_equations(jaxpr: Any) -> list[Any]:
    """Return the equations that have effects or that the jaxpr's outputs depend on."""
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
    """Return the variables `sources`, and all variables that depend on them.

    If an equation has an operand among the returned variables, the variables in
    `results(equation)` are among them too. By default, these are all results of the
    equation.
    """
    found = set(sources)
    for equation in equations:
        if any(is_variable(atom) and atom in found for atom in equation.invars):
            found.update(results(equation))
    return found


def flat_program(
    function: Callable, *arguments: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Any]:
    """Trace a function, inline its calls, and return (jaxpr, structure of outputs).

    `calls` names the primitives to inline. By default, a `custom_jvp` function is
    inlined too, so the derivative that it defines is lost. To keep this derivative,
    pass `calls=PLAIN_CALLS`, or let `function` compute the derivative.
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
    """Evaluate a jaxpr for given arguments; return its outputs.

    `run` and `of_literal` are passed on to :func:`interpret`.
    """
    env = environment(jaxpr, consts, arguments)
    read = interpret(jaxpr.eqns, env, run, of_literal=of_literal)
    return [read(atom) for atom in jaxpr.outvars]


def environment(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]
) -> dict[Any, Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    return env | dict(zip(jaxpr.invars, arguments, strict=True))


def interpret(
    equations: Iterable[Any],
    env: dict[Any, Any],
    run: Callable[..., Sequence[Any]] | None = None,
    change: Callable[[Any, Any], Any] = lambda variable, value: value,
    of_literal: Callable[[Any], Any] = attrgetter("val"),
) -> Callable[[Any], Any]:
    """Run a jaxpr's equations; return a function that looks up an operand's value.

    `env` holds the values of the variables that no equation computes. By default,
    :func:`run_equation` computes the results of each equation. Another function
    `run(equation, operands)` may compute a property of the results instead, for example
    whether each result is constant. With a `run` of this kind, `of_literal(literal)`
    must return the same property of a literal. Each result of an equation is replaced
    by `change(variable, result)`.
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
    inner = called(equation, calls)
    if inner is not None:
        return evaluate(*inner, values, partial(run_equation, calls=calls))
    bound = equation.primitive.get_bind_params(equation.params)
    # In some versions of JAX, get_bind_params returns (functions, parameters), in
    # others only the parameters.
    functions, parameters = bound if isinstance(bound, tuple) else ([], bound)
    results = equation.primitive.bind(*functions, *values, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]


@contextlib.contextmanager
def evaluated_on_cpu() -> Iterator[None]:
    """Run primitives at once while tracing, on the CPU if JAX has a CPU backend.

    An analysis of a jaxpr runs many primitives on small arrays. Each would be compiled
    for the default device, and on an accelerator wait for transfers.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.ensure_compile_time_eval())
        with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS leaves the CPU out
            cpu = jax.local_devices(backend="cpu")[0]
            stack.enter_context(jax.default_device(cpu))
        yield


def called(
    equation: Any, calls: Collection[str] = CALLS
) -> tuple[Any, Sequence[Any]] | None:
    """Return the jaxpr that an equation calls, and the constants of this jaxpr.

    Return None if the equation's primitive is not in `calls`.
    """
    if equation.primitive.name not in calls:
        return None
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
