"""Which inputs of a step can reach its new carry, read off its program."""

from collections.abc import Sequence
from typing import Any

import jax

from bpvariants._carries import floating_leaves
from bpvariants._jaxpr.program import called, is_variable, PLAIN_CALLS
from bpvariants.types import PyTree, Step


def reaches_carry(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> list[bool]:
    """Tell for each array of params whether the step's new carry depends on it.

    Read off the step's program, so that it holds for every value: an array is said to
    reach the carry unless no path leads there.
    """
    traced = jax.make_jaxpr(lambda *args: floating_leaves(step(*args)[0]))
    jaxpr = traced(params, carry, x).jaxpr
    needed = needed_inputs(jaxpr, [True] * len(jaxpr.outvars))
    return needed[: len(jax.tree.leaves(params))]


def needed_inputs(jaxpr: Any, needed_outputs: Sequence[bool]) -> list[bool]:
    """Walk a program backwards from its needed outputs to the inputs they need."""
    if jaxpr.effects:  # such as writing to a ref, which leads on unseen
        return [True] * len(jaxpr.invars)
    outputs = zip(jaxpr.outvars, needed_outputs, strict=True)
    needed = {atom for atom, yes in outputs if yes and is_variable(atom)}
    for equation in reversed(jaxpr.eqns):
        flags = [variable in needed for variable in equation.outvars]
        if not any(flags):
            continue
        if (inner := called(equation, PLAIN_CALLS)) is not None:
            inputs = needed_inputs(inner[0], flags)
        else:
            inputs = [True] * len(equation.invars)
        pairs = zip(equation.invars, inputs, strict=True)
        needed |= {atom for atom, yes in pairs if yes and is_variable(atom)}
    return [variable in needed for variable in jaxpr.invars]
