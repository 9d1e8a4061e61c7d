"""Five methods that learn a linear model online while its true weights change.

The model has weights w, and learns from one example (x, y) per step. The squared error
of the example k steps ago is multiplied by λᵏ, where λ is the forgetting factor. Let η
be the learning rate. The methods stored, replay and two sums change w by −η (1 − λ)
times a sum of gradients of these discounted errors:

    sgd          changes w by −η times only the newest gradient
    stored       sums all gradients, as computed when they were new
    replay       sums gradients of the last W examples, recomputed at the current w
    two sums     sums gradients of all past examples at the current w, as R w − p
    rls          has no η: at every step, w minimises the sum of discounted errors

The matrix R is the discounted sum of x xᵀ over past examples. The vector p is the
discounted sum of x y over past examples.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bpvariants import updates

error = lambda w, x, y: (y - x @ w) ** 2 / 2


def _with_optimizer(optimizer):
    def step(w, state, x, y):
        change, state = optimizer.update(jax.grad(error)(w, x, y), state, w)
        return w + change, state

    return lambda w, x, y: optimizer.init(w), step


def _sgd(rate, decay, horizon):
    del decay, horizon
    return _with_optimizer(optax.sgd(rate))


def _stored(rate, decay, horizon):
    del horizon
    return _with_optimizer(updates.forgetting(rate, decay, normalise=True))


def _replay(rate, decay, horizon):
    rule = updates.replay(error, decay, horizon=horizon)

    def step(w, state, x, y):
        state = rule.push(state, (x, y))
        gradient = jax.grad(rule.discounted_loss)(w, state)
        return w - rate * (1 - decay) * gradient, state

    return lambda w, x, y: rule.init((x, y)), step


def _two_sums(rate, decay, horizon):
    del horizon
    rule = updates.discounted_least_squares(decay)

    def step(w, state, x, y):
        state = rule.push(state, x, y)
        return w - rate * (1 - decay) * rule.gradient(w, state), state

    return lambda w, x, y: rule.init(w), step


def _rls(rate, decay, horizon):
    del rate, horizon
    rule = updates.recursive_least_squares(decay)
    return lambda w, x, y: rule.init(w), rule.update


METHODS: dict[str, Callable[..., Any]] = {
    "sgd": _sgd,
    "stored": _stored,
    "replay": _replay,
    "two sums": _two_sums,
    "rls": _rls,
}


@partial(jax.jit, static_argnames=("method", "horizon"))
def follow(
    method: str,
    xs: jax.Array,
    ys: jax.Array,
    rate: jax.Array,
    decay: jax.Array,
    horizon: int,
) -> tuple[jax.Array, jax.Array]:
    """Run one method once along a stream of examples; its weights start at zero.

    Args:
      method: name of the method, a key of the table `METHODS`.
      xs: inputs [T, d].
      ys: targets [T].
      rate: learning rate η, an array [].
      decay: forgetting factor λ, an array [].
      horizon: number of past examples that the method "replay" stores.

    Returns:
      Errors [T] of the predictions, and the weights [T, d] after each update. Each
      prediction is made before the method sees the target.
    """
    init, step = METHODS[method](rate, decay, horizon)

    def body(carry, example):
        w, state = carry
        x, y = example
        w_next, state = step(w, state, x, y)
        return (w_next, state), (y - x @ w, w_next)

    w = jnp.zeros(xs.shape[1], xs.dtype)
    _, outcome = jax.lax.scan(body, (w, init(w, xs[0], ys[0])), (xs, ys))
    return outcome


def over_grid(
    method: str,
    xs: jax.Array,
    ys: jax.Array,
    rates: jax.Array,
    decays: jax.Array,
    horizon: int,
) -> jax.Array:
    """Return a method's prediction errors, [forgetting factors, learning rates, T].

    The runs with all forgetting factors and learning rates are computed under `vmap`.
    """
    run = lambda rate, decay: follow(method, xs, ys, rate, decay, horizon)[0]
    over_rates = jax.vmap(run, in_axes=(0, None))
    return jax.vmap(over_rates, in_axes=(None, 0))(rates, decays)
