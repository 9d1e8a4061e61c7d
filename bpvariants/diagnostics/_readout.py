"""What an output reads of the carry that leaves the step with it.

A step computes h_t = f(θ, h_{t−1}, x_t) and, in most networks, y_t = g(θ, h_t) of it;
what is seen from outside is only that both depend on h_{t−1}. The step's program tells
them apart: y_t reads h_t where the variable that leaves as h_t is an operand on the way
to y_t. To move h_t, the program is run once for h_t, and again with that variable put
in its place, which the compiler makes one run.
"""

from collections.abc import Callable
from typing import Any

import jax

from bpvariants._program import (
    environment,
    flat_program,
    interpret,
    is_variable,
    PLAIN_CALLS,
)
from bpvariants.types import PyTree, Step


def reading_new_carry(step: Step, change: Callable[[PyTree], PyTree]) -> Step:
    """Return the step whose new carry is changed before its outputs read it."""

    def changed_step(params, carry, x):
        program, structure = flat_program(step, params, carry, x, calls=PLAIN_CALLS)
        leaves = jax.tree.leaves((params, carry, x))
        new, _ = structure.unflatten(_run(program, leaves, {}))
        new = change(new)
        outputs = program.jaxpr.outvars
        given = set(program.jaxpr.invars) | set(program.jaxpr.constvars)
        known = {
            variable: leaf
            for variable, leaf in zip(outputs, jax.tree.leaves(new), strict=False)
            if is_variable(variable) and variable not in given
        }
        _, y = structure.unflatten(_run(program, leaves, known))
        return new, y

    return changed_step


def _run(program: Any, arguments: list[Any], known: dict[Any, Any]) -> list[Any]:
    """Run a flat program, with some of its variables having the values given."""
    jaxpr, env = program.jaxpr, environment(program.jaxpr, program.consts, arguments)
    change = lambda variable, value: known.get(variable, value)
    read = interpret(jaxpr.eqns, env, PLAIN_CALLS, change=change)
    return [read(atom) for atom in jaxpr.outvars]
