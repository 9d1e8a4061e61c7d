"""Backpropagation and feedback alignment for LeNet, with the same signature."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bpvariants import diagnostics, gradients
from bpvariants.types import PyTree
from experiments.static._lenet import LAYERS, SIDE

RULES = ("bp", "fa", "dfa", "usf", "brsf", "frsf")
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def alignment_weights(rule: str, key: jax.Array, params: PyTree) -> PyTree:
    """Draw the fixed feedback weights of a rule; return None if it has no weights."""
    if rule == "bp":
        return None
    like = jnp.zeros((1, SIDE, SIDE, 1))
    kind: Any = rule
    return gradients.alignment_weights(key, LAYERS, params, like, kind=kind)


def make_rule(rule: str) -> Callable:
    """Return the gradient rule of a given name.

    The rule is (params, feedback, images, labels, key) -> ((value, info), grads).
    """
    if rule == "bp":
        exact = gradients.backprop(LAYERS, cross_entropy)
        return lambda params, _, images, labels, key: exact(params, images, labels)
    kind: Any = rule
    other = gradients.feedback_alignment(LAYERS, cross_entropy, kind=kind)

    def call(params, feedback, images, labels, key):
        given: dict[str, Any] = {"feedback": feedback}
        if rule in ("usf", "brsf"):
            given = {"key": key} if rule == "brsf" else {}
        return other(params, images, labels, **given)

    return call


def make_angles(rule: str, images: jax.Array, labels: jax.Array) -> Callable:
    """Return a function (params, feedback, keys) -> angles between two gradients.

    The first gradient is computed by the rule, the second is exact. Both gradients are
    for the same images and labels. All arguments have a leading axis of seeds. The
    exact gradient is a compiled function of its own, which all rules share, because
    compiling both gradients in one function takes more than twice as long.
    """
    of_rule, of_bp = _info(rule), _info("bp")

    def angles(params, feedback, keys):
        info = of_rule(params, feedback, images, labels, keys)
        return _angles(info, of_bp(params, None, images, labels, keys))

    return angles


@functools.cache
def _info(rule: str) -> Callable:
    """Return the compiled function that computes the info of a rule for all seeds."""
    call = make_rule(rule)
    info = lambda *arguments: call(*arguments)[0][1]
    return jax.jit(jax.vmap(info, in_axes=(0, 0, None, None, 0)))


_angles = jax.jit(jax.vmap(diagnostics.alignment_angles))
