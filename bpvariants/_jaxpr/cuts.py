"""Cut a step's program at its new carry: what reads it, and what goes around it.

A step computes h_t = f(θ, h_{t−1}, x_t) and, in most networks, y_t = g(θ, h_t) of it;
seen from outside, both merely depend on h_{t−1}. The step's program tells them apart:
y_t reads h_t where the variable that leaves as h_t is an operand on the way to y_t. To
move h_t, the program is run once for h_t, and again with that variable put in its
place; the compiler makes one run of the two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._jaxpr.program import (
    environment,
    flat_program,
    interpret,
    is_variable,
    PLAIN_CALLS,
    run_equation,
)
from bpvariants.types import PyTree, Step

# What leaves the numbers of an array as they are, if it leaves as many.
_REARRANGES = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "name",
    "reshape",
    "squeeze",
    "transpose",
}


def _run(program, arguments, change=lambda variable, value: value):
    """Run a program with values changed on the way; return how to read an operand."""
    leaves = jax.tree.leaves(arguments)
    env = environment(program.jaxpr, program.consts, leaves)
    return interpret(program.jaxpr.eqns, env, PLAIN_CALLS, change=change)


def _skips(program, structure, cuts, num_params):
    """Whether the loss depends on the old carry other than through the new one."""
    jaxpr = program.jaxpr
    carry, loss = structure.unflatten(jaxpr.outvars)
    num_carry = len(jax.tree.leaves(carry))
    reached = set(jaxpr.invars[num_params : num_params + num_carry])
    for equation in jaxpr.eqns:
        if equation.effects or any(
            is_variable(atom) and atom in reached for atom in equation.invars
        ):
            reached |= {v for v in equation.outvars if v not in cuts}
    return is_variable(loss) and loss in reached


def _cuts(program: Any, structure: Any, first: Sequence[int]) -> dict:
    """Return for variables where to cut (which leaf of the carry it is, and how).

    The carry may be a mere rearrangement of what the output is computed from, as it is
    where batch axes are taken away from it: cut where the numbers are computed.
    """
    jaxpr = program.jaxpr
    carry, _ = structure.unflatten(jaxpr.outvars)
    outvars = [v for v in jax.tree.leaves(carry) if _differentiable(v)]
    made_by = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    cuts = {}
    for place in (*first, *(i for i in range(len(outvars)) if i not in first)):
        variable, chain = outvars[place], []
        while is_variable(variable) and variable in made_by:
            equation = made_by[variable]
            if not _rearranges(equation):
                cuts.setdefault(variable, (place, chain))
                break
            chain.insert(0, equation)
            variable = equation.invars[0]
    return cuts


def _differentiable(atom):
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def _rearranges(equation):
    name, old = equation.primitive.name, equation.invars[:1]
    return (
        name in _REARRANGES
        and _differentiable(old[0])
        and old[0].aval.size == equation.outvars[0].aval.size
    )


def _rearrange(value, chain):
    for equation in chain:
        (value,) = run_equation(equation, [value])
    return value


def reading_new_carry(step: Step, change: Callable[[PyTree], PyTree]) -> Step:
    """Return the step whose new carry is changed before its outputs read it."""

    def changed_step(params, carry, x):
        program, structure = flat_program(step, params, carry, x, calls=PLAIN_CALLS)
        leaves = jax.tree.leaves((params, carry, x))
        new, _ = structure.unflatten(_run_knowing(program, leaves, {}))
        new = change(new)
        outputs = program.jaxpr.outvars
        given = set(program.jaxpr.invars) | set(program.jaxpr.constvars)
        known = {
            variable: leaf
            for variable, leaf in zip(outputs, jax.tree.leaves(new), strict=False)
            if is_variable(variable) and variable not in given
        }
        _, y = structure.unflatten(_run_knowing(program, leaves, known))
        return new, y

    return changed_step


def _run_knowing(
    program: Any, arguments: list[Any], known: dict[Any, Any]
) -> list[Any]:
    """Run a flat program, with some of its variables having the values given."""
    jaxpr, env = program.jaxpr, environment(program.jaxpr, program.consts, arguments)
    change = lambda variable, value: known.get(variable, value)
    read = interpret(jaxpr.eqns, env, PLAIN_CALLS, change=change)
    return [read(atom) for atom in jaxpr.outvars]
