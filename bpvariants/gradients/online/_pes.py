r"""Persistent evolution strategies (PES): a gradient estimate without derivatives.

Notation: θ are the parameters [p], ℓ_t is the loss of step t, and σ is a small number.
Pairs of networks run with parameters θ + ε_w and θ − ε_w, and each network keeps its
own carry. Every K steps, a new window w begins, and a new perturbation ε_w = σ v_w is
drawn, with E[v vᵀ] = I. The two carries of a pair differ because of all perturbations
so far. The sum of these perturbations is ξ_w = ε_1 + … + ε_w. With losses ℓ⁺ and ℓ⁻ of
the two networks, the gradient estimate is

    ĝ_t = mean over pairs of (ℓ_t⁺ − ℓ_t⁻) ξ_w / (2σ²).

With the latest perturbation ε_w instead of the sum ξ_w, the method would be truncated
evolution strategies. That estimate ignores how the parameters affected the carry in
earlier windows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_arrays, check_count
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import with_loss
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_state,
    enter_first_step,
    enter_step,
    OnlineStep,
)
from bpvariants.gradients.online._random import (
    check_distribution,
    check_key,
    DISTRIBUTIONS,
    draw_like,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step

SIGNS = (1.0, -1.0)  # signs of the perturbation ε in the two networks of a pair


class PESState(NamedTuple):
    """State of :func:`pes` after step t, with N pairs of networks."""

    carry: PyTree  # carry of the network with parameters θ
    # perturbation ε, a pytree like params, leaves [N, ...], float32 or wider
    noise: PyTree
    accumulated: PyTree  # ξ, the sum of all perturbations so far, shaped as `noise`
    carries: PyTree  # carries of networks at θ ± ε, leaves [2, N, *shape in carry]
    # [] int: number of steps since `init` that are not padding for all examples
    taken: jax.Array
    initial: PyTree  # carry after a reset


def pes(
    step: Step,
    loss: Loss,
    *,
    pairs: int = 8,
    sigma: float | jax.Array = 0.01,
    window: int = 1,
    distribution: str = "normal",
) -> OnlineRule:
    """PES: a gradient estimate without derivatives, unbiased up to O(σ²).

        ĝ_t = mean over N pairs of (ℓ_t⁺ − ℓ_t⁻) ξ / (2σ²),      ξ ← ξ + ε each window

    ĝ_t is the estimate at step t. ε is a random perturbation of the parameters θ with
    standard deviation σ, drawn anew every `window` steps. ξ is the sum of all
    perturbations so far. A pair is two networks, with parameters θ + ε and θ − ε and
    losses ℓ⁺ and ℓ⁻. The smoothed loss is the mean of the loss over perturbations. The
    sum Σ_t ĝ_t is an unbiased estimate of the smoothed loss's gradient. The smoothed
    loss's gradient differs from the gradient of :func:`bptt` by O(σ²). A small σ
    magnifies rounding errors of parameters and losses, because the estimate divides by
    σ. The estimate includes effects over any number of steps, also over more steps than
    `window`. The returned value and carry come from the network with the unperturbed
    parameters θ.

    Step and loss need no derivative. The loss may therefore be piecewise constant, such
    as a number of errors or a rounded value. Losses may be integers or bool, and are
    cast to floating numbers.

    The variance grows with the number p of parameters, as in :func:`forward_gradient`.
    (The rule `forward_gradient` takes about the same time and has no error of order
    σ².) The variance of PES also grows with the number of windows since the start,
    because each loss is multiplied by the sum ξ of the perturbations of all windows.
    With longer windows, ξ is a sum of fewer perturbations. If `window` is at least the
    sequence length, PES is the usual antithetic evolution strategy for whole sequences.

    If all examples are reset at the same step, the sum ξ of perturbations is set to the
    current perturbation. If only some examples are reset, ξ does not change, because
    all examples share it. The estimate is then still unbiased, but has more variance
    than necessary.

    For N pairs of networks, p parameters, B examples and n elements in the carry of one
    example, memory is N·(2p + 2B·n) for any number of steps. An update takes the time
    of 2N + 1 forward passes.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      pairs: N, the number of pairs of networks, at least 1.
      sigma: σ, the standard deviation of the perturbation of each parameter.
      window: K, the number of steps after which a new perturbation ε is drawn.
      distribution: distribution of the elements of ε / σ: "rademacher" (±1) or
        "normal".

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`PESState`.
      `update` needs `key`, a `jax.random.key`, at each step, although only the first
      step of a window uses it.

    Raises:
      ValueError: if a setting is out of its range; in `init`, if params are not real
        floating arrays or carry is complex; in `update`, if there is no key; in both,
        if shapes or dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> online = gradients.pes(
      ...     integrate, lambda y, target: y, pairs=5000, distribution="rademacher"
      ... )
      >>> rule = jax.jit(gradients.over_sequence(online))
      >>> args = jnp.array(2.0), jnp.array(0.0), jnp.ones(3), jnp.zeros(3)
      >>> _, grad = rule(*args, key=jax.random.key(0))
      >>> round(grad.item(), 1)  # derivative of (w + 2w + 3w) / 3
      2.0

    References:
      Vicol, Metz & Sohl-Dickstein, "Unbiased gradient estimation in unrolled
      computation graphs with persistent evolution strategies", 2021, arXiv:2112.13835.
    """
    _check_settings(pairs, sigma, window)
    check_distribution(distribution)
    advance = with_loss(step, loss, may_count=True)

    def start(params, carry, initial):
        several = lambda leaf: jnp.zeros((pairs, *leaf.shape), leaf.dtype)
        zeros = jax.tree.map(several, widen(params))
        spread = lambda leaf: jnp.broadcast_to(leaf, (2, pairs, *leaf.shape))
        carries = jax.tree.map(spread, carry)
        return PESState(carry, zeros, zeros, carries, jnp.zeros((), int), initial)

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        return start(params, now.start, initial)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        check_state("pes", state, PESState)
        check_key("pes", key)
        fresh = jax.eval_shape(lambda: start(params, state.carry, state.initial))
        for part in ("carries", "noise", "accumulated"):
            check_fits("pes", part, getattr(state, part), getattr(fresh, part))
        enter = lambda carry: enter_step(
            advance, params, carry, state.initial, x, target, weight, mask, reset
        )
        now = enter(state.carry)
        noise, accumulated = _draw(key, state, now, sigma, window, distribution)
        new, losses = now.examples(params, now.start, now.inputs)
        means, carries = _play(enter, params, noise, state.carries)
        slopes = (means[:, 0] - means[:, 1]) / (2 * pairs * sigma**2)
        along = lambda xi: jnp.tensordot(slopes.astype(xi.dtype), xi, axes=1)
        grads = cast_like(jax.tree.map(along, accumulated), params)
        left = PESState(
            carry=now.kept(new, state.carry),
            noise=noise,
            accumulated=accumulated,
            carries=carries,
            taken=state.taken + _goes_on(now).astype(state.taken.dtype),
            initial=state.initial,
        )
        return jnp.sum(now.shares * losses), grads, left

    return OnlineRule(init, update)


def _draw(
    key: Any,
    state: PESState,
    now: OnlineStep,
    sigma: float | jax.Array,
    window: int,
    distribution: str,
) -> tuple[PyTree, PyTree]:
    """Return the perturbation ε of this step and the sum ξ of perturbations so far."""
    leaves, structure = jax.tree.flatten(state.noise)
    sums = jax.tree.leaves(state.accumulated)

    def another():
        drawn = draw_like(key, leaves, DISTRIBUTIONS[distribution])
        drawn = [jnp.asarray(sigma, v.dtype) * v for v in drawn]
        return drawn, [xi + noise for xi, noise in zip(sums, drawn, strict=True)]

    first = (state.taken % window == 0) & _goes_on(now)
    noise, sums = jax.lax.cond(first, another, lambda: (leaves, sums))
    if now.reset is not None:
        began = now.reset if now.mask is None else now.reset & now.mask
        anew = jnp.all(began) & _goes_on(now)  # jnp.all of an empty batch is True
        sums = [jnp.where(anew, *both) for both in zip(noise, sums, strict=True)]
    return structure.unflatten(noise), structure.unflatten(sums)


def _play(
    enter: Callable[[PyTree], OnlineStep],
    params: PyTree,
    noise: PyTree,
    carries: PyTree,
) -> tuple[jax.Array, PyTree]:
    """Run one step of the two networks of each of the N pairs.

    Return the mean losses [N, 2] and the new carries, with leaves [2, N, ...].
    """

    def play(sign, noise, carry):
        at = lambda theta, noise: theta + jnp.asarray(sign, noise.dtype) * noise
        theta = cast_like(jax.tree.map(at, widen(params), noise), params)
        here = enter(carry)
        new, losses = here.examples(theta, here.start, here.inputs)
        return jnp.sum(here.shares * losses), here.kept(new, carry)

    pair = jax.vmap(play, in_axes=(0, None, 0))  # the two networks of a pair
    pair = jax.vmap(pair, in_axes=(None, 0, 1), out_axes=(0, 1))
    return pair(jnp.array(SIGNS), noise, carries)


def _goes_on(now: OnlineStep) -> jax.Array:
    """Return whether at least one example is not padding at this step, as a scalar."""
    return jnp.array(True) if now.mask is None else jnp.any(now.mask)


def _check_settings(pairs: Any, sigma: Any, window: Any) -> None:
    for name, count in {"pairs": pairs, "window": window}.items():
        check_count(name, count)
    check_arrays("sigma", sigma, "give a positive number, by default 0.01.")
    if isinstance(sigma, bool) or (are_numbers(sigma) and not sigma > 0):
        raise ValueError(
            f"sigma must be positive, got {sigma}; it scales the perturbations, by "
            "default by 0.01."
        )
