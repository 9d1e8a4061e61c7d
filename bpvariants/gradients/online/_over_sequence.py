"""Gradient rule that runs an online rule along a whole sequence."""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_count,
    check_floating,
    check_lengths,
    check_single_key,
    first_step,
)
from bpvariants._dtypes import cast_like
from bpvariants._losses import (
    as_arrays,
    check_entries,
    effective_weights,
    WrongEntries,
)
from bpvariants._settings import check_flag, described
from bpvariants.gradients._learning import check_pair, check_update
from bpvariants.gradients.online._run import learn_on_the_way, run
from bpvariants.types import KeyedGradientRule, OnlineRule, PyTree


def over_sequence(
    online: OnlineRule,
    *,
    every: int | None = None,
    update: Any = None,
    keep_state: bool = False,
) -> KeyedGradientRule:
    """Turn an online rule into a gradient rule, or train params along a sequence.

        dL/dθ = Σ_t W_t g_t / Σ_t W_t,    W_t = Σ_batch w_t

    L is the mean loss of the sequence, and w_t are the weights of the losses of step t.
    g_t is the gradient that the online rule returns at step t, for the mean loss of the
    batch. The returned rule needs the memory of the online rule and of one more
    gradient. For T steps, the time is that of T updates of the online rule. Weights may
    be negative. But if the nonzero weights of a step add up to W_t = 0, the result is
    NaN.

    With an `update`, the returned rule also trains: it updates the parameters after
    each `every` steps, and has the form

        learn((params, opt_state), carry, …) -> ((value, carry), (params, opt_state)).

    The new pair (params, opt_state) is returned instead of the gradients. Each
    parameter update gets the gradient dL/dθ of the steps since the previous parameter
    update. If the update accepts `value`, it also gets the mean loss of these steps. If
    the number of steps T is not a multiple of `every`, the last parameter update comes
    after step T, with fewer steps. A parameter update does not change the pair if the
    weights of the losses of its steps sum to 0, or if the batch is empty. The returned
    value is the mean of all losses, each computed with the parameters of its step.

    A parameter update does not reset the state of the online rule. The state, such as
    the carry h_t and the influence dh_t/dθ of :func:`rtrl`, therefore depends in part
    on older parameters. The gradient at step t is then not the gradient at any single
    θ. For small parameter changes, this is the usual approximation of online learning.
    If `every` is at least T, the gradients are not approximated. With an `update`,
    memory also includes the pair (params, opt_state), for any T.

    By default, each call begins with a new state of the online rule and returns only
    the carry; the influence and adapted feedback weights are discarded. To pass the
    whole state to the next call, set `keep_state`. The state of the online rule then
    replaces the carry, both in the arguments and in the result.

    A learning signal, as in :func:`eprop`, is part of the targets. The signal of an
    example at a step is multiplied by the weight of this example's loss at this step.

    Examples may be sharded under `jax.jit` without further settings. `jax.shard_map`
    needs check_vma=False. With check_vma=True, JAX would take the zeros in a new state
    to be equal on all devices. Each device then returns the gradients of its own
    examples; average these gradients with `jax.lax.pmean`.

    Args:
      online: the online rule, for instance the result of :func:`rtrl`.
      every: number of time steps between parameter updates, at least 1, by default 1;
        allowed only with an `update`.
      update: None, or an optax.GradientTransformation to apply along the sequence.
      keep_state: whether calls take and return the state of the online rule instead of
        the carry. The first call takes the state that `online.init` returned.

    Returns:
      A :class:`~bpvariants.types.KeyedGradientRule`. Its argument `key` is split into
      one key for each time step.

    Raises:
      ValueError: if online is not an online rule, or `update` is not a gradient
        transformation. Also if `every` is not an integer of at least 1, or is given
        without an update. The returned rule raises a ValueError if lengths, shapes or
        dtypes disagree. It also raises one if there is an update but params is not a
        pair, or if `initial` is given although keep_state is True.

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

      Train along the sequence by the recurrent update of the tutorial (see References).
      rtrl computes the gradient g_n of loss n as soon as this loss is known:
      Δw_n = −η g_n − λ g_{n−1} − λ² g_{n−2} − …

      >>> rate, decay = 0.25, 0.5
      >>> recurrent = updates.forgetting(rate, decay, scale_past=False)
      >>> learn = jax.jit(gradients.over_sequence(online, update=recurrent))
      >>> _, (w, _) = learn((2.0, recurrent.init(2.0)), h, xs, targets)
      >>> g_1 = 2 * 2.0  # derivative of h² at h = 2, where dh/dw = 1
      >>> w_1 = 2.0 - rate * g_1
      >>> g_2 = 2 * (2.0 + w_1) * 2  # now dh/dw = 2
      >>> w.item(), w_1 - rate * g_2 - decay * g_1
      (-4.0, -4.0)

      Process one stream in several calls, with the same result as in one call:

      >>> learn = jax.jit(
      ...     gradients.over_sequence(online, update=recurrent, keep_state=True)
      ... )
      >>> pair = jnp.array(2.0), recurrent.init(jnp.array(2.0))
      >>> state = online.init(2.0, h, (xs[0], targets[0]))
      >>> for part in (slice(0, 1), slice(1, 2)):
      ...     (value, state), pair = learn(pair, state, xs[part], targets[part])
      >>> pair[0].item(), state.carry.item()
      (-4.0, 3.0)

    References:
      "4 Types of Backpropagation", OpenGenus (source of the recurrent update).
    """
    if not isinstance(online, OnlineRule):
        raise ValueError(
            f"online must be an OnlineRule, such as gradients.rtrl(step, loss); got "
            f"{online!r}."
        )
    _check_settings(every, update)
    check_flag("keep_state", keep_state)

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
        weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
        theta = params if update is None else check_pair(update, params)
        check_floating("params", theta)
        flags = {"mask": mask, "reset": reset}
        length = check_lengths(xs, targets=targets, weights=weights, **flags)
        keys = _keys(key, length)
        if keep_state:
            state = _given_state(carry, initial)
        else:
            inputs = first_step((xs, targets))
            state = online.init(theta, carry, inputs, initial=initial)
        steps = xs, targets, {"weight": weights, **flags, "key": keys}
        rule_at_a_step = _naming_sequences(online, length, weights=weights, **flags)
        shapes = {flag.shape for flag in (weights, mask) if flag is not None}
        if len(shapes) > 1:
            _name_wrong_entries(rule_at_a_step, theta, state, steps)
        counts = effective_weights(weights, mask)
        if update is None:
            state, grads, value = run(
                rule_at_a_step, theta, state, steps, counts, length
            )
            left = state if keep_state else state.carry
            return (value, left), cast_like(grads, params)
        size = min(int(every or 1), length)
        pair = jax.tree.map(jnp.asarray, params)
        (pair, state), value = learn_on_the_way(
            rule_at_a_step, update, pair, state, steps, counts, size
        )
        return (value, state if keep_state else state.carry), pair

    return rule


def _naming_sequences(online: OnlineRule, length: int, **flags: Any) -> OnlineRule:
    """Return `online`, with error messages that give shapes of the whole sequence.

    The user gave weights, mask and reset as [T, *batch], but `online.update` gets one
    step's entries [*batch].
    """

    def update(*args, **options):
        try:
            return online.update(*args, **options)
        except WrongEntries as error:
            check_entries((length, *error.shape), "[T, *batch]", **flags)
            raise

    return OnlineRule(online.init, update)


def _name_wrong_entries(
    rule: OnlineRule, params: PyTree, state: PyTree, steps: PyTree
) -> None:
    """Trace one step, to raise an error if weights or mask have a wrong shape."""

    def step(inputs):
        x, target, options = inputs
        return rule.update(params, state, x, target, **options)

    jax.eval_shape(step, first_step(steps))


def _keys(key: jax.Array | None, length: int) -> jax.Array | None:
    if key is None:
        return None
    check_single_key(key)
    return jax.random.split(key, length)


def _check_settings(every: object, update: object) -> None:
    if every is not None:
        check_count("every", every)
    if update is not None:
        check_update(update)
    elif every is not None:
        raise ValueError(
            f"every={every} is the number of steps between updates, but there is no "
            "update; give one, such as update=optax.sgd(0.1), or leave every out."
        )


def _given_state(state: Any, initial: PyTree | None) -> PyTree:
    if not hasattr(state, "carry"):
        raise ValueError(
            "carry must be the state of the online rule when keep_state=True, as its "
            "init(params, carry, (x, target)) or the last call returned it; got "
            f"{described(state)}."
        )
    if initial is not None:
        raise ValueError(
            "initial must be given to the init of the online rule when keep_state=True,"
            " not to a call, because the state already holds it."
        )
    return state
