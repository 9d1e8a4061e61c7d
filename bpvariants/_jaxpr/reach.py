"""Find from a function's jaxpr which arguments its results depend on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from bpvariants._carries import floating_leaves
from bpvariants._jaxpr.program import called, is_variable, PLAIN_CALLS
from bpvariants.types import PyTree, Step


def reaches_carry(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> list[bool]:
    """Return, for each array of params, whether the step's new carry depends on it.

    The flags come from the step's jaxpr, so each flag holds for all values of the
    arguments. A flag is False only if no path of the jaxpr leads from the array to the
    new carry.
    """
    new_carry = lambda *arguments: floating_leaves(step(*arguments)[0])
    return needed_arguments(new_carry, params, carry, x)[0]


def needed_arguments(function: Callable, *arguments: PyTree) -> list[list[bool]]:
    """Return, for each leaf of each argument, whether a result depends on it."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed = iter(_needed_inputs(jaxpr, [True] * len(jaxpr.outvars)))
    return [[next(needed) for _ in jax.tree.leaves(tree)] for tree in arguments]


def _needed_inputs(jaxpr: Any, needed_outputs: Sequence[bool]) -> list[bool]:
    if jaxpr.effects:  # a write to a ref hides how variables depend on each other
        return [True] * len(jaxpr.invars)
    outputs = zip(jaxpr.outvars, needed_outputs, strict=True)
    needed = {atom for atom, yes in outputs if yes and is_variable(atom)}
    for equation in reversed(jaxpr.eqns):
        flags = [variable in needed for variable in equation.outvars]
        if not any(flags):
            continue
        if (inner := called(equation, PLAIN_CALLS)) is not None:
            inputs = _needed_inputs(inner[0], flags)
        else:
            inputs = [True] * len(equation.invars)
        pairs = zip(equation.invars, inputs, strict=True)
        needed |= {atom for atom, yes in pairs if yes and is_variable(atom)}
    return [variable in needed for variable in jaxpr.invars]
