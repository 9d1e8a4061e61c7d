"""GRprop, globally convergent Rprop, as in the R package neuralnet: experimental.

Parameter i has the gradient g_i and the step size Δ_i. First, each Δ_i adapts as in
Rprop⁻. Then one parameter q with g_q ≠ 0 is chosen: the parameter with the smallest
|g_q| ("sag") or with the smallest Δ_q ("slr"). The step size of q is replaced so that
the joint step of all parameters goes in a descent direction of the loss. With bounds
Δ_min and Δ_max and a small δ > 0,

    Δ_q ← clip(−(Σ_{i≠q} Δ_i g_i + δ) / g_q, Δ_min, Δ_max),    θ ← θ − Δ sign(g).

As in neuralnet, the sum Σ Δ_i g_i contains the gradients g_i, not their absolute
values, and a negative quotient is clipped to Δ_min. The paper on GRprop was not
available to the authors of this file. Another public implementation of GRprop has the
opposite sign in the equation of Δ_q, the replaced step size.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants.updates._foreign_names import refuses, TORCH_RPROP
from bpvariants.updates._params import (
    all_of,
    as_grads,
    check_number,
    check_signed,
    check_state,
    wide,
)
from bpvariants.updates.resilient._rprop_checks import check_settings
from bpvariants.updates.resilient._rprop_layouts import Numbers
from bpvariants.updates.resilient._rprop_plain import adapted


class GRpropState(NamedTuple):
    """State of :func:`grprop`; both trees are like params."""

    step_sizes: optax.Updates  # step size Δ of each parameter, float32 or wider
    signs: optax.Updates  # sign of the last gradient, int8


@refuses(**TORCH_RPROP)
def grprop(
    learning_rate: float | jax.Array = 0.1,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-10,
    max_step_size: float | jax.Array = 0.1,
    *,
    choose: Literal["sag", "slr"] = "sag",
    delta: float | jax.Array = 1e-6,
) -> optax.GradientTransformationExtraArgs:
    """GRprop as in R's neuralnet, EXPERIMENTAL: for FULL-BATCH gradients only.

    At each step, the step size of one chosen parameter is computed from the gradients
    and step sizes of all other parameters. The default settings are taken from the R
    package; with these settings, no step size grows beyond its first value. The state
    takes 5 bytes per parameter in float32; an update of p parameters takes time O(p). A
    single NaN in the gradients makes the whole update NaN, and the state does not
    change. Infinite gradients are treated as equally large gradients, in the limit in
    which their common size goes to infinity.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.
      choose: which parameter is chosen: the one with the smallest absolute gradient
        ("sag"), or the one with the smallest step size ("slr").
      delta: number δ > 0 that is added to the sum of the products Δ_i g_i of step size
        and gradient, over all parameters i except the chosen one.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if choose is unknown, or a setting other than delta is out of its
        range; in `init`, if params are not real floating arrays; in `update`, if
        gradients and params have different shapes, or if the state belongs to another
        optimizer.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.grprop(0.1, max_step_size=1.0)
      >>> grads = jnp.array([2.0, -0.5])
      >>> step, _ = optimizer.update(grads, optimizer.init(grads))
      >>> [round(each, 4) for each in step.tolist()]  # (0.1 · 2 + δ) / 0.5 = 0.4
      [-0.1, 0.4]

    References:
      Anastasiadis, Magoulas & Vrahatis, "New globally convergent training scheme based
      on the resilient propagation algorithm", Neurocomputing 64, 2005. Fritsch &
      Guenther, neuralnet, an R package (the version implemented here).
    """
    if choose not in ("sag", "slr"):
        raise ValueError(f"choose must be 'sag' or 'slr', got {choose!r}.")
    check_number("delta", delta)
    if are_numbers(delta) and not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}; 1e-6 is usual.")
    check_settings(
        "grprop", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, 0.1
    )
    check_number("learning_rate", learning_rate)

    def init(params):
        check_signed(params)

        def first(param):
            numbers = (learning_rate, min_step_size, max_step_size)
            size, least, greatest = (jnp.asarray(x, param.dtype) for x in numbers)
            return jnp.full_like(param, jnp.minimum(jnp.maximum(size, least), greatest))

        steps = jax.tree.map(first, wide(params))
        return GRpropState(steps, optax.tree.zeros_like(params, dtype=jnp.int8))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        check_state("grprop", state, GRpropState)
        updates = as_grads(updates, state.step_sizes)
        grads = cast_like(updates, state.step_sizes)
        signs = jax.tree.map(jnp.sign, grads)
        adapted = jax.tree.map(adapt, state.step_sizes, signs, state.signs)
        steps = _replace_one(adapted, grads, min_step_size, max_step_size, delta, rank)
        moves = jax.tree.map(lambda sign, step: -sign * step, signs, steps)
        good = all_of(jax.tree.map(lambda g: jnp.all(~jnp.isnan(g)), grads))
        moves = jax.tree.map(lambda move: jnp.where(good, move, jnp.nan), moves)
        new = GRpropState(steps, cast_like(signs, state.signs))
        new = jax.tree.map(partial(jnp.where, good), new, state)
        return cast_like(moves, updates), new

    def adapt(step, sign, last):
        numbers = (eta_minus, eta_plus, min_step_size, max_step_size)
        numbers = Numbers(*(jnp.asarray(x, step.dtype) for x in numbers))
        return adapted(step, sign * last.astype(step.dtype), numbers)

    rank = (lambda step, g: jnp.abs(g)) if choose == "sag" else (lambda step, g: step)
    return optax.GradientTransformationExtraArgs(init, update)


def _replace_one(steps, grads, least, greatest, delta, rank):
    """Replace one step size: the lowest in `rank` among those with a gradient ≠ 0."""
    leaves, structure = jax.tree.flatten(steps)
    filled = [i for i, leaf in enumerate(leaves) if leaf.size]
    if not filled:
        return steps
    wide = max((leaf.dtype for leaf in leaves), key=lambda dtype: dtype.itemsize)
    all_grads = jax.tree.leaves(grads)
    pairs = [(leaves[i].astype(wide), all_grads[i].astype(wide)) for i in filled]
    chosen = _first(pairs, rank)
    least, greatest, delta = (jnp.asarray(x, wide) for x in (least, greatest, delta))
    new, any_moves = _descending(pairs, chosen, delta)
    new = jnp.minimum(jnp.maximum(new, least), greatest)
    for i, (step, _), at_q in zip(filled, pairs, chosen, strict=True):
        replaced = jnp.where(at_q & any_moves, new, step)
        leaves[i] = replaced.astype(leaves[i].dtype)
    return structure.unflatten(leaves)


def _first(pairs, rank):
    """Return boolean masks like params, which are True only at the chosen parameter.

    The arrays of params are not concatenated, because XLA gives wrong results if a
    concatenated array is sharded over devices and one of its elements is written.
    """
    ranks, largest = [], jnp.finfo(pairs[0][1].dtype).max
    for step, g in pairs:  # an infinite gradient ranks before a gradient of 0
        order = jnp.where(g == 0, jnp.inf, jnp.minimum(rank(step, g), largest))
        ranks.append(order.reshape(-1))
    best = jnp.argmin(jnp.stack([jnp.min(order) for order in ranks]))
    return [
        ((jnp.arange(order.size) == jnp.argmin(order)) & (best == i)).reshape(g.shape)
        for i, (order, (_, g)) in enumerate(zip(ranks, pairs, strict=True))
    ]


def _descending(pairs, chosen, delta):
    """Return the chosen parameter's unclipped step size, and whether its gradient ≠ 0.

    The step size is −(Σ_{i≠q} Δ_i g_i + δ) / g_q, where q is the chosen parameter, Δ_i
    are step sizes and g_i are gradients. Infinite gradients are treated as equally
    large gradients, in the limit in which their common size goes to infinity. In this
    limit, finite gradients have no effect, unless the infinite terms of the sum cancel.
    All gradients are scaled so that the sum does not overflow.
    """
    sum_of = lambda terms: sum(jnp.sum(term) for term in terms)
    at_q = [jnp.where(here, g, 0) for here, (_, g) in zip(chosen, pairs, strict=True)]
    g_q = sum_of(at_q)
    others = [
        (step, jnp.where(here, 0, g))
        for here, (step, g) in zip(chosen, pairs, strict=True)
    ]
    units = lambda g: jnp.where(jnp.isinf(g), jnp.sign(g), 0)
    infinite = sum_of(step * units(g) for step, g in others)
    unbounded = jnp.isinf(g_q) | (infinite != 0)

    def bounded(g):
        return jnp.where(unbounded, units(g), jnp.where(jnp.isinf(g), 0, g))

    largest = jnp.maximum(jnp.abs(bounded(g_q)), 1)
    for _, g in others:
        largest = jnp.maximum(largest, jnp.max(jnp.abs(bounded(g))))
    _, exponent = jnp.frexp(largest)
    scaled = lambda g: jnp.ldexp(g, -exponent)
    total = sum_of(step * scaled(bounded(g)) for step, g in others)
    total = total + jnp.where(unbounded, 0, scaled(delta))
    divisor = jnp.copysign(scaled(bounded(g_q)), g_q)
    divisor = jnp.where((total == 0) | (g_q == 0), 1, divisor)
    return -total / divisor, g_q != 0
