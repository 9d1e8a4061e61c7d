"""Split a step's loss gradient: paths through the new carry, and all other paths.

Notation: h_t are the floating leaves of the new carry, y_t the output, θ the
parameters, ℓ_t the loss. The jaxpr of the step is divided at the new carry. One part
computes the output from the new carry, with h_t as an input. A backward pass through
this part computes

    c_t = ∂ℓ_t/∂h_t,   b_t = ∂ℓ_t/∂h_{t−1},   r_t = ∂ℓ_t/∂θ,   e_t = ∂ℓ_t/∂y_t,

all at fixed h_t. Then dℓ_t/dθ = r_t + c_t M_t + b_t M_{t−1} with M_t = dh_t/dθ. All
paths that do not go through the new carry belong to r_t and b_t. The equation is
therefore correct for every division of the jaxpr.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import (
    example_shapes,
    floating_leaves,
    one_example,
    over_batch,
    replace_floating,
)
from bpvariants._dtypes import is_floating, widen
from bpvariants._jaxpr.cuts import cut_step, CutStep
from bpvariants._losses import with_loss
from bpvariants.gradients.online._online_step import OnlineStep
from bpvariants.types import Loss, PyTree, Step


class Readout(NamedTuple):
    """The weighted mean loss of one step and its derivatives at fixed new carry h_t.

    The weights of the examples' losses ℓ_t are w. All derivatives are derivatives of
    the mean loss.

    Attributes:
      value: the mean loss Σ w ℓ_t / Σ w.
      carry: the new carry h_t.
      signals: c_t, the derivative in h_t: for each floating leaf an array
        [*batch, ...].
      skip: b_t, the derivative in the old carry: for each floating leaf an array
        [*batch, ...]. None if the loss depends on the old carry only via h_t.
      direct: r_t, the derivative in the parameters, a pytree like params.
      errors: e_t, the derivative in the output: for each leaf of y an array
        [*batch, ...], or zeros for a leaf that is not floating.
      y: the shapes of one example's output.
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
    """Return the mean loss of one step with its derivatives, float32 or wider.

    The cost is one step, and one backward pass through the part of the step that
    computes the output. If two leaves of the new carry are one array, only one leaf
    gets the signal c_t. A leaf whose index is listed in `first` comes before all other
    leaves.
    """
    rank, (x, target) = len(now.batch), now.inputs
    y = jax.eval_shape(step, params, now.start, x)[1]
    start, outputs = floating_leaves(now.start), _zeros(jax.tree.leaves(y))
    cut = _cut(step, loss, params, now, outputs, first)
    run = over_batch(lambda params, h, args: cut.run(params, h, *args), rank)
    at_cuts = over_batch(lambda *args: (None, cut.at_cuts(*args)), rank)
    # Compute the new carry beforehand, so that it is a constant of `mean_loss`. With
    # stop_gradient instead, derivatives of the rule's gradients would be wrong.
    _, held = at_cuts(params, now.start, (x, target, outputs))

    def mean_loss(params, leaves, at_carry, at_output):
        carry = replace_floating(now.start, leaves)
        new, losses = run(params, carry, ((x, target, at_output), held, at_carry))
        return jnp.sum(now.shares * losses), new

    (value, new), found = jax.value_and_grad(
        mean_loss, argnums=(0, 1, 2, 3), has_aux=True
    )(params, widen(start), _zeros(start), outputs)
    direct, skip, signals, of_output = widen(found)
    rest, none = iter(of_output), jnp.zeros(now.batch)
    errors = [next(rest) if is_floating(leaf) else none for leaf in jax.tree.leaves(y)]
    skip = skip if cut.skips else None
    y = example_shapes(y, rank)
    return Readout(value, new, signals, skip, direct, errors, y)


def skips(
    step: Step, loss: Loss, params: PyTree, now: OnlineStep, first: Sequence[int] = ()
) -> bool:
    """Return whether a path from the old carry to the loss bypasses the new carry."""
    y = jax.eval_shape(step, params, now.start, now.inputs[0])[1]
    outputs = _zeros(jax.tree.leaves(y))
    return _cut(step, loss, params, now, outputs, first).skips


def _zeros(leaves):
    return [jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves if is_floating(leaf)]


def _cut(step, loss, params, now, outputs, first) -> CutStep:
    """Return the jaxpr of one example's step, divided at its new carry."""
    rank = len(now.batch)
    example = one_example(_nudged(step, loss), rank)
    inputs = *now.inputs, outputs
    start, inputs = example_shapes((now.start, inputs), rank)
    return cut_step(example, params, start, inputs, first)


def _nudged(step, loss):
    """Return the step with its loss; add an extra input, `nudges`, to the output y.

    The loss's derivative in `nudges` is then equal to its derivative in the output y.
    """

    def nudged(params, carry, inputs):
        x, target, nudges = inputs

        def nudged_step(params, carry, x):
            carry, y = step(params, carry, x)
            moved = list(map(jnp.add, floating_leaves(y), nudges))
            return carry, replace_floating(y, moved)

        return with_loss(nudged_step, loss)(params, carry, (x, target))

    return nudged
