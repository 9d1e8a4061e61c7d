"""Jaxpr of a step's linearisation, and the sparsity pattern of each of its primitives.

The jaxpr of a step's forward derivative has two parts: primitives on the step's own
arrays, and linear primitives on tangents. While tracing, this file finds for each
linear primitive which elements of the result depend on which elements of the operands.
If an operand's element is multiplied by a factor that is known to be zero, as in a
constant mask, the result does not depend on this element.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import cast_like, widen
from bpvariants._jaxpr.linear_operations import Link, links
from bpvariants._jaxpr.program import (
    evaluated_on_cpu,
    flat_program,
    has_refs,
    interpret,
    is_variable,
    needed_equations,
    reached,
    run_equation,
)
from bpvariants._jaxpr.rearrangements import moved, REARRANGEMENTS
from bpvariants.types import PyTree, Step


class TangentProgram(NamedTuple):
    """Equations that compute the derivative of one example's new carry.

    Attributes:
      constants: dict from a variable to the constant array that it holds.
      arguments: variables of the leaves of (params, carry, inputs).
      thetas: for each leaf of params, the variable of its tangent.
      h: for each floating leaf of the carry, the variable of its tangent.
      primal: equations on the step's own arrays, in the order of the jaxpr.
      linear: pairs (equation on tangents, links of each of its outputs), in the order
        of the jaxpr. A link says which elements of an output depend on which elements
        of an operand. The links are None if they are unknown.
      outputs: tangents of the new carry's floating leaves, as variables or literals.
      is_opaque: whether the jaxpr uses refs. With refs, `primal` and `linear` are
        empty, and every output may depend on every argument.
    """

    constants: dict[Any, Any]
    arguments: list[Any]
    thetas: list[Any]
    h: list[Any]
    primal: list[Any]
    linear: list[tuple[Any, list[list[Link | None]] | None]]
    outputs: list[Any]
    is_opaque: bool


def tangent_program(
    step_of_example: Step, params: PyTree, carry: PyTree, inputs: PyTree
) -> TangentProgram:
    """Trace the forward derivative of a step of one example.

    params, carry and inputs may be arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      ValueError: if the new carry depends on the result of a `jax.custom_vjp`.
    """

    def derivative(params, carry, inputs, thetas, h):
        leaves = lambda tree: [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]

        def new_carry(theta, h):
            theta = jax.tree.unflatten(jax.tree.structure(params), theta)
            start = replace_floating(carry, h)
            new, _ = step_of_example(cast_like(theta, params), start, inputs)
            return widen(floating_leaves(new))

        at = widen(leaves(params)), widen(floating_leaves(carry))
        return jax.linearize(new_carry, *at)[1](thetas, h)

    tangents = jax.eval_shape(
        lambda params, carry: (
            widen(jax.tree.leaves(params)),
            widen(floating_leaves(carry)),
        ),
        params,
        carry,
    )
    closed, _ = flat_program(derivative, params, carry, inputs, *tangents)
    jaxpr = closed.jaxpr
    sizes = [len(tree) for tree in tangents]
    first = len(jaxpr.invars) - sum(sizes)
    tangent_inputs = jaxpr.invars[first:]
    needed = needed_equations(jaxpr)
    if any(map(_is_custom, needed)):
        raise ValueError(
            "step must have a forward derivative, but its new carry goes through a "
            "function made by jax.custom_vjp, which has none; define that function by "
            "jax.custom_jvp, or use gradients.bptt."
        )
    is_opaque = has_refs(jaxpr)
    needed = [] if is_opaque else needed
    primal, linear = _separate(needed, set(tangent_inputs))
    constants = {}
    if not is_opaque:  # NumPy would never finish converting a ref
        constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known, nonzero = _known_zeros(primal, constants)
    return TangentProgram(
        constants,
        jaxpr.invars[:first],
        tangent_inputs[: sizes[0]],
        tangent_inputs[sizes[0] :],
        primal,
        [
            (equation, links(equation, flags, known, nonzero))
            for equation, flags in linear
        ],
        jaxpr.outvars,
        is_opaque,
    )


def primal_values(program: TangentProgram, leaves: Sequence[Any]) -> Callable:
    """Run the step's own equations; return a function from variables to values."""
    arguments = dict(zip(program.arguments, leaves, strict=True))
    return interpret(program.primal, program.constants | arguments)


def _is_custom(equation: Any) -> bool:
    """Return whether an equation, or a jaxpr in its parameters, calls a custom_vjp."""
    if equation.primitive.name == "custom_lin":
        return True
    inner = jax.tree.leaves(list(equation.params.values()))
    programs = (getattr(each, "jaxpr", each) for each in inner)
    return any(map(_is_custom, (e for p in programs for e in getattr(p, "eqns", ()))))


def _separate(equations: list[Any], tangents: set[Any]) -> tuple[list, list]:
    """Return equations without tangents, and (equation, flags) for the other equations.

    The flags tell which operands of the equation are tangents.
    """
    tangents = reached(equations, tangents)
    primal, linear = [], []
    for equation in equations:
        flags = [is_variable(atom) and atom in tangents for atom in equation.invars]
        if any(flags):
            linear.append((equation, flags))
        else:
            primal.append(equation)
    return primal, linear


def _known_zeros(
    equations: list[Any], constants: dict[Any, Any]
) -> tuple[dict[Any, np.ndarray], dict[Any, np.ndarray]]:
    """Find the variables whose values or zeros are known while tracing.

    Return two dicts. The first dict maps each variable with a known value to this
    value. The second dict maps variables to masks of the elements that may be nonzero.
    """
    known: dict[Any, np.ndarray] = {}
    for variable, value in constants.items():
        try:
            known[variable] = np.asarray(value)
        except (TypeError, jax.errors.TracerArrayConversionError):
            continue  # NumPy cannot convert random keys and tracers
    nonzero = {variable: value != 0 for variable, value in known.items()}
    for equation in equations:
        if equation.effects:
            continue
        values = [_known_value(atom, known) for atom in equation.invars]
        if all(value is not None for value in values):
            _evaluate(equation, values, known, nonzero)
        else:
            _mark(equation, values, nonzero)
    return known, nonzero


def _known_value(atom: Any, known: dict[Any, np.ndarray]) -> np.ndarray | None:
    return known.get(atom) if is_variable(atom) else np.asarray(atom.val)


def _evaluate(equation, values, known, nonzero):
    if sum(variable.aval.size for variable in equation.outvars) > 1e7:
        return
    try:
        with evaluated_on_cpu():
            results = run_equation(equation, [jnp.asarray(value) for value in values])
            results = [np.asarray(result) for result in results]
    except Exception:
        return  # the results stay unknown, for example keys that NumPy cannot convert
    for variable, result in zip(equation.outvars, results, strict=True):
        known[variable] = result
        nonzero[variable] = result != 0


def _mark(equation, values, nonzero):
    """Record which elements of an equation's results may be nonzero."""
    marks = [
        nonzero.get(atom) if is_variable(atom) else np.asarray(atom.val) != 0
        for atom in equation.invars
    ]
    name, out = equation.primitive.name, equation.outvars[0]
    shape = out.aval.shape
    given = [mark for mark in marks if mark is not None]
    if not given:
        return
    if name in ("mul", "div"):
        marks = given if name == "mul" else marks[:1]
        if marks[0] is not None:
            every = np.logical_and.reduce([np.broadcast_to(m, shape) for m in marks])
            nonzero[out] = every
    elif name == "neg":
        nonzero[out] = given[0]
    elif name in REARRANGEMENTS:
        everywhere = [
            np.ones(atom.aval.shape, bool) if mark is None else mark
            for atom, mark in zip(equation.invars, marks, strict=True)
        ]
        results = moved(equation, [m.astype(np.int32) for m in everywhere], values)
        if results is not None:
            for variable, result in zip(equation.outvars, results, strict=True):
                nonzero[variable] = result > 0
