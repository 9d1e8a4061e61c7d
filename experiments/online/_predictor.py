"""A tanh network that predicts the next number of a series, and learns it online.

    h_t = tanh(x_t W + h_{t−1} U + b),    y_t = h_t · v + c

What a step does before its loss is exact in every online rule: the gradient of ℓ_t is
∂ℓ_t/∂h_{t−1} M_{t−1} + ∂ℓ_t/∂θ, and only M_{t−1} is approximated. So it matters where a
step begins. If it reads y_t after it has taken in x_t, then J_t is exact; if it first
reads y_{t−1} from h_{t−1} and then takes in x_t, the gradient is ∂ℓ_{t−1}/∂h_{t−1}
M_{t−1}, all of it approximated, as approximations are published.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import cells
from bpvariants.types import OnlineRule, PyTree
from experiments.online import _learning


def step_and_read(
    params: PyTree, h: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Take in x [*batch], and predict the next one."""
    h, _ = cells.tanh(params["cell"], h, x[..., None])
    return h, _read(params, h)


def read_and_step(
    params: PyTree, h: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Predict x [*batch], and take it in."""
    return step_and_read(params, h, x)[0], _read(params, h)


STEPS = {"after": step_and_read, "before": read_and_step}  # when y is read


def _read(params: PyTree, h: jax.Array) -> jax.Array:
    return h @ params["readout"] + params["readout_bias"]


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the squared error of a prediction."""
    return (y - target) ** 2


def init(key: jax.Array, units: int) -> PyTree:
    """Draw all parameters from U(±1/√n)."""
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
    """(pair, xs, targets, keys) -> (pair, NMSE, cosine): one episode, of all seeds.

    pair is (params, opt_state); xs and targets are [seeds, T, batch], NMSE and cosine
    [seeds]. `compare` also finds the cosine, which is NaN of `learn`.
    """

    learn: Callable
    compare: Callable


def online(
    rule: OnlineRule,
    update: optax.GradientTransformation,
    exact: OnlineRule | None,
    reads: str = "after",
) -> Learner:
    """Learn after each step; `exact` is to be compared with, if not the rule itself."""

    def episode(compared, pair, xs, targets, key):
        carry, xs = _first(reads, pair[0], xs, targets)
        begin = lambda rule: _learning.begin(
            rule, pair[0], carry, xs.shape[1:], (xs[0], targets[0])
        )

        def body(state, inputs):
            (params, opt_state), own, other = state
            x, target, options = inputs
            value, grads, own = rule.update(params, own, x, target, **options)
            cosine = jnp.ones(()) if exact is None else jnp.full((), jnp.nan)
            if compared and exact is not None:
                _, wanted, other = exact.update(params, other, x, target)
                cosine = _cosine(grads["cell"], wanted["cell"])
            change, opt_state = update.update(grads, opt_state, params)
            pair = optax.apply_updates(params, change), opt_state
            return (pair, own, other), (value, cosine)

        other = begin(exact) if compared and exact is not None else ()
        options = _keys(rule, key, len(xs))
        (pair, _, _), (values, cosines) = jax.lax.scan(
            body, (pair, begin(rule), other), (xs, targets, options)
        )
        return pair, jnp.mean(values), jnp.mean(cosines[len(xs) // 2 :])

    learn, compare = (
        jax.jit(jax.vmap(partial(episode, compared))) for compared in (False, True)
    )
    return Learner(learn, learn if exact is None else compare)


def windows(rule: Callable, reads: str = "after") -> Learner:
    """Learn after each window of truncated BPTT; its gradients are not compared."""

    def episode(pair, xs, targets, key):
        del key
        carry, xs = _first(reads, pair[0], xs, targets)
        (value, _), pair = rule(pair, carry, xs, targets)
        return pair, value, jnp.full((), jnp.nan)

    program = jax.jit(jax.vmap(episode))
    return Learner(program, program)


def _first(
    reads: str, params: PyTree, xs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the first carry of an episode, and what its steps take in.

    A network that reads before it takes in anything has seen the first x already.
    """
    zeros = cells.tanh_carry(params["cell"], xs.shape[1:])
    if reads == "after":
        return zeros, xs
    return step_and_read(params, zeros, xs[0])[0], targets


def _cosine(a: PyTree, b: PyTree) -> jax.Array:
    dot = lambda a, b: sum(map(jnp.vdot, jax.tree.leaves(a), jax.tree.leaves(b)))
    return dot(a, b) / jnp.sqrt(dot(a, a) * dot(b, b))


def _keys(rule: OnlineRule, key: jax.Array, length: int) -> dict[str, jax.Array]:
    """Return what a rule that draws at random is given at each step, besides."""
    draws = "key" in inspect.signature(rule.update).parameters
    return {"key": jax.random.split(key, length)} if draws else {}
