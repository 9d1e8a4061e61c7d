"""Learners compared in `copy_length`: BPTT, truncated BPTT, and online rules."""

from collections.abc import Callable
from functools import partial

import jax
import optax

from bpvariants import gradients
from experiments import report
from experiments.choices import make_online
from experiments.online import _rules

# The rule `forward_gradient` draws its random direction at the start of each sequence.
RULES = _rules.RULES | {
    "forward_gradient": partial(make_online, "forward_gradient"),
}


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the cross-entropy in nats; y [*batch, 1] is the logit of target 1."""
    return optax.sigmoid_binary_cross_entropy(y[..., 0], target)


def learners(
    rules: tuple[str, ...],
    truncations: tuple[tuple[int, int], ...],
    adam: optax.GradientTransformation,
) -> dict[str, Callable]:
    """Return {name: function (network) -> learn} for BPTT and all chosen rules.

    The function learn(pair, carry, xs, targets, weights, mask, key) -> (value, pair)
    trains a network on a batch of sequences. The argument pair is (params, opt_state),
    and value is the mean loss.
    """
    chosen = {"bptt": partial(_whole, adam)}
    for every, lookback in truncations:
        name = f"truncated_bptt, {report.window(lookback, every)}"
        chosen[name] = partial(_windows, adam, every, lookback)
    chosen |= {name: partial(_online, adam, name) for name in rules}
    return chosen


def _whole(adam, network):
    rule = gradients.bptt(network.step, loss)

    def learn(pair, carry, xs, targets, weights, mask, key):
        del key
        (value, _), grads = rule(pair[0], carry, xs, targets, weights, mask)
        change, opt_state = adam.update(grads, pair[1])
        return value, (optax.apply_updates(pair[0], change), opt_state)

    return learn


def _windows(adam, every, lookback, network):
    rule = gradients.truncated_bptt(
        network.step, loss, every=every, lookback=lookback, update=adam
    )

    def learn(pair, carry, xs, targets, weights, mask, key):
        del key
        (value, _), pair = rule(pair, carry, xs, targets, weights, mask)
        return value, pair

    return learn


def _online(adam, name, network):
    online = (RULES | _rules.EPROP)[name](network.step, loss)
    rule = gradients.over_sequence(online, update=adam)

    def learn(pair, carry, xs, targets, weights, mask, key):
        (value, _), pair = rule(pair, carry, xs, targets, weights, mask, key=key)
        return value, pair

    return learn
