"""GRprop, globally convergent Rprop, as in the R package neuralnet: experimental.

Notation as in `_rprop.py`. Step sizes adapt as in Rprop⁻. Then one parameter q is
chosen among all with g_q ≠ 0: the one with the least |g_q| ("sag") or the least Δ_q
("slr"). Its step size is replaced, so that the step as a whole descends:

    Δ_q ← clip(−(Σ_{i≠q} Δ_i g_i + δ) / g_q, Δ_min, Δ_max),    θ ← θ − Δ sign(g).

As in the public program, the sum uses signed g_i, and a quotient of the wrong sign is
clipped. The paper was not available, and another public program has the opposite sign.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._dtypes import cast_like
from bpvariants.updates._params import all_of, check_signed, wide
from bpvariants.updates.resilient._rprop_checks import check_settings
from bpvariants.updates.resilient._rprop_layouts import Numbers
from bpvariants.updates.resilient._rprop_plain import adapted


class GRpropState(NamedTuple):
    """State of :func:`grprop`; both trees are like params."""

    step_sizes: optax.Updates  # Δ_t, float32 or wider
    signs: optax.Updates  # sign(g_t), int8


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

    At each step, one parameter of all is chosen, and its step size is computed from the
    others. This takes a reduction over all arrays of params. The defaults are those of
    the R package; with them, step sizes never grow beyond the first. The state takes 5
    bytes a parameter in float32; an update takes time O(p). A single NaN in the
    gradients makes the whole update NaN, and leaves the state as it was.

    Args:
      learning_rate: first step size Δ_0, read by `init` only.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.
      choose: the parameter that is chosen: the one with the smallest absolute gradient
        ("sag"), or with the smallest step size ("slr").
      delta: δ > 0, which is added to Σ Δ_i g_i of the other parameters.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if choose is unknown, or a setting other than delta is out of its
        range; in `init`, if params are not real floating arrays.

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
      Guenther, neuralnet, an R package (the program followed here).
    """
    if choose not in ("sag", "slr"):
        raise ValueError(f"choose must be 'sag' or 'slr', got {choose!r}.")
    check_settings(
        "grprop", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, 0.1
    )

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
    """Set the step size of the parameter that ranks first among those with g ≠ 0."""
    steps, structure = jax.tree.flatten(steps)
    grads = jax.tree.leaves(grads)
    if not any(step.size for step in steps):
        return structure.unflatten(steps)
    wide = jnp.result_type(float, *{step.dtype.name for step in steps})
    vector = lambda leaves: jnp.concatenate(
        [x.reshape(-1).astype(wide) for x in leaves]
    )
    all_steps, all_grads = vector(steps), vector(grads)
    order = jnp.where(all_grads == 0, jnp.inf, rank(all_steps, all_grads))
    q = jnp.argmin(order)
    others = jnp.sum((all_steps * all_grads).at[q].set(0))
    g_q = all_grads[q]
    least, greatest, delta = (jnp.asarray(x, wide) for x in (least, greatest, delta))
    new = -(others + delta) / jnp.where(g_q == 0, 1, g_q)
    new = jnp.minimum(jnp.maximum(new, least), greatest)
    all_steps = all_steps.at[q].set(jnp.where(g_q == 0, all_steps[q], new))
    ends = [0]
    for step in steps:
        ends.append(ends[-1] + step.size)
    cut = lambda i, step: all_steps[ends[i] : ends[i + 1]].reshape(step.shape)
    cuts = [cut(i, step).astype(step.dtype) for i, step in enumerate(steps)]
    return structure.unflatten(cuts)
