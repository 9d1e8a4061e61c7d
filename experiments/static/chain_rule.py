"""The chain rule on one digit: all factors, beside `jax.grad` and finite differences.

    s_l = y_{l−1} W_l + b_l,    y_l = φ_l(s_l),    E = ½ Σ (y_2 − target)²,    y_0 = x

    ∂E/∂w_l = ∂E/∂y_l · ∂y_l/∂s_l · ∂s_l/∂w_l

with φ_1 = tanh and φ_2 the logistic function. `gradients.backprop` leaves what each
layer saw; from that the factors are put together here by hand, as on paper: of a whole
layer, of one weight in each layer, and of one hidden unit, whose ∂E/∂y is a sum over
the units above it. Then the same of an expression in two numbers, micrograd's.
"""

import dataclasses
import time
from contextlib import nullcontext
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
from experiments.harness.options import check_at_least_one
from experiments.harness.precision import double_precision
from experiments.static import _chain_rule_report

CLASSES = 10
ACTIVATIONS = (jnp.tanh, jax.nn.sigmoid)
SLOPES = (lambda y: 1 - y**2, lambda y: y * (1 - y))  # ∂y/∂s, made of y
# What micrograd's README prints: g, ∂g/∂a, ∂g/∂b, at these a, b.
MICROGRAD = (24.7041, 138.8338, 645.5773)
A, B = -4.0, 2.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Show all factors of the chain rule, on one digit and a network of two layers."""

    example: int = 0
    """Which of the 1347 digits for training to show."""
    hidden: int = 8
    """Units of the first layer."""
    seed: int = 0
    """Of the weights."""
    precision: Literal["float64", "float32"] = "float64"
    """Of all numbers. In float32 finite differences have two to three right digits."""
    out: Path | None = None
    """Folder to write to; by default runs/chain_rule-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "hidden")
        if self.example < 0:
            raise ValueError(f"example must be at least 0, got {self.example}.")


def main(config: Config) -> report.Result:
    """Compute all factors, show them, and write them to a folder with two pictures."""
    folder = report.make_folder("chain_rule", config.out)
    report.write_config(folder, config)
    start = time.perf_counter()
    wide = config.precision == "float64"
    with double_precision() if wide else nullcontext():
        params, x, target = _problem(config)
        (value, info), grads = jax.jit(gradients.backprop(LAYERS, squared_error))(
            params, x, target
        )
        others = _other_gradients(params, x, target)
        rows = [{"row": "energy", "value": float(value)}]
        rows += _layers(info, grads, others)
        rows += _weights(info, grads, others)
        rows += _paths(params, info, rows[-2]["to"])  # of the weight in layer 1
        micrograd_rows, micrograd_info = _micrograd()
        rows += micrograd_rows
        for row in rows:
            report.append_row(folder, row)
        _chain_rule_report.show(rows, config, info, micrograd_info)
        chosen = [row for row in rows if row["row"] == "weight"]
        chain = _chain_rule_report.draw_chain(info, np.asarray(x), micrograd_info)
        report.save_picture(folder, "chain", chain)
        factors = _chain_rule_report.draw_factors(info, np.asarray(x), chosen[0])
        report.save_picture(folder, "factors", factors)
    report.say_where(folder, time.perf_counter() - start, interrupted=False)
    return report.Result(rows, folder, interrupted=False)


def affine(params: dict[str, jax.Array], y: jax.Array) -> jax.Array:
    """Return s = y W + b."""
    return y @ params["w"] + params["b"]


LAYERS = [(affine, activation) for activation in ACTIVATIONS]


def squared_error(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return E = ½ Σ (y − target)²."""
    return jnp.sum((y - target) ** 2, axis=-1) / 2


def _problem(config: Config) -> tuple[PyTree, jax.Array, jax.Array]:
    """Return the parameters, [W_1, b_1], [W_2, b_2], the digit [64] and its code."""
    images, labels = data.digits().train
    if config.example >= len(images):
        raise DataError(
            f"example must be less than the {len(images)} digits for training, got "
            f"{config.example}."
        )
    x = jnp.asarray(images[config.example], float)
    target = jax.nn.one_hot(labels[config.example], CLASSES, dtype=float)
    widths = (len(x), config.hidden, CLASSES)
    keys = jax.random.split(jax.random.key(config.seed), len(LAYERS))
    draw = lambda key, n, m: jax.random.normal(key, (n, m), float) / n**0.5
    params = tuple(
        {"w": draw(key, n, m), "b": jnp.zeros(m, float)}
        for key, n, m in zip(keys, widths, widths[1:], strict=False)
    )
    return params, x, target


def _other_gradients(params, x, target) -> dict[str, PyTree]:
    """Return the gradient of the network as a plain function, in two other ways."""

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
    """Return for each layer the three factors, δ, and ∂E/∂w of a single example.

    The factors are ∂E/∂y [m], ∂y/∂s [m], and ∂s/∂w = y_{l−1} [n]; ∂E/∂w is [n, m].
    """
    found = []
    for layer, slope_of in zip(info, SLOPES, strict=True):
        factors = {"error": layer.error, "slope": slope_of(layer.y), "input": layer.x}
        factors["delta"] = factors["error"] * factors["slope"]
        factors["grad"] = jnp.outer(factors["input"], factors["delta"])
        found.append(factors)
    return found


def _layers(info, grads, others) -> list[dict[str, Any]]:
    """Return the norms of each layer's factors, and how far gradients are apart."""
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
    """Return ‖a − b‖ / ‖b‖."""
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def _weights(info, grads, others) -> list[dict[str, Any]]:
    """Return the factors of one weight in each layer: that of the largest ∂E/∂w."""
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


def _paths(params, info, unit: int) -> list[dict[str, Any]]:
    """Return what each unit above adds to ∂E/∂y of a hidden unit: δ_k w_k."""
    deltas, weights = np.asarray(info[1].delta), np.asarray(params[1]["w"][unit])
    rows: list[dict[str, Any]] = [
        {"row": "path", "unit": k, "delta": float(delta), "weight": float(weight)}
        | {"product": float(delta * weight)}
        for k, (delta, weight) in enumerate(zip(deltas, weights, strict=True))
    ]
    total, error = sum(row["product"] for row in rows), float(info[0].error[unit])
    return [*rows, {"row": "paths", "unit": unit, "sum": total, "error": error}]


def _micrograd() -> tuple[list[dict[str, Any]], gradients.static.BackpropInfo]:
    """Return g and its derivatives, by layers of single numbers and by `jax.grad`."""

    def expression(a, b):
        c, d = a + b, a * b + b**3
        c = c + c + 1
        c = c + 1 + c - a
        d = d + 2 * d + jax.nn.relu(b + a)
        d = d + 3 * d + jax.nn.relu(b - a)
        f = (c - d) ** 2
        return f / 2 + 10 / f

    def inner(params, _):  # e = c − d, all that comes before the square
        a, b = params
        c, d = a + b, a * b + b**3
        c = c + c + 1
        d = 3 * d + jax.nn.relu(b + a)
        return (c + 1 + c - a) - (4 * d + jax.nn.relu(b - a))

    layers = [(inner, jnp.square)]
    rule = gradients.backprop(layers, lambda f, _: f / 2 + 10 / f)
    nothing, at = jnp.zeros((), float), (jnp.asarray(A, float), jnp.asarray(B, float))
    (value, info), (ours,) = jax.jit(rule)((at,), nothing, nothing)
    want = expression(*at), *jax.grad(expression, (0, 1))(*at)
    names = ("g", "∂g/∂a", "∂g/∂b")
    rows = [
        {"row": "micrograd", "what": name, "backprop": float(a)}
        | {"jax.grad": float(b), "published": c}
        for name, a, b, c in zip(names, (value, *ours), want, MICROGRAD, strict=True)
    ]
    factors = {"error": 0.5 - 10 / info[0].y ** 2, "slope": 2 * info[0].s}
    inputs = jax.grad(inner)(at, nothing)
    for row, entering in zip(rows[1:], inputs, strict=True):
        row |= {name: float(factor) for name, factor in factors.items()}
        row["input"] = float(entering)
        row["by hand"] = row["error"] * row["slope"] * row["input"]
    return rows, info
