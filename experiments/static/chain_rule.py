"""The chain rule for one digit, compared with `jax.grad` and finite differences.

    s_l = y_{l−1} W_l + b_l,    y_l = φ_l(s_l),    E = ½ Σ (y_2 − target)²,    y_0 = x

    ∂E/∂w_l = ∂E/∂y_l · ∂y_l/∂s_l · ∂s_l/∂w_l

E is the loss. Layer l has weights W_l, biases b_l and outputs y_l, and w_l is one of
its weights. The activation functions are tanh and the logistic function. The function
`gradients.backprop` returns a record of each layer. From these records, the study
computes the factors of ∂E/∂w_l, for each whole layer, and for one weight of each layer.
For one hidden unit, the study computes ∂E/∂y as a sum over the units of the next layer.
The last table shows the factors of ∂g/∂a and ∂g/∂b for the expression g(a, b) in
micrograd's README.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least
from experiments.harness.precision import double_precision
from experiments.harness.study import run_study, Study
from experiments.static import _chain_rule_report

CLASSES = 10
ACTIVATIONS = (jnp.tanh, jax.nn.sigmoid)
SLOPES = (lambda y: 1 - y**2, lambda y: y * (1 - y))  # ∂y/∂s of each layer
# Values of the expression g(a, b) in micrograd's README, of ∂g/∂a, and of ∂g/∂b, at
# a = A and b = B.
MICROGRAD = (24.7041, 138.8338, 645.5773)
A, B = -4.0, 2.0


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """What are the factors of the chain rule for one digit and two layers?"""

    QUICK = {"hidden": 4}
    CHECKS = {"hidden": at_least(1), "example": at_least(0)}

    example: int = 0
    """Index of the digit in the 1347 training images."""
    hidden: int = 8
    """Number of units of the first layer."""
    precision: Literal["float64", "float32"] = "float64"
    """Precision of all arrays. In float32, only two to three digits of finite
    differences are correct."""

    def check(self) -> None:
        """Check that `seeds` is 1."""
        if self.seeds != 1:
            raise ValueError(
                f"seeds must be 1, got {self.seeds}: this study shows one gradient. "
                "Choose other weights by first_seed."
            )


def main(config: Config) -> report.Result:
    """Compute all factors of the chain rule; show them in tables and pictures."""
    return run_study("chain_rule", config, _jobs, _finish, check=_check)


def _check(config: Config) -> None:
    """Raise a DataError if no training digit has the index `example`."""
    count = len(data.digits().train[1])
    if config.example >= count:
        raise DataError(
            f"example must be less than the {count} digits for training, got "
            f"{config.example}."
        )


def _jobs(config: Config) -> list[Job]:
    return [
        Job("digit", 1, partial(_digit, config)),
        Job("micrograd", 1, partial(_micrograd, config)),
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    with _precision(config):
        params, x, target = _problem(config)
        (_, info), _ = _backprop(params, x, target)
        (_, micrograd), _ = _micrograd_backprop()
        image = np.asarray(x)
        _chain_rule_report.show_network(folder, rows, info, image)
        _chain_rule_report.show(rows, config, info, micrograd)
        _chain_rule_report.show_factors(folder, rows, info, image)


def _precision(config: Config) -> AbstractContextManager[Any]:
    return double_precision() if config.precision == "float64" else nullcontext()


def _digit(config: Config, way: Way) -> list[Row]:
    """Return the factors of the digit's gradient, and differences between gradients."""
    with _precision(config):
        params, x, target = _problem(config)
        (value, info), grads = _backprop(params, x, target)
        others = _other_gradients(params, x, target)
        rows: list[Row] = [{"row": "energy", "value": float(value)}]
        rows += _layers(info, grads, others)
        rows += _weights(info, grads, others)
        return rows + _paths(params, info, rows[-2]["to"])  # rows[-2] is of layer 1


def _backprop(params: PyTree, x: jax.Array, target: jax.Array) -> Any:
    """Return the loss, the records of all layers, and the gradient, by `backprop`."""
    return jax.jit(gradients.backprop(LAYERS, squared_error))(params, x, target)


def affine(params: dict[str, jax.Array], y: jax.Array) -> jax.Array:
    """Return the sums s = y W + b of a layer with weights W and biases b."""
    return y @ params["w"] + params["b"]


LAYERS = [(affine, activation) for activation in ACTIVATIONS]


def squared_error(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the loss E = ½ Σ (y − target)²."""
    return jnp.sum((y - target) ** 2, axis=-1) / 2


def _problem(config: Config) -> tuple[PyTree, jax.Array, jax.Array]:
    """Return the parameters of both layers, the digit [64] and its one-hot label."""
    images, labels = data.digits().train
    x = jnp.asarray(images[config.example], float)
    target = jax.nn.one_hot(labels[config.example], CLASSES, dtype=float)
    widths = (len(x), config.hidden, CLASSES)
    keys = jax.random.split(jax.random.key(config.first_seed), len(LAYERS))
    draw = lambda key, n, m: jax.random.normal(key, (n, m), float) / n**0.5
    params = tuple(
        {"w": draw(key, n, m), "b": jnp.zeros(m, float)}
        for key, n, m in zip(keys, widths, widths[1:], strict=False)
    )
    return params, x, target


def _other_gradients(params, x, target) -> dict[str, PyTree]:
    """Return the gradient by `jax.grad`, and by central differences."""

    def energy(params):
        y = x
        for theta, activation in zip(params, ACTIVATIONS, strict=True):
            y = activation(affine(theta, y))
        return squared_error(y, target)

    flat, rebuild = ravel_pytree(params)
    step = jnp.finfo(flat.dtype).eps ** (1 / 3)
    moved = lambda way: energy(rebuild(flat + way))
    difference = lambda way: (moved(step * way) - moved(-step * way)) / (2 * step)
    numeric = jax.jit(jax.vmap(difference))(jnp.eye(len(flat), dtype=flat.dtype))
    return {
        "jax.grad": jax.jit(jax.grad(energy))(params),
        "differences": rebuild(numeric),
    }


def by_hand(info: gradients.static.BackpropInfo) -> list[dict[str, jax.Array]]:
    """Return the factors of the chain rule for each layer, and products of them.

    E is the loss, s are the sums, y the outputs and w the weights of a layer. All
    arrays are for a single example. For layer l with n inputs and m units, the factors
    are ∂E/∂y [m], ∂y/∂s [m], and ∂s/∂w = y_{l−1} [n]. The product of the first two is
    δ = ∂E/∂s [m]; the product of all three is ∂E/∂w [n, m].
    """
    found = []
    for layer, slope_of in zip(info, SLOPES, strict=True):
        factors = {"error": layer.error, "slope": slope_of(layer.y), "input": layer.x}
        factors["delta"] = factors["error"] * factors["slope"]
        factors["grad"] = jnp.outer(factors["input"], factors["delta"])
        found.append(factors)
    return found


def _layers(info, grads, others) -> list[Row]:
    """Return the norm of each factor of each layer, and differences of gradients.

    The differences are between the gradient by `backprop` and the gradients by hand, by
    `jax.grad` and by finite differences.
    """
    rows = []
    for i, factors in enumerate(by_hand(info)):
        row = {"row": "layer", "layer": i + 1}
        row |= {name: float(jnp.linalg.norm(a)) for name, a in factors.items()}
        product = {"w": factors["grad"], "b": factors["delta"]}
        row["by hand"] = _apart(product, grads[i])
        row |= {name: _apart(other[i], grads[i]) for name, other in others.items()}
        rows.append(row)
    return rows


def _apart(a: PyTree, b: PyTree) -> float:
    """Return the relative difference ‖a − b‖ / ‖b‖."""
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def _weights(info, grads, others) -> list[Row]:
    """Return the factors of the chain rule for one weight of each layer.

    The weight is the one with the largest gradient. The result has a row per layer.
    """
    rows = []
    for i, factors in enumerate(by_hand(info)):
        at = np.unravel_index(jnp.argmax(jnp.abs(grads[i]["w"])), grads[i]["w"].shape)
        source, to = map(int, at)
        row = {"row": "weight", "layer": i + 1, "from": source, "to": to}
        row |= {name: float(factors[name][to]) for name in ("error", "slope")}
        row["input"] = float(factors["input"][source])
        row["by hand"] = row["error"] * row["slope"] * row["input"]
        row["backprop"] = float(grads[i]["w"][at])
        row |= {name: float(other[i]["w"][at]) for name, other in others.items()}
        rows.append(row)
    return rows


def _paths(params, info, unit: int) -> list[Row]:
    """Return the terms whose sum is ∂E/∂y for the output y of a hidden unit.

    The terms are δ_k w_k, one for each unit k of the next layer. The factor δ_k is
    ∂E/∂s for the sum s of unit k. The weight from the hidden unit to unit k is w_k.
    """
    deltas, weights = np.asarray(info[1].delta), np.asarray(params[1]["w"][unit])
    rows: list[Row] = [
        {"row": "path", "unit": k, "delta": float(delta), "weight": float(weight)}
        | {"product": float(delta * weight)}
        for k, (delta, weight) in enumerate(zip(deltas, weights, strict=True))
    ]
    total, error = sum(row["product"] for row in rows), float(info[0].error[unit])
    return [*rows, {"row": "paths", "unit": unit, "sum": total, "error": error}]


def _micrograd(config: Config, way: Way) -> list[Row]:
    """Return micrograd's expression g, and its derivatives by two methods.

    The two methods are `backprop` and `jax.grad`.
    """
    with _precision(config):
        (value, info), (ours,) = _micrograd_backprop()
        a_and_b = jnp.asarray(A, float), jnp.asarray(B, float)
        want = _expression(*a_and_b), *jax.grad(_expression, (0, 1))(*a_and_b)
        names = ("g", "∂g/∂a", "∂g/∂b")
        rows: list[Row] = [
            {"row": "micrograd", "what": name, "backprop": float(a)}
            | {"jax.grad": float(b), "published": c}
            for name, a, b, c in zip(
                names, (value, *ours), want, MICROGRAD, strict=True
            )
        ]
        factors = {"error": 0.5 - 10 / info[0].y ** 2, "slope": 2 * info[0].s}
        inputs = jax.grad(_inner)(a_and_b, jnp.zeros((), float))
        for row, entering in zip(rows[1:], inputs, strict=True):
            row |= {name: float(factor) for name, factor in factors.items()}
            row["input"] = float(entering)
            row["by hand"] = row["error"] * row["slope"] * row["input"]
        return rows


def _expression(a: Any, b: Any) -> Any:
    """Return g(a, b), the expression in micrograd's README."""
    c, d = a + b, a * b + b**3
    c = c + c + 1
    c = c + 1 + c - a
    d = d + 2 * d + jax.nn.relu(b + a)
    d = d + 3 * d + jax.nn.relu(b - a)
    f = (c - d) ** 2
    return f / 2 + 10 / f


def _inner(params: PyTree, _: Any) -> Any:
    """Return e = c − d, the part of micrograd's expression before the square."""
    a, b = params
    c, d = a + b, a * b + b**3
    c = c + c + 1
    d = 3 * d + jax.nn.relu(b + a)
    return (c + 1 + c - a) - (4 * d + jax.nn.relu(b - a))


def _micrograd_backprop() -> Any:
    """Return micrograd's expression g, the record of its layer, and its derivatives."""
    rule = gradients.backprop([(_inner, jnp.square)], lambda f, _: f / 2 + 10 / f)
    nothing, at = jnp.zeros((), float), (jnp.asarray(A, float), jnp.asarray(B, float))
    return jax.jit(rule)((at,), nothing, nothing)
