"""Table of gradient rules and of the reference gradients to compare them with."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bpvariants import gradients
from tests.matrix import oracle
from tests.matrix.networks import M, N, networks

FEEDBACK = np.random.default_rng(5).normal(size=(M, N))


class Rule(NamedTuple):
    """A gradient rule and its reference gradient.

    Attributes:
      make: function (network) -> gradient rule.
      wants: function (network name) -> function (Trajectory) -> reference gradient.
        None for rules whose gradient is random.
      accepts: function (network) -> whether the rule supports the network.
      drawn: whether the rule takes a random key.
      exact_alone: whether a random rule's gradient is exact for readout parameters, and
        exact for all parameters in a sequence of one time step.
      optional: whether weights, mask, reset and initial are optional arguments.
    """

    make: Callable
    wants: Callable | None = lambda name: oracle.exact
    accepts: Callable = lambda network: True
    drawn: bool = False
    exact_alone: bool = False
    optional: bool = True


def _through_time(rule, **settings):
    return lambda network: rule(network.step, network.loss, **settings)


def _online(rule, **settings):
    return lambda network: gradients.over_sequence(
        rule(network.step, network.loss, **settings)
    )


def _eprop(feedback="symmetric"):
    return lambda network: gradients.over_sequence(
        gradients.eprop(
            network.step, network.loss, visible=network.visible, feedback=feedback
        )
    )


def _truncated(every, lookback):
    return Rule(
        _through_time(gradients.truncated_bptt, every=every, lookback=lookback),
        lambda name: oracle.truncated(every, lookback),
    )


def by_hand(run):
    """Return a gradient rule that applies `jax.value_and_grad` to the mean loss.

    `run(network, params, carry, xs, **options)` returns (last carry, outputs).
    """

    def make(network):
        def rule(params, carry, xs, targets, weights, mask, reset, initial):
            wide = np.promote_types(weights.dtype, np.float32)
            counts = jnp.where(mask, weights, 0).astype(wide)
            shares = counts / jnp.where(jnp.sum(counts) == 0, 1, jnp.sum(counts))
            present = lambda leaf: jnp.where(
                counts.reshape(counts.shape + (1,) * (leaf.ndim - counts.ndim)) != 0,
                leaf,
                jnp.zeros_like(leaf),
            )
            given = jax.tree.map(present, targets)

            def value(params):
                last, ys = run(
                    network, params, carry, xs, mask=mask, reset=reset, initial=initial
                )
                losses = jax.vmap(network.loss)(ys, given).astype(wide)
                return jnp.sum(shares * jnp.where(mask, losses, 0)), last

            return jax.value_and_grad(value, has_aux=True)(params)

        return rule

    return make


def _unroll(network, params, carry, xs, **options):
    return gradients.unroll(network.step, params, carry, xs, **options)


def _parallel(method):
    def run(network, params, carry, xs, **options):
        found, _ = gradients.parallel_unroll(
            network.step, params, carry, xs, method=method, **options
        )
        return found

    return run


THROUGH_TIME = {
    "bptt": Rule(_through_time(gradients.bptt)),
    "bptt_step": Rule(_through_time(gradients.bptt, remat="step")),
    "bptt_every": Rule(_through_time(gradients.bptt, remat=gradients.remat.every(2))),
    "bptt_slots": Rule(_through_time(gradients.bptt, remat=gradients.remat.slots(2))),
    "bptt_budget": Rule(
        _through_time(gradients.bptt, remat=gradients.remat.budget(2000))
    ),
    "bptt_two_phase": Rule(_through_time(gradients.bptt, backward="two_phase")),
    "truncated_1_1": _truncated(1, 1),
    "truncated_1_3": _truncated(1, 3),
    "truncated_2_2": _truncated(2, 2),
    "truncated_2_3": _truncated(2, 3),
    "truncated_3_4": _truncated(3, 4),
    "truncated_2_9": _truncated(2, 9),
    "artbp_no_cuts": Rule(_through_time(gradients.artbp, truncation=0.0), drawn=True),
    "artbp": Rule(
        _through_time(gradients.artbp, truncation=0.4),
        wants=None,
        drawn=True,
        exact_alone=True,
    ),
    "artbp_growing": Rule(
        _through_time(
            gradients.artbp, truncation=gradients.growing_truncation(4.0, 3.0)
        ),
        wants=None,
        drawn=True,
        exact_alone=True,
    ),
    "unroll": Rule(by_hand(_unroll), optional=False),
    "parallel_linear": Rule(
        by_hand(_parallel("linear")),
        accepts=lambda network: network.affine,
        optional=False,
    ),
    "parallel_newton": Rule(
        by_hand(_parallel("newton")),
        accepts=lambda network: not network.mixed,
        optional=False,
    ),
}
_rflo_signal = lambda s: (s.error @ FEEDBACK, 0 * s.skip)


def _eprop_wants(name):
    seen = oracle.seen_by_others(name)
    return oracle.forwards(lambda s: s.J * ~seen)


def _eprop_feedback_wants(name):
    """Return e-prop's reference gradient with feedback weights.

    The feedback weights replace the derivatives of the loss only for the visible part
    of the carry, which other units read.
    """
    seen = oracle.seen_by_others(name)

    def signal(s):
        to_new, to_old = s.signal.copy(), s.skip.copy()
        to_new[seen], to_old[seen] = s.error @ FEEDBACK, 0
        return to_new, to_old

    return oracle.forwards(lambda s: s.J * ~seen, signal)


def _layerwise(network):
    """Return layer-wise RTRL; a network that is no stack becomes a stack of one."""
    step = network.step_of if network.stacked else gradients.stack([network.step])
    rule = gradients.over_sequence(gradients.layerwise_rtrl(step, network.loss))
    if network.stacked:
        return rule

    def of_one_layer(
        params, carry, xs, targets, weights=None, mask=None, reset=None, initial=None
    ):
        initial = None if initial is None else (initial,)
        flags = weights, mask, reset, initial
        (value, (last,)), (grads,) = rule((params,), (carry,), xs, targets, *flags)
        return (value, last), grads

    return of_one_layer


def _layerwise_wants(name):
    network = networks()[name]
    if not network.stacked:
        return oracle.exact
    sizes = [ravel_pytree(p)[0].size for p in network.params]
    of_units, of_params = np.repeat([0, 1], N), np.repeat([0, 1], sizes)
    return oracle.layerwise([(of_units == i, of_params == i) for i in (0, 1)])


ONLINE = {
    "rtrl": Rule(_online(gradients.rtrl)),
    "snap_1": Rule(
        _online(gradients.snap, order=1),
        lambda name: oracle.forwards(lambda s: s.J, kept=oracle.pattern(name, 1)),
    ),
    "snap_2": Rule(
        _online(gradients.snap, order=2),
        lambda name: oracle.forwards(lambda s: s.J, kept=oracle.pattern(name, 2)),
    ),
    "rflo": Rule(
        _online(gradients.rflo),
        lambda name: oracle.forwards(lambda s: s.J_apart),
        accepts=lambda network: network.splits,
    ),
    "rflo_feedback": Rule(
        _online(gradients.rflo, feedback=jnp.asarray(FEEDBACK)),
        lambda name: oracle.forwards(lambda s: s.J_apart, _rflo_signal),
        accepts=lambda network: network.splits and not network.several,
    ),
    "eprop": Rule(_eprop(), _eprop_wants),
    "eprop_feedback": Rule(
        _eprop(jnp.asarray(FEEDBACK)),
        _eprop_feedback_wants,
        accepts=lambda network: not network.mixed and not network.stacked,
    ),
    "diagonal_rtrl": Rule(
        _online(gradients.diagonal_rtrl), accepts=lambda network: network.separate
    ),
    "layerwise_rtrl": Rule(_layerwise, _layerwise_wants),
    "sketched_rtrl_full": Rule(
        _online(gradients.sketched_rtrl, rank=9),
        accepts=lambda network: network.products,
    ),
    "uoro": Rule(_online(gradients.uoro), wants=None, drawn=True, exact_alone=True),
    "kf_rtrl": Rule(
        _online(gradients.kf_rtrl),
        wants=None,
        drawn=True,
        exact_alone=True,
        accepts=lambda network: network.products,
    ),
    "forward_gradient": Rule(
        _online(gradients.forward_gradient, directions=2), wants=None, drawn=True
    ),
    "pes": Rule(
        _online(gradients.pes, pairs=2, window=2, sigma=0.1), wants=None, drawn=True
    ),
}
