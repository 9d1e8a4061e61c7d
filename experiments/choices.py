"""Gradient rules and updates by name, as options of a study choose them.

    rule = make_rule("truncated_bptt", step, loss, lookback=20)
    update = make_update("adam", steps=1000)
    result = training.fit(rule, update, …)

Another rule, or another update, is another line in one of the tables below.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from bpvariants import gradients, updates
from bpvariants.types import GradientRule, Loss, OnlineRule, PyTree, Step
from experiments.options import check_known


class _Settings(NamedTuple):
    order: int
    visible: Callable[[PyTree], PyTree] | None
    feedback: Any
    directions: int


def _snap(step: Step, loss: Loss, settings: _Settings) -> OnlineRule:
    return gradients.snap(step, loss, settings.order)


def _eprop(step: Step, loss: Loss, settings: _Settings) -> OnlineRule:
    if settings.visible is None:
        raise ValueError(
            "eprop must be told what part of the carry units see of each other; give "
            "visible, such as visible=lambda carry: carry[1] for an LSTM."
        )
    return gradients.eprop(
        step, loss, visible=settings.visible, feedback=settings.feedback
    )


ONLINE: dict[str, Callable[[Step, Loss, _Settings], OnlineRule]] = {
    "rtrl": lambda step, loss, _: gradients.rtrl(step, loss),
    "diagonal_rtrl": lambda step, loss, _: gradients.diagonal_rtrl(step, loss),
    "snap": _snap,  # also with its order, such as snap_2
    "rflo": lambda step, loss, settings: gradients.rflo(
        step, loss, feedback=settings.feedback
    ),
    "eprop": _eprop,
    "kf_rtrl": lambda step, loss, _: gradients.kf_rtrl(step, loss),
    "uoro": lambda step, loss, _: gradients.uoro(step, loss),
    "forward_gradient": lambda step, loss, settings: gradients.forward_gradient(
        step, loss, directions=settings.directions
    ),
}
RULES = ("bptt", "truncated_bptt", "artbp", *ONLINE)
DRAWING = ("artbp", "kf_rtrl", "uoro", "forward_gradient")


def make_online(
    name: str,
    step: Step,
    loss: Loss,
    *,
    order: int = 1,
    visible: Callable[[PyTree], PyTree] | None = None,
    feedback: Any = "symmetric",
    directions: int = 1,
) -> OnlineRule:
    """Return an online rule by its name.

    Args:
      name: one of :data:`ONLINE`, or "snap_1", "snap_2" and so on.
      step: one time step of the network.
      loss: one loss for each example.
      order: of "snap", where its name has none.
      visible: of "eprop", from a carry to what units see of each other.
      feedback: of "rflo" and "eprop", as these take it.
      directions: of "forward_gradient".

    Raises:
      ValueError: if there is no such rule, or it lacks what it needs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> square = lambda y, target: (y - target) ** 2
      >>> rule = make_online("snap_2", integrate, square)
      >>> state = rule.init(2.0, jnp.array(0.0))
      >>> value, grad, state = rule.update(2.0, state, jnp.array(1.0), jnp.array(0.0))
      >>> grad.item()
      4.0
    """
    kind, order = _split(name, order)
    check_known("rule", kind, ONLINE)
    return ONLINE[kind](step, loss, _Settings(order, visible, feedback, directions))


def make_rule(
    name: str,
    step: Step,
    loss: Loss,
    *,
    lookback: int | None = None,
    every: int | None = None,
    checkpoint: Any = None,
    update: optax.GradientTransformation | None = None,
    **settings: Any,
) -> GradientRule:
    """Return a gradient rule over sequences by its name.

    What a rule has no use for is not looked at, so that a study may hand on all of its
    options. Whether a rule takes a `key` is what :func:`draws` says.

    Args:
      name: one of :data:`RULES`, or "snap_1", "snap_2" and so on. Online rules go
        through :func:`~bpvariants.gradients.over_sequence`.
      step: one time step of the network.
      loss: one loss for each example.
      lookback: of "truncated_bptt", how many steps errors travel back; of "artbp", how
        many they do in the mean. Both need it.
      every: of "truncated_bptt", how often errors are sent back, by default
        lookback // 2. With an update, of online rules, after how many steps to update,
        by default 1.
      checkpoint: of "bptt", as it takes it.
      update: to learn on the way with, for "truncated_bptt" and online rules; these
        then take and return pairs (params, opt_state).
      settings: of online rules, as :func:`make_online` takes them.

    Raises:
      ValueError: if there is no such rule, or it lacks what it needs, or cannot learn
        on the way.

    Example:
      >>> import jax.numpy as jnp
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> square = lambda y, target: (y - target) ** 2
      >>> args = 2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> for name in ("bptt", "truncated_bptt"):
      ...     (value, h), grad = make_rule(name, integrate, square, lookback=1)(*args)
      ...     print(name, grad.item())
      bptt 10.0
      truncated_bptt 6.0
    """
    kind, _ = _split(name, 1)
    check_known("rule", kind, RULES)
    if kind in ("bptt", "artbp") and update is not None:
        raise ValueError(
            f"{kind} has its gradient at the end of a sequence, and cannot learn on "
            "the way; leave update out, or choose truncated_bptt or an online rule."
        )
    if kind == "bptt":
        return gradients.bptt(step, loss, checkpoint=checkpoint)
    if kind == "truncated_bptt":
        back = _needed(kind, lookback)
        every = max(1, back // 2) if every is None else every
        return gradients.truncated_bptt(
            step, loss, every=every, lookback=back, update=update
        )
    if kind == "artbp":
        return gradients.artbp(step, loss, truncation=1 / _needed(kind, lookback))
    online = make_online(name, step, loss, **settings)
    every = every if update is not None else None
    return gradients.over_sequence(online, every=every, update=update)


def draws(name: str) -> bool:
    """Whether a rule draws at random: it then takes `key=`, which others do not need.

    Example:
      >>> draws("uoro"), draws("bptt")
      (True, False)
    """
    return name in DRAWING


class _Choice(NamedTuple):
    learning_rate: float  # by default
    make: Callable[[Any, float], Any]  # (learning rate or schedule, decay) -> update
    of_gradients: bool = True  # whether there is a rate that may have a schedule


_resilient = lambda name: _Choice(
    0.01, lambda rate, _: getattr(updates, name)(rate), of_gradients=False
)
UPDATES = {
    "sgd": _Choice(0.1, lambda rate, _: optax.sgd(rate)),
    "momentum": _Choice(0.01, lambda rate, decay: optax.sgd(rate, momentum=decay)),
    "adam": _Choice(1e-3, lambda rate, _: optax.adam(rate)),
    "adamw": _Choice(1e-3, lambda rate, _: optax.adamw(rate)),
    "rmsprop": _Choice(1e-3, lambda rate, decay: optax.rmsprop(rate, decay=decay)),
    "forgetting": _Choice(0.01, lambda rate, decay: updates.forgetting(rate, decay)),
    "forgetting_normalised": _Choice(
        0.1, lambda rate, decay: updates.forgetting(rate, decay, normalise=True)
    ),
    "manhattan": _Choice(1e-3, lambda rate, _: updates.manhattan(rate)),
    "rprop": _resilient("rprop"),
    "irprop_minus": _resilient("irprop_minus"),
    "irprop_plus": _resilient("irprop_plus"),
    "rprop_minus": _resilient("rprop_minus"),
    "rprop_plus": _resilient("rprop_plus"),
    "half_back": _resilient("half_back"),
    "probabilistic_rprop": _Choice(
        1e-3,
        lambda rate, _: updates.probabilistic_rprop(rate),
        of_gradients=False,
    ),
}


def make_update(
    name: str,
    learning_rate: float | jax.Array | None = None,
    *,
    steps: int | None = None,
    clip: float | None = 1.0,
    decay: float = 0.9,
) -> optax.GradientTransformation:
    """Return an update by its name, with settings to begin with.

    Gradients are clipped by their global norm, and the learning rate falls to zero
    along half a cosine; neither is done for the Rprop family, which looks at signs
    alone and finds step sizes by itself. All of that but "probabilistic_rprop" is for
    full batches.

    Args:
      name: one of :data:`UPDATES`; "rprop" is another name of "irprop_minus".
      learning_rate: by default that of the table; of the Rprop family, the first steps.
      steps: how many updates there will be; None for a constant learning rate.
      clip: largest global norm of a gradient; None for none.
      decay: of "momentum" and of the forgetting factor, how much of the past is kept;
        of "rmsprop", of the mean of squares.

    Raises:
      ValueError: if there is no such update, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> update = make_update("sgd", 0.5)
      >>> update.update(jnp.array(4.0), update.init(jnp.array(0.0)))[0].item()
      -0.5
    """
    check_known("update", name, UPDATES)
    choice = UPDATES[name]
    rate = choice.learning_rate if learning_rate is None else learning_rate
    positive = {"learning_rate": rate, "steps": steps, "clip": clip}
    for option, value in positive.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{option} must be positive, got {value}.")
    if not choice.of_gradients:
        return choice.make(rate, decay)
    schedule = rate if steps is None else optax.cosine_decay_schedule(rate, steps)
    made = choice.make(schedule, decay)
    if clip is None or name == "manhattan":  # which looks at signs too
        return made
    return optax.chain(optax.clip_by_global_norm(clip), made)


def _needed(rule: str, lookback: int | None) -> int:
    if lookback is None or lookback < 1:
        raise ValueError(
            f"{rule} needs lookback, how many steps errors travel back, at least 1; "
            f"got {lookback}."
        )
    return lookback


def _split(name: str, order: int) -> tuple[str, int]:
    """Return a rule's name without its order, and that."""
    match = re.fullmatch(r"(snap)_(\d+)", name)
    return (match[1], int(match[2])) if match else (name, order)
