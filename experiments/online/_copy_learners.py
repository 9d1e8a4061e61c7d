"""Learners compared in `copy_length`: BPTT, truncated BPTT, and online rules."""

from collections.abc import Callable
from functools import partial

import jax
import optax

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import report
from experiments.choices import make_online
from experiments.networks import online
from experiments.online import _rules
from experiments.online._copy_task import loss

# The rule `forward_gradient` draws its random direction at the start of each sequence.
RULES = _rules.RULES | {
    "forward_gradient": partial(make_online, "forward_gradient"),
}


def sequence_rules(
    rules: tuple[str, ...], truncations: tuple[tuple[int, int], ...]
) -> dict[str, Callable]:
    """Return {name: function (network) -> rule} for BPTT and all chosen rules.

    The rules are gradient rules, and all of them accept the argument `key`.
    """
    chosen = {"bptt": partial(_without_key, gradients.bptt)}
    for every, lookback in truncations:
        window = {"every": every, "lookback": lookback}
        truncated = partial(gradients.truncated_bptt, **window)
        name = f"truncated_bptt, {report.window(lookback, every)}"
        chosen[name] = partial(_without_key, truncated)
    return chosen | {name: partial(_over_sequence, name) for name in rules}


def learners(
    rules: tuple[str, ...],
    truncations: tuple[tuple[int, int], ...],
    adam: optax.GradientTransformation,
    once: bool = False,
) -> dict[str, Callable]:
    """Return {name: function (network) -> learn} for BPTT and all chosen rules.

    The function learn(pair, carry, xs, targets, weights, mask, key) -> (value, pair)
    trains a network on a batch of sequences. The argument pair is (params, opt_state),
    and value is the mean loss. With `once`, all rules update the parameters once, at
    the end of the sequence.
    """
    whole = sequence_rules(rules, truncations)
    chosen = {name: partial(_whole, adam, make) for name, make in whole.items()}
    if once:
        return chosen
    for every, lookback in truncations:
        name = f"truncated_bptt, {report.window(lookback, every)}"
        chosen[name] = partial(_windows, adam, every, lookback)
    return chosen | {name: partial(_online, adam, name) for name in rules}


def cosines(
    make: Callable,
    network: online.Network,
    params: PyTree,
    carry: PyTree,
    sequence: tuple[jax.Array, ...],
) -> list[float]:
    """Return the cosine of a rule's gradient to that of BPTT, for the params of seeds.

    `make` is a value of :func:`sequence_rules`.
    """
    rules = make(network), sequence_rules((), ())["bptt"](network)

    @jax.jit
    @jax.vmap
    def of_seed(params):
        key = jax.random.key(0)
        ours, exact = (rule(params, carry, *sequence, key=key)[1] for rule in rules)
        return optax.tree.vdot(ours, exact) / (
            optax.tree.norm(ours) * optax.tree.norm(exact)
        )

    return of_seed(params).tolist()


def _without_key(make_rule, network):
    """Let a rule that draws nothing accept, and ignore, the argument `key`."""
    rule = make_rule(network.step, loss)
    return lambda *arguments, key: rule(*arguments)


def _over_sequence(name, network, update=None):
    every = RULES | _rules.EPROP | _rules.LAYERWISE
    return gradients.over_sequence(every[name](network.step, loss), update=update)


def _whole(adam, make, network):
    rule = make(network)

    def learn(pair, carry, xs, targets, weights, mask, key):
        given = pair[0], carry, xs, targets, weights, mask
        (value, _), grads = rule(*given, key=key)
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
    rule = _over_sequence(name, network, adam)

    def learn(pair, carry, xs, targets, weights, mask, key):
        (value, _), pair = rule(pair, carry, xs, targets, weights, mask, key=key)
        return value, pair

    return learn
