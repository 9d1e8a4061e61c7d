"""The forward gradient: derivative along a random direction, times that direction.

Notation: θ are the parameters as a vector [p], h_t is the carry, L the loss of a
sequence, and ℓ_t the loss of step t. The direction v is a random vector [p] with E[v
vᵀ] = I. A dot marks a derivative in the direction v. Forward-mode differentiation
computes this derivative together with each step of the network, without storing earlier
steps:

    ḣ_t = ∂h_t/∂h_{t−1} ḣ_{t−1} + ∂h_t/∂θ v,
    ℓ̇_t = ∂ℓ_t/∂h_{t−1} ḣ_{t−1} + ∂ℓ_t/∂θ v.

The direction v is equal at all steps. Therefore, the derivatives ℓ̇_t of the losses add
up to ∇L·v, the derivative of the sequence's loss L. The estimate (∇L·v) v therefore has
the mean E[v vᵀ] ∇L = ∇L.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._checks import check_count
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import with_loss
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_state,
    enter_first_step,
    enter_step,
)
from bpvariants.gradients.online._random import (
    check_distribution,
    check_key,
    DISTRIBUTIONS,
    draw_like,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class ForwardGradientState(NamedTuple):
    """State of :func:`forward_gradient` after step t, with K directions."""

    carry: PyTree
    # ḣ_t, tangents of h_t: for each floating leaf of the carry an array
    # [K, *shape of the leaf], float32 or wider
    carry_tangent: list[jax.Array]
    # v, the K directions: a pytree like params, leaves [K, ...], float32 or wider
    params_tangent: PyTree
    drawn: jax.Array  # [] bool: True after the first update, which draws the directions
    initial: PyTree  # carry after a reset


def forward_gradient(
    step: Step, loss: Loss, *, directions: int = 1, distribution: str = "rademacher"
) -> OnlineRule:
    """Forward gradient, an unbiased estimate from derivatives in random directions.

        ĝ_t = mean over K directions of ℓ̇_t v,      Σ_t ĝ_t = mean of (∇L·v) v

    ĝ_t is the estimate at step t, and v a random direction. ℓ̇_t is the derivative of
    the loss of step t in this direction, and L the loss of the sequence.

    The first update after `init` draws the directions from the key of this update. All
    examples and all later steps share these directions. If params do not change, the
    sum of the estimates is therefore unbiased for the whole sequence. The sum is also
    unbiased if the sequence is processed in several parts. To draw new directions for
    each sequence, call `init` again.

    The variance grows with the number p of parameters: E‖ĝ − g‖² is (p − 1)/K · ‖g‖²
    for K Rademacher directions and (p + 1)/K · ‖g‖² for K normal directions, where g is
    the exact gradient and ĝ the estimate. Use the forward gradient for networks with
    few parameters, or as a baseline for other estimates.

    For K directions, p parameters, B examples and n elements in the carry of one
    example, memory is K·(p + B·n) for any sequence length. An update takes the time of
    one forward pass and K forward-mode derivatives. Each derivative takes the time of
    about two more forward passes.

    Args:
      step: one time step of the network. The step is differentiated only in forward
        mode, so it may contain loops of unknown length, such as `jax.lax.while_loop`.
      loss: one loss for each example.
      directions: K, the number of directions, at least 1.
      distribution: distribution of the elements of v: "rademacher" (±1) or "normal".

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is
      :class:`ForwardGradientState`. `update` needs `key`, a `jax.random.key`, at each
      step, although only the first update uses it.

    Raises:
      ValueError: if directions or distribution is not an allowed value; in `init`, if
        params are not real floating arrays or carry is complex; in `update`, if there
        is no key; in both, if shapes or dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w[0] * x + w[1], h)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> online = gradients.forward_gradient(integrate, loss)
      >>> rule = jax.jit(gradients.over_sequence(online))
      >>> w, xs, targets = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), jnp.ones(2)
      >>> keys = jax.random.split(jax.random.key(0), 4)  # exact: [2, 2]
      >>> [rule(w, jnp.array(0.0), xs, targets, key=key)[1].tolist() for key in keys]
      [[4.0, 4.0], [0.0, 0.0], [4.0, 4.0], [4.0, 4.0]]

    References:
      Baydin et al., "Gradients without backpropagation", 2022, arXiv:2202.08587.
    """
    check_count("directions", directions)
    check_distribution(distribution)
    advance = with_loss(step, loss)

    def zeros(params, carry):
        several = lambda leaf: jnp.zeros((directions, *leaf.shape), leaf.dtype)
        return jax.tree.map(several, widen((floating_leaves(carry), params)))

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        carry_tangent, tangent = zeros(params, now.start)
        drawn = jnp.array(False)
        return ForwardGradientState(now.start, carry_tangent, tangent, drawn, initial)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        check_state("forward_gradient", state, ForwardGradientState)
        check_key("forward_gradient", key)
        carry, old_tangent, params_tangent, drawn, initial = state
        wanted = jax.eval_shape(lambda: zeros(params, carry))
        for part, want in zip(("carry_tangent", "params_tangent"), wanted, strict=True):
            check_fits("forward_gradient", part, getattr(state, part), want)
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )
        leaves, structure = jax.tree.flatten(params_tangent)
        draw = lambda: draw_like(key, leaves, DISTRIBUTIONS[distribution])
        params_tangent = structure.unflatten(jax.lax.cond(drawn, lambda: leaves, draw))

        def mean_loss(wide_params, leaves):
            start = replace_floating(now.start, leaves)
            new, losses = now.examples(
                cast_like(wide_params, params), start, now.inputs
            )
            return (jnp.sum(now.shares * losses), widen(floating_leaves(new))), new

        (value, _), push, new = jax.linearize(
            mean_loss, widen(params), widen(floating_leaves(now.start)), has_aux=True
        )
        each = partial(jax.vmap, axis_size=directions)
        entering = each(now.restarted)(old_tangent)
        slopes, carry_tangent = each(push)(params_tangent, entering)
        along = lambda v: jnp.tensordot(slopes.astype(v.dtype) / directions, v, axes=1)
        grads = cast_like(jax.tree.map(along, params_tangent), params)
        left = ForwardGradientState(
            carry=now.kept(new, carry),
            carry_tangent=each(now.kept)(carry_tangent, old_tangent),
            params_tangent=params_tangent,
            drawn=jnp.array(True),
            initial=initial,
        )
        return value, grads, left

    return OnlineRule(init, update)
