"""From an online rule, one step at a time, to a gradient rule over a sequence."""

import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating, check_lengths, first_step
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import as_arrays, effective_weights
from bpvariants.gradients._truncated_update import check_pair, check_update, updated
from bpvariants.gradients._truncated_windows import cut
from bpvariants.types import GradientRule, OnlineRule, PyTree

# (params, state, steps, weights [time, *batch] or None, time) -> (state, wide grads,
# value): along some steps, of the weighted mean of their losses
Run = Callable[
    [PyTree, PyTree, PyTree, jax.Array | None, int], tuple[PyTree, PyTree, jax.Array]
]


def over_sequence(
    online: OnlineRule, *, every: int | None = None, update: Any = None
) -> GradientRule:
    """Turn an online rule into a gradient rule, or let it learn along a sequence.

        dL/dθ = Σ_t W_t g_t / Σ_t W_t,    W_t = Σ_batch w_t,

    where g_t is the online rule's gradient, of the mean over the batch, at step t.
    Memory is that of the online rule and of one more gradient; time is T of its steps.
    Weights may be negative, but where those of a step cancel, so that W_t is 0 though
    they are not, the result is NaN.

    With an `update` the rule learns on the way, after every so many steps, and is

        learn((params, opt_state), carry, …) -> ((value, carry), (params, opt_state)).

    The new pair takes the place of the gradients. The update is given dL/dθ of the
    steps since the last one, and of the rest after step T, and their mean loss as
    `value` if it accepts it; where their Σ w = 0 the pair stays as it is. The value of
    the call is the mean of all losses as they were met. The state of the online rule
    goes on through the updates: h_t, and what the rule remembers, M_t = dh_t/dθ for
    :func:`rtrl`, were made by older θ in part. So g_t is the gradient of no one θ: for
    small steps that is the usual approximation of online learning, and for every ≥ T it
    is none. Memory is that of the pair, besides, whatever T is.

    Each call starts from a new online state, of which only the carry is returned. To go
    on across calls, keep the state, in a scan of one's own: see the last example.

    Args:
      online: the online rule, such as :func:`rtrl` returns.
      every: after how many steps to update, at least 1, by default 1; only with an
        `update`.
      update: None, or an optax.GradientTransformation to learn with on the way.

    Returns:
      A :class:`~bpvariants.types.GradientRule`. If the online rule draws at random, it
      takes `key` as a keyword.

    Raises:
      ValueError: if online is none, `update` is no gradient transformation, or `every`
        is no integer of at least 1, or is given without an update; when the rule is
        called, if lengths, shapes or dtypes disagree, or if with an update params is no
        pair.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import gradients, updates
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> online = gradients.rtrl(integrate, lambda y, target: (y - target) ** 2)
      >>> rule = jax.jit(gradients.over_sequence(online))
      >>> h, xs, targets = jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> (value, last), grad = rule(2.0, h, xs, targets)
      >>> value.item(), last.item(), grad.item()  # as bptt
      (10.0, 4.0, 10.0)

      On the way, by the recurrent update as the tutorial prints it, of gradients that
      rtrl knows as soon as the loss: Δw_n = −η g_n − λ g_{n−1} − λ² g_{n−2} − …

      >>> rate, decay = 0.25, 0.5
      >>> recurrent = updates.forgetting(rate, decay, scale_past=False)
      >>> learn = jax.jit(gradients.over_sequence(online, update=recurrent))
      >>> _, (w, _) = learn((2.0, recurrent.init(2.0)), h, xs, targets)
      >>> g_1 = 2 * 2.0  # of h² at h = 2, with dh/dw = 1
      >>> w_1 = 2.0 - rate * g_1
      >>> g_2 = 2 * (2.0 + w_1) * 2  # dh/dw = 2
      >>> w.item(), w_1 - rate * g_2 - decay * g_1
      (-4.0, -4.0)

      One stream in calls, which are then one call cut anywhere:

      >>> def body(pair_and_state, x_and_target):
      ...     (w, opt_state), state = pair_and_state
      ...     value, grad, state = online.update(w, state, *x_and_target)
      ...     change, opt_state = recurrent.update(grad, opt_state, w)
      ...     return ((w + change, opt_state), state), value
      >>> run = jax.jit(lambda *args: jax.lax.scan(body, *args))
      >>> reached = (jnp.array(2.0), recurrent.init(2.0)), online.init(2.0, h)
      >>> for part in (slice(0, 1), slice(1, 2)):
      ...     reached, values = run(reached, (xs[part], targets[part]))
      >>> (w, _), state = reached
      >>> w.item(), state.carry.item()
      (-4.0, 3.0)

    References:
      "4 Types of Backpropagation", OpenGenus (the recurrent update as printed).
    """
    if not isinstance(online, OnlineRule):
        raise ValueError(
            f"online must be an OnlineRule, such as gradients.rtrl(step, loss); got "
            f"{online!r}."
        )
    _check_settings(every, update)
    takes_inputs = "inputs" in inspect.signature(online.init).parameters
    run = _runner(online)

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
        theta = params if update is None else check_pair(update, params)
        check_floating("params", theta)
        length = check_lengths(
            xs, targets=targets, weights=weights, mask=mask, reset=reset
        )
        counts = effective_weights(weights, mask)
        keys = None if key is None else jax.random.split(key, length)
        options = {"weight": weights, "mask": mask, "reset": reset, "key": keys}
        given = {name: value for name, value in options.items() if value is not None}
        batch = None if counts is None else counts.shape[1:]
        first = {"inputs": first_step((xs, targets))} if takes_inputs else {}
        state = online.init(theta, carry, initial, batch_shape=batch, **first)
        steps = xs, targets, given
        if update is None:
            state, grads, value = run(theta, state, steps, counts, length)
            return (value, state.carry), cast_like(grads, params)
        size = min(int(every or 1), length)
        pair = jax.tree.map(jnp.asarray, params)
        (pair, state), value = _learn(update, run, pair, state, steps, counts, size)
        return (value, state.carry), pair

    return rule


def _check_settings(every: object, update: object) -> None:
    if every is not None and (not isinstance(every, Integral) or every < 1):
        raise ValueError(f"every must be an integer of at least 1, got {every!r}.")
    if update is not None:
        check_update(update)
    elif every is not None:
        raise ValueError(
            f"every={every} is after how many steps to update, and there is no update; "
            "give one, such as update=optax.sgd(0.1), or leave every out."
        )


def _runner(online: OnlineRule) -> Run:
    """Return how to run an online rule along some steps with fixed params."""

    def run(params, state, steps, weights, length):
        def body(state_and_total, inputs):
            state, total = state_and_total
            share, (x, target, options) = inputs
            value, grads, state = online.update(params, state, x, target, **options)
            add = lambda total, g: total + share.astype(total.dtype) * g
            total = jax.tree.map(add, total, widen(grads))
            return (state, total), share.astype(value.dtype) * value

        start = state, jax.tree.map(jnp.zeros_like, widen(params))
        shares = _shares(weights, length)
        (state, total), values = jax.lax.scan(body, start, (shares, steps))
        return state, total, jnp.sum(values)

    return run


def _learn(
    update: Any,
    run: Run,
    pair: PyTree,
    state: PyTree,
    steps: PyTree,
    weights: jax.Array | None,
    size: int,
) -> tuple[tuple[PyTree, PyTree], jax.Array]:
    """Update after windows of so many steps; return ((pair, state), mean loss)."""
    length = jax.tree.leaves(steps)[0].shape[0]
    whole, rest = divmod(length, size)

    def window(reached, begin, size):
        pair, state = reached
        inputs, counts = cut((steps, weights), begin, size)
        state, grads, value = run(pair[0], state, inputs, counts, size)
        total = jnp.asarray(size) if counts is None else jnp.sum(counts, dtype=float)
        total = total.astype(value.dtype)
        pair = updated(update, pair, value, grads, total != 0)
        return (pair, state), (total * value, total)

    def body(reached_and_begin, _):  # counts by itself: an arange would grow with T
        reached, begin = reached_and_begin
        reached, sums = window(reached, begin, size)
        return (reached, begin + size), sums

    start = (pair, state), jnp.array(0)
    (reached, _), sums = jax.lax.scan(body, start, length=whole)
    sums = [jnp.sum(part) for part in sums]
    if rest:
        reached, last = window(reached, length - rest, rest)
        sums = [a + b for a, b in zip(sums, last, strict=True)]
    total, weight = sums
    return reached, jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))


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
