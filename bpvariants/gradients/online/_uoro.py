"""Unbiased online recurrent optimisation (UORO): a random influence of rank one.

Notation, for one example: h_t is the carry as a vector [n], θ the parameters as a
vector [p], ℓ_t the loss of step t, J_t = ∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ. RTRL's
influence M_t = J_t M_{t−1} + I_t, [n, p], is replaced by a matrix s̃_t θ̃_t of rank one
that has the same mean. At each step, random signs ν_t are drawn from {−1, 1}ⁿ:

    s̃_t = ρ₀ J_t s̃_{t−1} + ρ₁ ν_t,
    θ̃_t = θ̃_{t−1} / ρ₀ + ν_tᵀ I_t / ρ₁,
    dℓ_t/dθ ≈ (∂ℓ_t/∂h_{t−1} s̃_{t−1}) θ̃_{t−1} + ∂ℓ_t/∂θ.

The scale ρ₀ must not depend on ν_t, and ρ₁ must be the same for ν_t and −ν_t. Because
E[ν νᵀ] is the identity and E[ν] = 0, the mean of s̃_t θ̃_t is exact under these
conditions, for all positive ρ₀ and ρ₁: E[s̃_t θ̃_t] = J_t E[s̃_{t−1} θ̃_{t−1}] + I_t.
The scales ρ₀ and ρ₁ balance the norms of the added terms, so that the variance is
small:

    ρ₀ = √((‖θ̃_{t−1}‖ + ε) / (‖J_t s̃_{t−1}‖ + ε)),
    ρ₁ = √((‖ν_tᵀ I_t‖ + ε) / (‖ν_t‖ + ε)),     ε = 10⁻⁷.

At the first step, the factors s̃ and θ̃ are 0, and ε makes the scale ρ₀ = 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import (
    floating_leaves,
    over_batch,
    replace_floating,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import quick_norms, times
from bpvariants._jaxpr.reach import reaches_carry
from bpvariants._losses import (
    with_loss,
)
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_state,
    enter_first_step,
    enter_step,
    OnlineStep,
)
from bpvariants.gradients.online._random import check_key, signs_like
from bpvariants.types import Loss, OnlineRule, PyTree, Step

EPSILON = 1e-7

Leaves = list[jax.Array]


class UOROState(NamedTuple):
    """State of :func:`uoro` after step t; s̃_t θ̃_t is an estimate of dh_t/dθ."""

    carry: PyTree
    # s̃_t: an array for each floating leaf of the carry, with the leaf's shape
    # [*batch, ...], float32 or wider
    carry_factor: Leaves
    # θ̃_t: a pytree like params, of arrays [*batch, *parameter's shape], float32 or
    # wider; None for params that the carry does not depend on
    params_factor: PyTree
    initial: PyTree  # carry after a reset


def uoro(step: Step, loss: Loss) -> OnlineRule:
    """UORO, an unbiased estimate of RTRL's gradient from an influence of rank one.

        s̃_t = ρ₀ J_t s̃_{t−1} + ρ₁ ν_t,      θ̃_t = θ̃_{t−1} / ρ₀ + ν_tᵀ I_t / ρ₁

    The product s̃_t θ̃_t, a matrix of rank one, estimates the influence dh_t/dθ of the
    params θ on the carry h_t. J_t is ∂h_t/∂h_{t−1}, I_t is ∂h_t/∂θ, and ν_t are random
    signs ±1, one for each element of the carry. The scales ρ₀ and ρ₁ keep the variance
    small.

    The mean of the estimate over the signs ν_t is the gradient of :func:`rtrl`. If
    params do not change along a sequence, the mean for the sequence is the gradient of
    :func:`bptt`. The variance is large, because each estimate contains terms that are
    multiplied by two different signs. These terms have mean 0, but they are as large as
    the other terms. Each example has its own signs, so that these terms average out
    over a batch. Averaging the estimates for signs ν and for the opposite signs −ν does
    not reduce the variance, because the estimates for ν and −ν are equal.

    For B examples with n carry elements each, memory is B·(n + p) for any sequence
    length, where p counts only params that the carry depends on. For all other params
    (a readout), the gradient is exact, without extra memory or time. An update takes
    the time of two backward passes and a forward-mode derivative. One of the backward
    passes runs for each example separately, so its results are B·p values.

    `step` gets one example at a time, as in :func:`rtrl`. If the carry before the first
    step depends on params (a learned h_0), this carry is treated as a constant.

    Args:
      step: one time step of the network, which must be differentiable in forward and
        in reverse mode.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`UOROState`.
      `update` needs `key`, a new `jax.random.key` at each step.

    Raises:
      ValueError: in `init`, if params are not real floating arrays or carry is complex;
        in `update`, if there is no key; in both, if shapes or dtypes of the arguments
        disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.over_sequence(gradients.uoro(integrate, loss)))
      >>> args = 2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> [round(rule(*args, key=key)[1].item(), 4) for key in keys]  # n = 1: exact
      [10.0, 10.0, 10.0, 10.0]

    References:
      Tallec & Ollivier, "Unbiased online recurrent optimization", 2017,
      arXiv:1702.05043.
    """
    return _with_signs(step, loss, signs_like)


def _with_signs(
    step: Step, loss: Loss, draw: Callable[[Any, Leaves], Leaves]
) -> OnlineRule:
    """Return the UORO rule that draws the random signs by `draw(key, arrays)`."""
    advance = with_loss(step, loss)

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        thetas, structure = jax.tree.flatten(params)
        reaches = reaches_carry(now.examples, params, now.start, now.inputs)
        factors = [
            jnp.zeros(now.batch + jnp.shape(theta), widen(theta).dtype) if yes else None
            for theta, yes in zip(thetas, reaches, strict=True)
        ]
        state_factor = jax.tree.map(jnp.zeros_like, widen(floating_leaves(now.start)))
        params_factor = structure.unflatten(factors)
        return UOROState(now.start, state_factor, params_factor, initial)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        check_state("uoro", state, UOROState)
        check_key("uoro", key)
        carry, *factors, initial = state
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )

        reaches = reaches_carry(now.examples, params, now.start, now.inputs)
        check_room(reaches, params, state, now.batch)

        def mean_loss(params):
            new, losses = now.examples(params, now.start, now.inputs)
            return jnp.sum(now.shares * losses), new

        (value, new), direct = jax.value_and_grad(mean_loss, has_aux=True)(params)
        grads, leaving = widen(direct), factors
        if all(map(jax.tree.leaves, factors)):  # if False, the carry needs no params
            entering = now.restarted(factors)
            pushed, changes = _push(now, params, entering[0])
            grads = _add_influence(grads, now.shares * changes, entering[1])
            signs = draw(key, entering[0])
            pulled = _pull(now, params, entering[1], signs)
            rank = len(now.batch)
            leaving = _propagate(pushed, entering[1], signs, pulled, rank)
        new, (left, right) = now.kept((new, leaving), (carry, factors))
        return value, cast_like(grads, params), UOROState(new, left, right, initial)

    return OnlineRule(init, update)


def _push(
    now: OnlineStep, params: PyTree, carry_factor: Leaves
) -> tuple[Leaves, jax.Array]:
    """Multiply the step's Jacobian and the loss's gradient by the old carry factor.

    The Jacobian and the gradient are derivatives with respect to the old carry. One
    forward-mode derivative in the direction `carry_factor` returns both products for
    each example.
    """

    def of_carry(leaves):
        start = replace_floating(now.start, leaves)
        new, losses = now.examples(params, start, now.inputs)
        return widen(floating_leaves(new)), losses

    leaves = widen(floating_leaves(now.start))
    return jax.jvp(of_carry, (leaves,), (carry_factor,))[1]


def _pull(
    now: OnlineStep, params: PyTree, params_factor: PyTree, signs: Leaves
) -> PyTree:
    """Multiply the random signs by the derivative ∂h_t/∂θ of the new carry.

    This takes one backward pass for each example.
    """
    thetas, structure = jax.tree.flatten(params)
    reaches = [part is not None for part in structure.flatten_up_to(params_factor)]

    def of_example(params, start_and_signs, inputs):
        start, signs = start_and_signs

        def new_leaves(chosen):
            parts = zip(thetas, structure.flatten_up_to(chosen), reaches, strict=True)
            full = [cast_like(new, old) if yes else old for old, new, yes in parts]
            carry, _ = now.example(structure.unflatten(full), start, inputs)
            return widen(floating_leaves(carry))

        return jax.vjp(new_leaves, params)[1](signs)[0]

    pairs = zip(widen(thetas), reaches, strict=True)
    chosen = structure.unflatten([theta if yes else None for theta, yes in pairs])
    pull = over_batch(of_example, len(now.batch))
    return pull(chosen, (now.start, signs), now.inputs)


def _add_influence(direct: PyTree, changes: jax.Array, params_factor: PyTree) -> PyTree:
    """Add to the gradient the part that goes through the old carry.

    `direct` is the gradient at fixed old carry. UORO approximates the influence matrix
    by the product of a carry factor and a params factor. `changes` is the derivative of
    each example's loss in the direction of the carry factor. This number is multiplied
    by the example's `params_factor`, and the products are summed over the batch.
    """
    grads, structure = jax.tree.flatten(direct)
    for i, part in enumerate(structure.flatten_up_to(params_factor)):
        if part is not None:
            weights = changes.astype(part.dtype)
            grads[i] += jnp.tensordot(weights, part, axes=changes.ndim)
    return structure.unflatten(grads)


def _propagate(
    pushed: Leaves,
    params_factor: PyTree,
    signs: Leaves,
    pulled: PyTree,
    batch_rank: int,
) -> list[PyTree]:
    """Return the carry factor and the params factor after this step.

    `params_factor` is the old params factor. `pushed` is the step's Jacobian times the
    old carry factor, and `pulled` is `signs` times ∂h_t/∂θ.
    """
    norms = quick_norms((params_factor, pushed, pulled, signs), batch_rank)
    of_factor, of_pushed, of_pulled, of_signs = (size + EPSILON for size in norms)
    old_scale = jnp.sqrt(of_factor / of_pushed)
    new_scale = jnp.sqrt(of_pulled / of_signs)
    add = lambda a, b: jax.tree.map(jnp.add, a, b)
    return [
        add(times(old_scale, pushed), times(new_scale, signs)),
        add(times(1 / old_scale, params_factor), times(1 / new_scale, pulled)),
    ]


def check_room(
    reaches: list[bool], params: PyTree, state: Any, batch: tuple[int, ...]
) -> None:
    """Check that uoro's state fits the network and has factors for all needed params.

    `reaches` tells for each array of params whether the carry depends on it.
    """
    leaves = floating_leaves(state.carry)
    check_fits("uoro", "carry_factor", state.carry_factor, leaves)
    thetas, structure = jax.tree.flatten(params)
    try:
        factors = structure.flatten_up_to(state.params_factor)
    except ValueError:  # the state was made for different params
        factors = thetas
    shape = lambda theta: jax.ShapeDtypeStruct(batch + jnp.shape(theta), theta.dtype)
    like = [
        None if factor is None else shape(jnp.asarray(theta))
        for factor, theta in zip(factors, thetas, strict=True)
    ]
    like = structure.unflatten(like)
    check_fits("uoro", "params_factor", state.params_factor, like)
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    for yes, path, factor in zip(reaches, paths, factors, strict=True):
        if yes and factor is None:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} reaches the carry now, but did "
                "not with the inputs given to init, so the state has no place for its "
                "influence. Use rule.init(params, carry, (x, target)) with inputs of a "
                "step that uses all params."
            )
