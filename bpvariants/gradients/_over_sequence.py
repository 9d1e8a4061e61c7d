"""From an online rule, one step at a time, to a gradient rule over a sequence."""

import inspect

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating, check_lengths, first_step
from bpvariants._dtypes import cast_like, widen
from bpvariants.gradients._losses import as_arrays, effective_weights
from bpvariants.types import GradientRule, OnlineRule


def over_sequence(online: OnlineRule) -> GradientRule:
    """Turn an online rule into a gradient rule, run along a sequence with fixed params.

        dL/dθ = Σ_t W_t g_t / Σ_t W_t,    W_t = Σ_batch w_t,

    where g_t is the online rule's gradient, of the mean over the batch, at step t.
    Memory is that of the online rule and of one more gradient; time is T of its steps.
    Weights may be negative, but where those of a step cancel, so that W_t is 0 though
    they are not, the result is NaN.

    Args:
      online: the online rule, such as :func:`rtrl` returns.

    Returns:
      A :class:`~bpvariants.types.GradientRule`. If the online rule draws at random, it
      takes `key` as a keyword.

    Raises:
      ValueError: if online is none; when the rule is called, if lengths, shapes or
        dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.over_sequence(gradients.rtrl(integrate, loss)))
      >>> (value, h), grad = rule(2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), grad.item()  # as bptt
      (10.0, 4.0, 10.0)
    """
    if not isinstance(online, OnlineRule):
        raise ValueError(
            f"online must be an OnlineRule, such as gradients.rtrl(step, loss); got "
            f"{online!r}."
        )

    takes_inputs = "inputs" in inspect.signature(online.init).parameters

    def rule(
        params,
        carry,
        xs,
        targets,
        weights=None,
        mask=None,
        reset=None,
        initial=None,
        *,
        key=None,
    ):
        weights, mask, reset = as_arrays(weights, mask, reset)
        check_floating("params", params)
        length = check_lengths(
            xs, targets=targets, weights=weights, mask=mask, reset=reset
        )
        counts = effective_weights(weights, mask)
        shares = _shares(counts, length)
        keys = None if key is None else jax.random.split(key, length)
        options = {"weight": weights, "mask": mask, "reset": reset, "key": keys}
        given = {name: value for name, value in options.items() if value is not None}

        def body(state_and_total, inputs):
            state, total = state_and_total
            share, x, target, options = inputs
            value, grads, state = online.update(params, state, x, target, **options)
            add = lambda total, g: total + share.astype(total.dtype) * g
            total = jax.tree.map(add, total, widen(grads))
            return (state, total), share.astype(value.dtype) * value

        batch = None if counts is None else counts.shape[1:]
        first = {"inputs": first_step((xs, targets))} if takes_inputs else {}
        state = online.init(params, carry, initial, batch_shape=batch, **first)
        start = state, jax.tree.map(jnp.zeros_like, widen(params))
        (state, total), values = jax.lax.scan(body, start, (shares, xs, targets, given))
        return (jnp.sum(values), state.carry), cast_like(total, params)

    return rule


def _shares(weights: jax.Array | None, length: int) -> jax.Array:
    """Return W_t / Σ_t W_t, [T]: the part of each step in the mean over all losses."""
    if weights is None:
        return jnp.full(length, 1 / length)
    by_step = jnp.sum(weights, axis=tuple(range(1, weights.ndim)), dtype=float)
    total = jnp.sum(by_step)
    shares = jnp.where(total == 0, 0, by_step / jnp.where(total == 0, 1, total))
    # The mean of a step whose weights cancel is 0 / 0, and what it was is lost.
    count = jnp.any(weights.astype(bool), axis=tuple(range(1, weights.ndim)))
    return jnp.where((by_step == 0) & count, jnp.nan, shares)
