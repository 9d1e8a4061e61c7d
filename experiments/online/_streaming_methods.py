"""Methods compared in `streaming`: networks that learn at every step, and baselines.

Each method returns the losses and errors of its predictions at all T steps. A
prediction is scored before the method sees the target.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients, updates
from bpvariants.types import OnlineRule
from experiments.harness.precision import double_precision
from experiments.networks.online import Network
from experiments.online._sensor_streams import Stream


class Scores(NamedTuple):
    """Losses and errors of predictions, [settings, seeds, T], and the settings.

    A setting is a learning rate or a forgetting factor.
    """

    losses: np.ndarray | None
    errors: np.ndarray
    settings: tuple[dict[str, float], ...]


def linear(inputs: int, outputs: int) -> Network:
    """Return a linear model, as a network without a state.

    For a network without a state, every online rule equals backpropagation.
    """
    init = lambda key: jnp.zeros((inputs, outputs))
    return Network(lambda w, carry, x: (carry, x @ w), init, lambda w: ())


def truncated(lookback: int) -> Callable[..., OnlineRule]:
    """Return truncated BPTT as an online rule, which gives a gradient at each step.

    `lookback` is the number of steps that gradients are propagated back.
    """

    def make(step, loss):
        rule = gradients.truncated_bptt(step, loss, every=1, lookback=lookback)
        once = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)

        def init(params, carry, inputs, *, initial=None):
            zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), inputs)
            idle = {"mask": jnp.zeros(1, bool), "reset": jnp.zeros(1, bool)}
            # Run one masked step, to get a state with the right shapes.
            stream = gradients.stream(carry)
            (_, stream), _ = rule(params, stream, *once(zeros), **idle, initial=initial)
            return stream

        def update(
            params, state, x, target, *, weight=None, mask=None, reset=None, key=None
        ):
            del key
            flags = once({"weights": weight, "mask": mask, "reset": reset})
            (value, state), grads = rule(params, state, *once((x, target)), **flags)
            return value, grads, state

        return OnlineRule(init, update)

    return make


def learn(
    stream: Stream,
    network: Network,
    make_rule: Callable[..., OnlineRule],
    rates: tuple[float, ...],
    seeds: int,
    xs: np.ndarray | None = None,
    first_seed: int = 0,
) -> Scores:
    """Train a network along a stream, with an Adam update at every step.

    The networks of all learning rates and seeds are trained together under vmap, in one
    pass over the stream.
    """
    rule = make_rule(network.step, stream.loss)
    course = partial(_course, stream, network, rule, stream.xs if xs is None else xs)
    keys = jax.random.split(jax.random.key(first_seed), seeds)
    all_of_them = jax.vmap(jax.vmap(course, in_axes=(None, 0)), in_axes=(0, None))
    losses, errors = jax.jit(all_of_them)(jnp.asarray(rates), keys)
    settings = tuple({"learning_rate": rate} for rate in rates)
    return Scores(np.asarray(losses), np.asarray(errors), settings)


def _course(stream, network, rule, xs, rate, key):
    of_params, of_rule = jax.random.split(key)
    params, adam = network.init(of_params), optax.adam(rate)
    initial = network.carry(params)
    sequences = jax.tree.map(jnp.asarray, (xs, stream.targets))
    options = {"mask": jnp.asarray(stream.mask), "reset": jnp.asarray(stream.reset)}
    options["key"] = jax.random.split(of_rule, len(xs))

    def body(pair_and_state, inputs):
        (params, opt_state), state = pair_and_state
        (x, target), options = inputs
        pick = lambda flag, a, b: jax.tree.map(partial(jnp.where, flag), a, b)
        _, y = network.step(
            params, pick(options["reset"], initial, state.carry), x
        )  # the prediction y is made before the update
        value, grads, state = rule.update(params, state, x, target, **options)
        change, new = adam.update(grads, opt_state, params)
        pair = optax.apply_updates(params, change), new
        pair = pick(options["mask"], pair, (params, opt_state))
        return (pair, state), (value, stream.error(y, target))

    state = rule.init(params, initial, jax.tree.map(lambda a: a[0], sequences))
    start = (params, adam.init(params)), state
    return jax.lax.scan(body, start, (sequences, options))[1]


def least_squares(stream: Stream, xs: np.ndarray, decays: tuple[float, ...]) -> Scores:
    """Fit a linear model by recursive least squares, for each forgetting factor.

    The forgetting factors are in `decays`. Class labels become one-hot targets.
    """
    with double_precision():
        targets = jnp.asarray(stream.targets)
        ys = jax.nn.one_hot(targets, stream.outputs) if stream.outputs > 1 else targets
        ys = ys.reshape(len(xs), stream.outputs).astype(float)

        def course(decay):
            rule = updates.recursive_least_squares(decay, prior=1.0)

            def body(w_and_state, inputs):
                w, state = w_and_state
                x, y, target, mask = inputs
                new = rule.update(w, state, x, y)
                kept = jax.tree.map(partial(jnp.where, mask), new, (w, state))
                return kept, stream.error(x @ w, target)

            w = jnp.zeros((xs.shape[1], stream.outputs))
            inputs = jnp.asarray(xs, float), ys, targets, jnp.asarray(stream.mask)
            return jax.lax.scan(body, (w, rule.init(w)), inputs)[1]

        errors = np.asarray(jax.jit(jax.vmap(course))(jnp.asarray(decays)))
    settings = tuple({"decay": decay} for decay in decays)
    return Scores(None, errors[:, None], settings)


def persistence(stream: Stream) -> Scores:
    """Score the prediction that the temperature does not change."""
    y = jnp.zeros((len(stream.targets), 1))
    return _constant(stream, y)


def majority(stream: Stream) -> Scores:
    """Score a baseline: predict each class with its frequency in the stream so far.

    The count of each class starts at 1, so that no frequency is 0.
    """
    seen = np.cumsum(np.eye(stream.outputs)[stream.targets], axis=0)
    before = 1 + np.concatenate([np.zeros((1, stream.outputs)), seen[:-1]])
    return _constant(stream, jnp.log(before / before.sum(axis=1, keepdims=True)))


def _constant(stream: Stream, ys: jax.Array) -> Scores:
    targets: Any = jnp.asarray(stream.targets)
    of_each = [np.asarray(f(ys, targets)) for f in (stream.loss, stream.error)]
    losses, errors = (each[None, None] for each in of_each)
    return Scores(losses, errors, ({},))
