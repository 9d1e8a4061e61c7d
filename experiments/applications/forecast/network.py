"""Recurrent network of `forecast`; it forecasts a value and an interval per horizon.

    ℓ = ½ (z − m)² + ρ_.05(z − a) + ρ_.95(z − b),    ρ_q(e) = max(q e, (q − 1) e)

Here ℓ is the loss at one step and one horizon (number of steps ahead). The scaled
target is z, and the network's outputs for z are m, a and b. The squared error trains m
to forecast the mean. The quantile loss ρ_q of an error e is lowest on average at the
quantile q; it trains a and b to forecast the ends of an interval that contains 90 % of
the values.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants import gradients
from bpvariants.types import GradientRule, PyTree
from experiments.applications.forecast.baselines import HIGH, LOW
from experiments.networks.online import Network, recurrent

CELLS = ("gru", "lstm", "rtu", "tanh")
NORMAL = 1.645  # half the width of a normal 90 % interval, in standard deviations
AS_ONE = 0.5  # factor ½ of the squared error (z − m)²


class Arrays(NamedTuple):
    """Inputs and targets of a network; the fields are as in `series.Prepared`."""

    xs: Any  # [N, D], inputs at each step
    z: Any  # [N, H], scaled targets
    known: Any  # [N, H] bool, whether a target is known


class Lane(NamedTuple):
    """Carry of one training run: the first unusable time step, and saved params."""

    cut: Any  # [] first time step of the series that the run may not use
    count: Any  # [] number of updates so far
    kept: PyTree  # leaves [looks, …]: params before the last update of each chunk


@cache  # equal arguments give the same function, so that jit does not recompile
def make_network(cell: str, inputs: int, units: int, horizons: int) -> Network:
    """Return a recurrent layer and its readout, which has 3 outputs for each horizon.

    The initial biases of the outputs are a forecast of the scaled target by 0, and the
    90 % interval of a standard normal distribution.
    """
    plain = recurrent(cell, inputs, units, 3 * horizons)

    def init(key):
        first = jnp.tile(jnp.array([0.0, -NORMAL, NORMAL]), horizons)
        return plain.init(key) | {"bias": first}

    return plain._replace(init=init)


def losses(said: jax.Array, z: jax.Array) -> jax.Array:
    """Return the losses ℓ [*batch, H] at H horizons.

    `said` holds the outputs (m, a, b), [*batch, H, 3], and z the scaled targets.
    """
    middle, low, high = jnp.moveaxis(said, -1, 0)
    pinball = lambda q, error: jnp.maximum(q * error, (q - 1) * error)
    ends = pinball(LOW, z - low) + pinball(HIGH, z - high)
    return AS_ONE * (z - middle) ** 2 + ends


def loss(y: jax.Array, target: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return the mean loss over the scored horizons.

    `target` is a pair: the scaled targets z, and 1 for each scored horizon, else 0.
    """
    z, counts = target
    each = losses(y.reshape(*z.shape, 3), z) * counts
    return each.sum(axis=-1) / jnp.maximum(counts.sum(axis=-1), 1)


def on_windows(
    rule: GradientRule,
    network: Network,
    horizons: tuple[int, ...],
    *,
    warm: int,
    span: int,
    every: int,
    draws: bool,
) -> Callable[..., Any]:
    """Return a rule (params, lane, starts, arrays…) -> ((loss, lane), grads).

    The rule trains on windows of the series that begin at `starts`. A window begins
    with a zero state. A window has `warm` steps without a loss, then `span` steps with
    a loss. Values of the series from the time step `lane.cut` on are not used.

    Args:
      rule: a gradient rule over sequences.
      network: network to train by the rule.
      horizons: numbers of steps ahead to forecast.
      warm: number of steps before the first scored step.
      span: number of scored steps.
      every: number of updates in a chunk; params are kept once per chunk.
      draws: whether the rule draws random numbers, and so takes a key.
    """
    ahead = jnp.asarray(horizons)

    def learn(params, lane, starts, xs, z, known, *, key=None):
        if jnp.issubdtype(starts.dtype, jnp.floating):  # fractions of the usable steps
            room = jnp.maximum(lane.cut - span, 1)
            starts = jnp.floor(starts * room).astype(int)
        place = jnp.arange(-warm, span)[:, None]
        steps = starts + place
        inside = (steps >= 0) & (steps < lane.cut)
        at = jnp.clip(steps, 0, len(xs) - 1)
        seen = (steps[..., None] + ahead < lane.cut) & (inside & (place >= 0))[
            ..., None
        ]
        counts = (known[at] & seen).astype(z.dtype)
        spread = lambda leaf: jnp.broadcast_to(leaf, (len(starts), *leaf.shape))
        carry = jax.tree.map(spread, network.carry(params))
        options = {"key": key} if draws else {}
        (value, _), grads = rule(
            params, carry, xs[at], (z[at], counts), counts.mean(axis=-1), inside,
            **options,
        )  # fmt: skip
        keep = lambda kept, leaf: kept.at[lane.count // every].set(leaf)
        kept = jax.tree.map(keep, lane.kept, params)
        return (value, Lane(lane.cut, lane.count + 1, kept)), grads

    return learn


@partial(jax.jit, static_argnames=("network", "horizons"))
def say(network: Network, horizons: int, params: PyTree, xs: jax.Array) -> jax.Array:
    """Run several networks along a series; return outputs [networks, T, H, 3].

    The initial state is zero. H is the number of horizons.

    Args:
      network: functions of the network, which is the same for all params.
      horizons: number of horizons.
      params: parameters of the networks, leaves [networks, …].
      xs: [T, D], inputs at each step.
    """

    def one(params):
        carry = network.carry(params)
        _, ys = gradients.unroll(network.step, params, carry, xs)
        return ys.reshape(len(xs), horizons, 3)

    return jax.vmap(one)(params)
