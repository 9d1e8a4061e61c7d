"""Gradient rules by name. To add an online rule, add a line to the table `ONLINE`."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from bpvariants import gradients
from bpvariants.types import GradientRule, Loss, OnlineRule, PyTree, Step
from experiments.harness.options import check_known


class _Settings(NamedTuple):
    order: int
    visible: Callable[[PyTree], PyTree] | None
    feedback: Any
    directions: int
    sigma: float
    window: int


def _snap(step: Step, loss: Loss, settings: _Settings) -> OnlineRule:
    return gradients.snap(step, loss, order=settings.order)


def _eprop(step: Step, loss: Loss, settings: _Settings) -> OnlineRule:
    if settings.visible is None:
        raise ValueError(
            "eprop needs visible, a function from the carry to the part that units see "
            "of each other, such as visible=lambda carry: carry[1] for an LSTM."
        )
    return gradients.eprop(
        step, loss, visible=settings.visible, feedback=settings.feedback
    )


ONLINE: dict[str, Callable[[Step, Loss, _Settings], OnlineRule]] = {
    "rtrl": lambda step, loss, _: gradients.rtrl(step, loss),
    "diagonal_rtrl": lambda step, loss, _: gradients.diagonal_rtrl(step, loss),
    "snap": _snap,  # make_online also accepts names with an order, such as snap_2
    "rflo": lambda step, loss, settings: gradients.rflo(
        step, loss, feedback=settings.feedback
    ),
    "eprop": _eprop,
    "kf_rtrl": lambda step, loss, _: gradients.kf_rtrl(step, loss),
    "uoro": lambda step, loss, _: gradients.uoro(step, loss),
    "forward_gradient": lambda step, loss, settings: gradients.forward_gradient(
        step, loss, directions=settings.directions
    ),
    "pes": lambda step, loss, settings: gradients.pes(
        step,
        loss,
        pairs=settings.directions,
        sigma=settings.sigma,
        window=settings.window,
    ),
}
RULES = ("bptt", "truncated_bptt", "artbp", *ONLINE)
DRAWING = ("artbp", "kf_rtrl", "uoro", "forward_gradient", "pes")


def make_online(
    name: str,
    step: Step,
    loss: Loss,
    *,
    order: int = 1,
    visible: Callable[[PyTree], PyTree] | None = None,
    feedback: Any = "symmetric",
    directions: int = 1,
    sigma: float = 0.01,
    window: int = 1,
) -> OnlineRule:
    """Return the online rule of a given name.

    Args:
      name: one of :data:`ONLINE`, or "snap_1", "snap_2" and so on.
      step: one time step of the network.
      loss: one loss for each example.
      order: for the name "snap", the order of SnAp; names such as "snap_2" contain the
        order.
      visible: for "eprop", a function that returns the part of a carry that other units
        read.
      feedback: for "rflo" and "eprop", how the readout's error is sent back to the
        units; passed to :func:`~bpvariants.gradients.rflo`.
      directions: for "forward_gradient", the number of random directions; for "pes",
        the number of antithetic pairs of perturbations.
      sigma: for "pes", the standard deviation of the perturbations of the parameters.
      window: for "pes", the number of time steps after which new perturbations of the
        parameters are drawn.

    Raises:
      ValueError: if no rule has this name, or if an argument that the rule needs is
        missing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> square = lambda y, target: (y - target) ** 2
      >>> rule = make_online("snap_2", integrate, square)
      >>> x, target = jnp.array(1.0), jnp.array(0.0)
      >>> state = rule.init(2.0, jnp.array(0.0), (x, target))
      >>> value, grad, state = rule.update(2.0, state, x, target)
      >>> grad.item()
      4.0
    """
    kind, order = _split(name, order)
    check_known("rule", kind, ONLINE)
    settings = _Settings(order, visible, feedback, directions, sigma, window)
    return ONLINE[kind](step, loss, settings)


def make_rule(
    name: str,
    step: Step,
    loss: Loss,
    *,
    lookback: int | None = None,
    every: int | None = None,
    remat: Any = None,
    update: optax.GradientTransformation | None = None,
    **settings: Any,
) -> GradientRule:
    """Return the gradient rule for sequences that has a given name.

    A study may pass all of its options, because arguments that the rule does not use
    are ignored. Only an unused `update` raises an error. The function :func:`draws`
    returns whether a rule takes the argument `key`.

    Args:
      name: one of :data:`RULES`, or "snap_1", "snap_2" and so on. An online rule is
        wrapped by :func:`~bpvariants.gradients.over_sequence`.
      step: one time step of the network.
      loss: one loss for each example.
      lookback: for "truncated_bptt", the number of steps that gradients are propagated
        back. For "artbp", this number is random, and `lookback` is its mean. Both rules
        need `lookback`.
      every: for "truncated_bptt", the number of steps between two backward passes, by
        default lookback // 2. For online rules with an update, the number of steps
        between updates, by default 1.
      remat: for "bptt", which values the backward pass recomputes; passed to
        :func:`~bpvariants.gradients.bptt`.
      update: for "truncated_bptt" and online rules, an update to apply within the
        sequence. A rule with an update takes and returns pairs (params, opt_state).
      settings: for online rules, further arguments of :func:`make_online`.

    Raises:
      ValueError: if no rule has this name, if an argument that the rule needs is
        missing, or if the rule cannot apply an update within the sequence.

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
            f"{kind} has its gradient only at the end of a sequence, so it cannot "
            "learn on the way; omit update, or choose truncated_bptt or an online rule."
        )
    if kind == "bptt":
        return gradients.bptt(step, loss, remat=remat)
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
    """Return whether a rule draws random numbers and needs the argument `key`.

    Example:
      >>> draws("uoro"), draws("bptt")
      (True, False)
    """
    return name in DRAWING


def _needed(rule: str, lookback: int | None) -> int:
    if lookback is None or lookback < 1:
        raise ValueError(
            f"{rule} needs lookback, the number of steps that gradients go back, at "
            f"least 1; got {lookback}."
        )
    return lookback


def _split(name: str, order: int) -> tuple[str, int]:
    """Split a name such as "snap_2" into the rule's name, "snap", and its order, 2."""
    match = re.fullmatch(r"(snap)_(\d+)", name)
    return (match[1], int(match[2])) if match else (name, order)
