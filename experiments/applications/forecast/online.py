"""Online learning of the networks of `forecast`, at every step of the series.

A network learns from a step only when all targets of the step are known; if the largest
horizon is 7 steps, this is 7 steps later. To forecast, the network first runs, with its
newest parameters, from the last learned step to the present step, without learning. No
forecast therefore uses the values that it is scored on.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import choices
from experiments.applications.forecast.learn import Learned
from experiments.applications.forecast.network import Arrays, loss, losses, make_network
from experiments.applications.forecast.series import Prepared, Series
from experiments.harness.jobs import Way


def is_online(rule: str) -> bool:
    """Return whether a gradient rule learns at every time step in this study."""
    return rule not in ("bptt", "truncated_bptt", "artbp")


def at_every_step(
    config: Any, rule: str, update: str, series: Series, prepared: Prepared, way: Way
) -> Learned:
    """Learn from each value as it arrives, also in the test part; return forecasts.

    The training part is read `passes` times. Networks with all learning rates run
    together; for each seed, the rate with the lowest validation loss is chosen.
    """
    horizons, delay = series.horizons, max(series.horizons)
    arrays = Arrays(*map(jnp.asarray, (prepared.xs, prepared.z, prepared.known)))
    network = make_network(config.cell, arrays.xs.shape[1], config.units, len(horizons))
    origin = series.validation - 1
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    given = network, rule, update, config.decay, config.passes, origin, delay
    said, last = _courses(given, arrays, jnp.asarray(config.rates), keys)
    said = np.asarray(said)
    steps = config.passes * max(0, origin - delay) + len(arrays.xs) - origin
    way.advance(steps)
    target = np.arange(origin, len(prepared.xs))[:, None] + np.array(horizons)
    counts = prepared.known[origin:] & (target < series.test)
    z = jnp.asarray(prepared.z[origin:])
    errors = np.asarray(losses(jnp.asarray(said), z))
    scores = np.sum(errors * counts, axis=(2, 3)) / max(1, counts.sum())
    scores = np.nan_to_num(scores, nan=np.inf)  # validation losses [rates, seeds]
    best = np.argmin(scores, axis=0)
    row = {
        "steps": steps,
        "learning_rate": [config.rates[i] for i in best],
        "validation": np.min(scores, axis=0).tolist(),
    }
    pick = lambda leaf: np.asarray(leaf)[best, np.arange(config.seeds)]
    return Learned(pick(said), origin, row, jax.tree.map(pick, last))


@partial(jax.jit, static_argnames="given")
def _courses(given: tuple, arrays: Arrays, rates: jax.Array, keys: jax.Array):
    """Return outputs [rates, keys, T, H, 3] and the last params of all networks.

    There is one network for each learning rate and key.
    """
    course = partial(_course, given, arrays)
    return jax.vmap(jax.vmap(course, in_axes=(None, 0)), in_axes=(0, None))(rates, keys)


def _course(given, arrays, rate, key):
    """Train a network online; return outputs [T, H, 3] from `origin`, and params."""
    network, rule_name, update_name, decay, passes, origin, delay = given
    rule = choices.make_online(
        rule_name, network.step, loss, visible=lambda carry: carry[1]
    )
    update = choices.make_update(update_name, rate, decay=decay)
    of_params, of_rule = jax.random.split(key)
    params = network.init(of_params)
    zeros, horizons = network.carry(params), arrays.z.shape[1]
    counts = arrays.known.astype(arrays.z.dtype)

    def take(pair_and_state, at, number, reset):
        """Learn from the step `at` of the series; if `at` is negative, do nothing."""
        (params, opt_state), state = pair_and_state
        i = jnp.maximum(at, 0)
        _, grads, state = rule.update(
            params, state, arrays.xs[i], (arrays.z[i], counts[i]),
            weight=counts[i].mean(), mask=at >= 0, reset=reset,
            key=jax.random.fold_in(of_rule, number),
        )  # fmt: skip
        change, new = update.update(grads, opt_state, params)
        some = (at >= 0) & (counts[i].sum() > 0)
        pick = lambda a, b: jnp.where(some, a, b)
        pair = optax.apply_updates(params, change), new
        return jax.tree.map(pick, pair, (params, opt_state)), state

    def silent(pair_and_state, inputs):
        return take(pair_and_state, *inputs), None

    def aloud(pair_and_state, inputs):
        now, number = inputs
        pair, state = take(pair_and_state, now - delay, number, False)
        first = jnp.maximum(now - delay + 1, 0)
        last = jax.lax.dynamic_slice_in_dim(arrays.xs, first, delay)
        mask = jnp.arange(delay) <= now - first
        (params, _), carry = pair, state.carry
        walk = lambda carry, inputs: _run_on(network, params, carry, *inputs)
        y = jax.lax.scan(walk, (carry, jnp.zeros(3 * horizons)), (last, mask))[0][1]
        return (pair, state), y.reshape(horizons, 3)

    known = max(0, origin - delay)  # number of steps whose targets are all known
    state = rule.init(params, zeros, (arrays.xs[0], (arrays.z[0], counts[0])))
    going = (params, update.init(params)), state
    if known:
        at = jnp.tile(jnp.arange(known), passes)
        numbers = jnp.arange(len(at))
        going, _ = jax.lax.scan(silent, going, (at, numbers, at == 0))
    now = jnp.arange(origin, len(arrays.xs))
    numbers = passes * known + jnp.arange(len(now))
    ((params, _), _), said = jax.lax.scan(aloud, going, (now, numbers))
    return said, params


def _run_on(network, params, carry_and_y, x, inside):
    carry, y = carry_and_y
    new = network.step(params, carry, x)
    return jax.tree.map(partial(jnp.where, inside), new, (carry, y)), None
