"""The network of the study `equilibrium_propagation`, and the rules that train it.

    hidden ← σ(U image + V out + b),  out ← σ(Vᵀ hidden + c),  σ(u) = sigmoid(4 u − 2)

A rule is a function (params, init, x, target) -> ((value, more), grads).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants import gradients
from bpvariants.types import PyTree

FREE, NUDGED, BETA = 40, 15, 0.1
EXACT = gradients.solvers.relaxation(1.0, tol=1e-5, max_steps=100)
RULES = (
    "bptt",
    "rbp",
    "ep",
    "ep one-sided",
    "rbp asymmetric",
    "ep asymmetric",
)

Rule = Callable[[PyTree, PyTree, jax.Array, jax.Array], tuple[tuple, PyTree]]


def rule_of(name: str) -> Rule:
    """Return the rule of a name in RULES."""
    if name.startswith("bptt"):
        return jax.value_and_grad(_loss_after_relaxation, has_aux=True)
    if name.startswith("rbp"):
        rule = gradients.recurrent_backprop(
            step, _loss, solver=EXACT, on_failure="ignore"
        )
        return lambda *arguments: rule(*arguments)
    asymmetric = "asymmetric" in name
    rule = gradients.equilibrium_propagation(
        _drive if asymmetric else _phi,
        _loss,
        kind="map" if asymmetric else "primitive",
        activation=_sigma,
        beta=BETA,
        symmetric="one-sided" not in name,
        free_steps=FREE,
        nudged_steps=NUDGED,
    )
    return lambda *arguments: rule(*arguments)


def initial_weights(
    key: jax.Array, hidden: int, asymmetric: bool
) -> dict[str, jax.Array]:
    """Return weights of `hidden` hidden units, with weights back "B" if asymmetric."""
    keys = jax.random.split(key, 3)
    draw = lambda key, n, m: jax.random.uniform(
        key, (n, m), minval=-(n**-0.5), maxval=n**-0.5
    )
    params = {"U": draw(keys[0], 784, hidden), "V": draw(keys[1], hidden, 10)}
    params |= {"b": jnp.zeros(hidden), "c": jnp.zeros(10)}
    if asymmetric:
        params["B"] = draw(keys[2], hidden, 10).T
    return params


def start(params: PyTree, x: jax.Array) -> PyTree:
    """Return the first state of the free phase, zeros."""
    sizes = {"hidden": params["b"], "out": params["c"]}
    return jax.tree.map(lambda leaf: jnp.zeros((len(x), len(leaf))), sizes)


def step(params: PyTree, h: PyTree, x: jax.Array) -> PyTree:
    """Return the next state."""
    return jax.tree.map(_sigma, _drive(params, h, x))


def relax(params: PyTree, x: jax.Array) -> tuple[PyTree, jax.Array]:
    """Return the state after the free phase, and its residual ‖f(h) − h‖ / ‖h‖."""
    body = lambda _, h: step(params, h, x)
    h = jax.lax.fori_loop(0, FREE, body, start(params, x))
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(leaf**2, -1) for leaf in tree.values()))
    change = jax.tree.map(jnp.subtract, step(params, h, x), h)
    return h, norm(change) / norm(h)


def _sigma(u: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(4 * u - 2)


def _from_image(params: PyTree, x: jax.Array) -> jax.Array:
    return x @ params["U"] + params["b"]


def _from_units(params: PyTree, h: PyTree, given: jax.Array) -> PyTree:
    """Return the inputs of σ; "B" holds the weights back, if they are of their own."""
    back = params.get("B", params["V"].T)
    hidden = given + h["out"] @ back
    return {"hidden": hidden, "out": h["hidden"] @ params["V"] + params["c"]}


def _drive(params: PyTree, h: PyTree, x: jax.Array) -> PyTree:
    return _from_units(params, h, _from_image(params, x))


def _phi(params: PyTree, h: PyTree, x: jax.Array) -> jax.Array:
    hidden = _from_image(params, x) + h["out"] @ params["V"].T
    return jnp.sum(h["hidden"] * hidden, -1) + h["out"] @ params["c"]


def _loss(h: PyTree, target: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum((h["out"] - target) ** 2, axis=-1)


def _loss_after_relaxation(
    params: PyTree, init: PyTree, x: jax.Array, target: jax.Array
) -> tuple[jax.Array, PyTree]:
    """Return the mean loss after FREE steps; its derivative is that of the last NUDGED.

    Errors go back through as many steps as the nudged phase of `ep` has.
    """
    given = _from_image(params, x)  # once, so that its derivative is also taken once

    def body(h, _):
        return jax.tree.map(_sigma, _from_units(params, h, given)), None

    h, _ = jax.lax.scan(body, init, length=FREE - NUDGED)
    h, _ = jax.lax.scan(body, jax.lax.stop_gradient(h), length=NUDGED)
    return jnp.mean(_loss(h, target)), h
