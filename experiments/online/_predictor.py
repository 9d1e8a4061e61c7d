"""A tanh network that learns online to predict the next value of a series.

h_t = tanh(x_t W + h_{t−1} U + b),    y_t = h_t · v + c

x_t is a value of the series, h_t the carry, and y_t the prediction of the next value
x_{t+1}. W, U and b are the weights and biases of the cell; v and c are the weights and
the bias of the readout.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import cells
from bpvariants.types import OnlineRule, PyTree


def step(params: PyTree, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Read a value x [*batch] of a series, and predict the next value."""
    h, _ = cells.tanh(params["cell"], h, x[..., None])
    return h, h @ params["readout"] + params["readout_bias"]


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the squared error of a prediction."""
    return (y - target) ** 2


def init(key: jax.Array, units: int) -> PyTree:
    """Draw all parameters from U(−1/√n, 1/√n), where n is the number of units."""
    keys = jax.random.split(key, 5)
    bound = 1 / units**0.5
    draw = lambda key, *shape: jax.random.uniform(
        key, shape, minval=-bound, maxval=bound
    )
    cell = {
        "inputs": draw(keys[0], 1, units),
        "recurrent": draw(keys[1], units, units),
        "bias": draw(keys[2], units),
    }
    return {
        "cell": cell,
        "readout": draw(keys[3], units),
        "readout_bias": draw(keys[4]),
    }


class Learner(NamedTuple):
    """Two functions (pair, u, keys) -> (pair, NMSE, cosine) that train on one episode.

    The networks of all seeds are trained together. The argument pair is (params,
    opt_state), and u [seeds, T + 1, batch] has the values of the series; the first
    value is not predicted. The function `compare` also measures the cosine between the
    rule's gradient and the gradient of exact RTRL; `learn` returns NaN in its place.
    For RTRL itself, both functions return the cosine 1. NMSE and cosine are [seeds].
    """

    learn: Callable
    compare: Callable


def online(
    rule: OnlineRule, update: optax.GradientTransformation, exact: OnlineRule | None
) -> Learner:
    """Return a learner that updates the parameters after each time step.

    The argument `exact` is exact RTRL, or None if `rule` is RTRL itself. The gradients
    of `rule` are compared with the gradients of exact RTRL.
    """

    def episode(compared, pair, u, key):
        carry = cells.tanh.carry(pair[0]["cell"], u.shape[1:])
        begin = lambda rule: rule.init(pair[0], carry, (u[0], u[1]))

        def body(state, inputs):
            (params, opt_state), own, other = state
            x, target, key = inputs
            value, grads, own = rule.update(params, own, x, target, key=key)
            cosine = jnp.ones(()) if exact is None else jnp.full((), jnp.nan)
            if compared and exact is not None:
                _, wanted, other = exact.update(params, other, x, target)
                cosine = _cosine(grads["cell"], wanted["cell"])
            change, opt_state = update.update(grads, opt_state, params)
            pair = optax.apply_updates(params, change), opt_state
            return (pair, own, other), (value, cosine)

        other = begin(exact) if compared and exact is not None else ()
        keys = jax.random.split(key, len(u) - 1)
        (pair, _, _), (values, cosines) = jax.lax.scan(
            body, (pair, begin(rule), other), (u[:-1], u[1:], keys)
        )
        return pair, jnp.mean(values), jnp.mean(cosines[len(cosines) // 2 :])

    learn, compare = (
        jax.jit(jax.vmap(partial(episode, compared))) for compared in (False, True)
    )
    return Learner(learn, learn if exact is None else compare)


def windows(rule: Callable) -> Learner:
    """Return a learner that updates the parameters by truncated BPTT.

    The argument `rule` computes gradients and applies updates within a sequence. The
    gradients of truncated BPTT are not compared with the gradients of exact RTRL.
    """

    def episode(pair, u, key):
        del key
        carry = cells.tanh.carry(pair[0]["cell"], u.shape[1:])
        (value, _), pair = rule(pair, carry, u[:-1], u[1:])
        return pair, value, jnp.full((), jnp.nan)

    program = jax.jit(jax.vmap(episode))
    return Learner(program, program)


def _cosine(a: PyTree, b: PyTree) -> jax.Array:
    dot = lambda a, b: sum(map(jnp.vdot, jax.tree.leaves(a), jax.tree.leaves(b)))
    return dot(a, b) / jnp.sqrt(dot(a, a) * dot(b, b))
