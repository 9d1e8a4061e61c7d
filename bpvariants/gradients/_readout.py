"""What the loss of one step says, of the new carry and of what does not go through it.

Notation: h_t the floating leaves of the new carry, y_t the output, θ the parameters.
The step is cut at the new carry, whose leaves are taken as given by what computes the
output from them, so that one backward pass through that gives

    c_t = ∂ℓ_t/∂h_t,   b_t = ∂ℓ_t/∂h_{t−1},   r_t = ∂ℓ_t/∂θ,   e_t = ∂ℓ_t/∂y_t,

all at fixed h_t. Then dℓ_t/dθ = r_t + c_t M_t + b_t M_{t−1} with M_t = dh_t/dθ, however
the program is cut: what does not go through the cut is in r_t and b_t.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import floating_parts, is_floating, widen
from bpvariants._losses import with_loss
from bpvariants._program import (
    environment,
    flat_program,
    interpret,
    is_variable,
    PLAIN_CALLS,
    run_equation,
)
from bpvariants.gradients._jacobians import (
    example_shapes,
    floating_leaves,
    one_example,
    over_batch,
    replace_floating,
)
from bpvariants.gradients._online_step import OnlineStep
from bpvariants.types import Loss, PyTree, Step

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


class Readout(NamedTuple):
    """The weighted mean loss of one step and its partial derivatives at fixed h_t.

    Attributes:
      value: Σ w ℓ_t / Σ w.
      carry: h_t.
      signals: Σ-weighted c_t, for each floating leaf of the carry [*batch, ...].
      skip: b_t, likewise; None if nothing skips the new carry.
      direct: r_t, like params.
      errors: e_t, for each leaf of y [*batch, ...], zeros if it has no derivatives.
      y: the shapes of an output of one example.
    """

    value: jax.Array
    carry: PyTree
    signals: list[jax.Array]
    skip: list[jax.Array] | None
    direct: PyTree
    errors: list[jax.Array]
    y: PyTree


def read_out(
    step: Step, loss: Loss, params: PyTree, now: OnlineStep, first: Sequence[int] = ()
) -> Readout:
    """Return the loss of one step with its derivatives, float32 or wider.

    Costs one step and one backward pass through what computes its output. Two leaves
    of the carry may be one and the same: the signal goes to the one that stands in
    `first`, their places among the floating leaves, or else to the earlier.
    """
    rank, (x, target) = len(now.batch), now.inputs
    y = jax.eval_shape(step, params, now.start, x)[1]
    start, outputs = floating_leaves(now.start), _zeros(jax.tree.leaves(y))
    program, cuts = _cut_program(step, loss, params, now, outputs, first)
    run = over_batch(lambda *args: _run_cut(*program, cuts, *args), rank)
    at_cuts = over_batch(lambda *args: _at_cuts(*program, cuts, *args), rank)
    # Values rather than a stop_gradient, which would stop derivatives of this rule too.
    _, held = at_cuts(params, now.start, (x, target, outputs))

    def mean_loss(params, leaves, at_carry, at_output):
        carry = replace_floating(now.start, leaves)
        new, losses = run(params, carry, ((x, target, at_output), at_carry, held))
        return jnp.sum(now.shares * losses), new

    (value, new), found = jax.value_and_grad(
        mean_loss, argnums=(0, 1, 2, 3), has_aux=True
    )(params, widen(start), _zeros(start), outputs)
    direct, skip, signals, of_output = widen(found)
    rest, none = iter(of_output), jnp.zeros(now.batch)
    errors = [next(rest) if is_floating(leaf) else none for leaf in jax.tree.leaves(y)]
    skip = skip if _skips(*program, cuts, len(jax.tree.leaves(params))) else None
    y = example_shapes(y, rank)
    return Readout(value, new, signals, skip, direct, errors, y)


def skips(
    step: Step, loss: Loss, params: PyTree, now: OnlineStep, first: Sequence[int] = ()
) -> bool:
    """Whether `read_out` finds a b_t, though inputs be shapes."""
    y = jax.eval_shape(step, params, now.start, now.inputs[0])[1]
    outputs = _zeros(jax.tree.leaves(y))
    program, cuts = _cut_program(step, loss, params, now, outputs, first)
    return _skips(*program, cuts, len(jax.tree.leaves(params)))


def _zeros(leaves):
    return [jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves if is_floating(leaf)]


def _cut_program(step, loss, params, now, outputs, first):
    """Return the program of one example's step, and where to cut it."""
    rank = len(now.batch)
    example = one_example(_nudged(step, loss), rank)
    shapes = example_shapes((now.start, (*now.inputs, outputs)), rank)
    program = flat_program(example, params, *shapes, calls=PLAIN_CALLS)
    return program, _cuts(*program, first)


def _nudged(step, loss):
    """Return the step with its loss, in which something is added to the output."""

    def nudged(params, carry, inputs):
        x, target, nudges = inputs

        def nudged_step(params, carry, x):
            carry, y = step(params, carry, x)
            leaves, rebuild = floating_parts(y)
            return carry, rebuild([a + b for a, b in zip(leaves, nudges, strict=True)])

        return with_loss(nudged_step, loss)(params, carry, (x, target))

    return nudged


def _at_cuts(program, structure, cuts, params, carry, inputs):
    """Return (None, what the step of one example computes where it is to be cut)."""
    del structure
    read = _run(program, (params, carry, inputs))
    return None, [read(variable) for variable in cuts]


def _run_cut(program, structure, cuts, params, carry, inputs):
    """Run the step of one example, whose new carry is h_t + nudges, fixed but for them.

    Leaves that are passed on unchanged are not cut: their uses are those of h_{t−1}.
    """
    inputs, nudges, held = inputs
    values = dict(zip(cuts, held, strict=True))

    def cut(variable, value):
        if variable not in cuts:
            return value
        place, chain = cuts[variable]
        value = values[variable]
        back = jax.vjp(lambda a: _rearrange(a, chain), value)[1]
        return value + back(nudges[place])[0]

    read = _run(program, (params, carry, inputs), cut)
    return structure.unflatten([read(atom) for atom in program.jaxpr.outvars])


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
