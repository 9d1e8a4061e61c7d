"""Networks that learn to forecast breathing at every sample, one for each horizon.

Weights, horizons, settings and sequences are lanes of one scan. `delayed` is as in
`_breathing_methods`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import OnlineRule
from experiments.networks.cells import CELLS
from experiments.networks.online import Network
from experiments.online._breathing_methods import at_targets, Forecasts, scored
from experiments.online._breathing_series import COORDINATES, Series, windows

# Largest norm of a gradient. With 100, as in the published program, the errors of the
# second half minute depend much more on the learning rate.
CLIP = 5.0
SCALE = 0.02  # standard deviation σ of initial weights
LEAK = 0.5  # α of the leaky cell


@cache
def network(cell: str, inputs: int, units: int) -> Network:
    """Return a network with a readout without biases, and weights from N(0, σ²).

    Args:
      cell: a name in `CELLS`; "leaky" for the tanh units of RFLO, whose new state is
        (1 − α) h + α tanh(W x + U h); or "linear" for a model without a state.
      inputs: number of inputs.
      units: number of units of the cell.
    """
    if cell == "linear":
        zeros = lambda key: jnp.zeros((inputs, COORDINATES))
        return Network(lambda w, carry, x: (carry, x @ w), zeros, lambda w: ())
    advance = CELLS["tanh" if cell == "leaky" else cell]
    leak = LEAK if cell == "leaky" else 1.0

    def init(key):
        shapes = jax.eval_shape(lambda key: advance.init(key, inputs, units), key)
        readout = jax.ShapeDtypeStruct((units, COORDINATES), jnp.result_type(float))
        params = {"cell": shapes, "readout": readout}
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        draw = lambda key, leaf: SCALE * jax.random.normal(key, leaf.shape, leaf.dtype)
        return jax.tree.unflatten(tree, map(draw, keys, leaves))

    def step(params, carry, x):
        new, h = advance(params["cell"], carry, x)
        if leak != 1:
            new = h = (1 - leak) * carry + leak * new
        return new, h @ params["readout"]

    carry = lambda params, batch=(): advance.carry(params["cell"], batch)
    return Network(step, init, carry)


def half_squares(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return half the squared error, summed over the coordinates."""
    return 0.5 * ((y - target) ** 2).sum()


def learn(
    found: Series, horizons: np.ndarray, lags: int, net: Network,
    make_rule: Callable[..., OnlineRule], rates: np.ndarray, seeds: int, delayed: bool,
    steps: int | None = None, every: int = 1, first_seed: int = 0,
) -> Forecasts:  # fmt: skip
    """Train networks along all sequences, with an update after every sample.

    At step s, the rule learns from the inputs of time s and the target s + h. Then the
    network reads the inputs of time s + h (if targets are delayed, otherwise of s + 1)
    and forecasts. The state that it forecasts from is carried along separately, because
    learning lags behind.

    Args:
      found: the series.
      horizons: horizons [H].
      lags: number of samples among the inputs.
      net: the network.
      make_rule: function (step, loss) -> online rule.
      rates: learning rates [S, H, settings].
      seeds: number of networks for each rate.
      delayed: whether targets become known only when they are measured.
      steps: number of samples to read; by default all.
      every: distance of the samples among the inputs.
      first_seed: seed of the first network.

    Returns:
      Forecasts with the axes [S, T, H, settings, seeds].
    """
    waits = horizons if delayed else np.ones_like(horizons)
    values = found.values[:, :steps].astype(np.float32)
    xs = jnp.asarray(windows(values, lags, every))
    keys = jax.random.split(jax.random.key(first_seed), seeds)
    runs = _all_runs(net, make_rule)
    args = xs, jnp.asarray(values), jnp.asarray(horizons), jnp.asarray(waits)
    ys = np.asarray(runs(*args, jnp.asarray(rates, jnp.float32), keys))
    cut = found._replace(values=found.values[:, :steps])
    return scored(cut, at_targets(ys, horizons + waits))


@cache
def _all_runs(net: Network, make_rule: Callable[..., OnlineRule]) -> Callable[..., Any]:
    """Return `_course` over sequences, horizons, settings and seeds, compiled.

    Both protocols and all series of a shape share the compiled program.
    """
    course = partial(_course, net, make_rule(net.step, half_squares))
    runs = jax.vmap(course, in_axes=(None, None, None, None, None, 0), out_axes=1)
    runs = jax.vmap(runs, in_axes=(None, None, None, None, 0, None), out_axes=1)
    runs = jax.vmap(runs, in_axes=(None, None, 0, 0, 0, None), out_axes=1)
    return jax.jit(jax.vmap(runs, in_axes=(0, 0, None, None, 0, None)))


def _course(
    net: Network, rule: OnlineRule, xs: jax.Array, values: jax.Array,
    horizon: jax.Array, wait: jax.Array, rate: jax.Array, key: jax.Array,
) -> jax.Array:  # fmt: skip
    """Train one network along one sequence; return its forecasts [T, 9]."""
    of_params, of_rule = jax.random.split(key)
    params = net.init(of_params)
    update = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(rate))
    initial, last = net.carry(params), len(xs) - 1

    def body(all_of_it, s):
        params, opt_state, state, carry = all_of_it
        target = values[jnp.minimum(s + horizon, last)]
        key = jax.random.fold_in(of_rule, s)
        _, grads, state = rule.update(params, state, xs[s], target, key=key)
        change, opt_state = update.update(grads, opt_state, params)
        params: Any = optax.apply_updates(params, change)
        carry, y = net.step(params, carry, xs[jnp.minimum(s + wait, last)])
        return (params, opt_state, state, carry), y

    state = rule.init(params, initial, (xs[0], values[0]))
    start = params, update.init(params), state, initial
    return jax.lax.scan(body, start, jnp.arange(len(xs)))[1]
