"""Equilibrium propagation beside recurrent backpropagation, on MNIST.

    hidden ← σ(U image + V out + b),  out ← σ(Vᵀ hidden + c),  σ(u) = sigmoid(4 u − 2)

The network has 784 inputs, 512 hidden units and 10 outputs, like P-1h of Ernoult et al.
2019. The free phase has 40 steps and the nudged phase 15 steps, with β = 0.1 in one
direction, or in both. All rules train from the same initial weights on the same
batches, by SGD. "rbp" is the exact gradient, recurrent backpropagation. In the last two
runs, the weights back from the outputs to the hidden units are matrices of their own,
so that the Jacobian is not symmetric. Recurrent backpropagation is still exact there.

This study applies the nudging inside σ, so that the limit β → 0 is the exact gradient.
To train on all images, as the paper does, run `python -m experiments
equilibrium_propagation --train 60000 --test 10000 --epochs 30 --seeds 3`.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, known
from experiments.harness.study import run_study, Study

FREE, NUDGED, BETA, RATES = 40, 15, 0.1, {"U": 0.04, "b": 0.04, "V": 0.08, "c": 0.08}
RULES = ("rbp", "ep", "ep one-sided", "rbp asymmetric", "ep asymmetric")
EXACT = gradients.solvers.relaxation(1.0, tol=1e-5, max_steps=100)
PARTS = 10  # a training has at least this many parts; errors are measured after each


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Train by equilibrium propagation and by the exact gradient, with equal seeds."""

    QUICK = {"train": 400, "test": 200, "hidden": 32, "epochs": 1}
    CHECKS = {
        "hidden batch epochs train test": at_least(1),
        "rate": above(0),
        "rules": known(RULES),
    }

    rules: tuple[str, ...] = RULES
    """Rules to train with."""
    hidden: int = 512
    """Number of hidden units; 512 in the paper."""
    epochs: int = 2
    """Number of passes through the training images."""
    batch: int = 20
    """Number of images in a mini-batch."""
    rate: float = 1.0
    """Factor of the learning rates, 0.04 for U and 0.08 for V."""
    train: int = 5000
    """Number of training images, the first ones of 60,000."""
    test: int = 2000
    """Number of test images, the first ones of 10,000."""


def main(config: Config) -> report.Result:
    """Train by each rule; show test errors, and angles to the exact gradient."""
    check = lambda config: data.mnist()
    return run_study("equilibrium_propagation", config, _jobs, _finish, check=check)


def _jobs(config: Config) -> list[Job]:
    digits = data.mnist()
    cut = lambda part, size: (part[0][:size].reshape(-1, 784), part[1][:size])
    sets = cut(digits.train, config.train), cut(digits.test, config.test)
    parts = max(PARTS, config.epochs)
    return [
        Job(f"{rule}-{seed}", parts, partial(_train, config, rule, seed, sets))
        for rule in config.rules
        for seed in range(config.first_seed, config.first_seed + config.seeds)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _show(rows)
    report.save_picture(folder, "equilibrium_propagation", _draw(rows))


def _sigma(u: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(4 * u - 2)


def _drive(params: PyTree, h: PyTree, x: jax.Array) -> PyTree:
    """Return the inputs of σ; "B" holds the weights back, if they are of their own."""
    back = params.get("B", params["V"].T)
    hidden = x @ params["U"] + h["out"] @ back + params["b"]
    return {"hidden": hidden, "out": h["hidden"] @ params["V"] + params["c"]}


def _phi(params: PyTree, h: PyTree, x: jax.Array) -> jax.Array:
    hidden = x @ params["U"] + h["out"] @ params["V"].T + params["b"]
    return jnp.sum(h["hidden"] * hidden, -1) + h["out"] @ params["c"]


def _step(params: PyTree, h: PyTree, x: jax.Array) -> PyTree:
    return jax.tree.map(_sigma, _drive(params, h, x))


def _loss(h: PyTree, target: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum((h["out"] - target) ** 2, axis=-1)


def _rule(name: str) -> gradients.equilibrium.EquilibriumPropagationRule:
    if name.startswith("rbp"):
        rule = gradients.recurrent_backprop(
            _step, _loss, solver=EXACT, on_failure="ignore"
        )
        return lambda *arguments: rule(*arguments)  # type: ignore
    return gradients.equilibrium_propagation(
        _drive if "asymmetric" in name else _phi,
        _loss,
        kind="map" if "asymmetric" in name else "primitive",
        activation=_sigma,
        beta=BETA,
        symmetric="one-sided" not in name,
        free_steps=FREE,
        nudged_steps=NUDGED,
    )


def _init(key: jax.Array, hidden: int, asymmetric: bool) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    draw = lambda key, n, m: jax.random.uniform(
        key, (n, m), minval=-(n**-0.5), maxval=n**-0.5
    )
    params = {"U": draw(keys[0], 784, hidden), "V": draw(keys[1], hidden, 10)}
    params |= {"b": jnp.zeros(hidden), "c": jnp.zeros(10)}
    if asymmetric:
        params["B"] = draw(keys[2], hidden, 10).T
    return params


def _start(params: PyTree, x: jax.Array) -> PyTree:
    sizes = {"hidden": params["b"], "out": params["c"]}
    return jax.tree.map(lambda leaf: jnp.zeros((len(x), len(leaf))), sizes)


def _train(config: Config, rule: str, seed: int, sets: tuple, way: Way) -> Row:
    """Train by one rule; return errors, losses and the cosine to the exact gradient."""
    (images, labels), (test, truth) = jax.tree.map(jnp.asarray, sets)
    params = _init(jax.random.key(seed), config.hidden, "asymmetric" in rule)
    labels, run = jax.nn.one_hot(labels, 10), _rule(rule)
    exact = _rule("rbp")

    @jax.jit
    def fit(params, batches, images, labels):
        return jax.lax.scan(partial(update, images, labels), params, batches)

    def update(images, labels, params, batch):
        x, target = images[batch], labels[batch]
        (value, _), grads = run(params, _start(params, x), x, target)
        rates = RATES | {"B": RATES["V"]}
        new = {
            name: leaf - config.rate * rates[name] * grads[name]
            for name, leaf in params.items()
        }
        return new, value

    x, target = images[:100], labels[:100]

    def cosine(params):
        a, b = (f(params, _start(params, x), x, target)[1] for f in (run, exact))
        return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))

    def wrong(params, test, truth):
        body = lambda _, h: _step(params, h, test)
        h = jax.lax.fori_loop(0, FREE, body, _start(params, test))
        return 100 * jnp.mean(jnp.argmax(h["out"], -1) != truth)

    look = jax.jit(lambda params, *test: (wrong(params, *test), cosine(params)))
    order = np.random.default_rng(seed)
    each = len(images) // config.batch * config.batch
    batches = np.concatenate(
        [order.permutation(len(images))[:each] for _ in range(config.epochs)]
    ).reshape(-1, config.batch)
    curve, errors, cosines = [], [], [float(look(params, test, truth)[1])]
    parts = np.array_split(batches, min(max(PARTS, config.epochs), len(batches)))
    for done, part in enumerate(parts, 1):
        params, values = fit(params, jnp.asarray(part), images, labels)
        curve.append(float(jnp.mean(values)))
        error, angle = map(float, look(params, test, truth))
        errors.append(error)
        cosines.append(angle)
        way.advance(done)
    return {
        "rule": rule, "seed": seed, "updates": len(batches), "values": curve,
        "errors": errors, "error": errors[-1], "cosines": cosines,
    }  # fmt: skip


def _show(rows: list[Row]) -> None:
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        mine = [row for row in rows if row["rule"] == rule]
        partner = "rbp asymmetric" if "asymmetric" in rule else "rbp"
        exact = {row["seed"]: row["error"] for row in rows if row["rule"] == partner}
        pairs = [row["error"] - exact[row["seed"]] for row in mine if exact]
        lines.append(
            [
                rule,
                report.mean_sd([row["error"] for row in mine]),
                f"{np.mean(pairs):+.2f}" if pairs else "–",
                f"{np.mean([row['cosines'][0] for row in mine]):.4f}",
                f"{np.mean([row['cosines'][-1] for row in mine]):.4f}",
                f"{np.mean([row['values'][-1] for row in mine]):.4f}",
            ]
        )
    report.show_table(
        "MNIST by equilibrium propagation",
        ["", "test error %", "− exact", "cosine, start", "cosine, end", "loss"],
        lines,
        "Test error, mean ± standard deviation over seeds (lower is better). − exact: "
        "difference in percentage points to the exact gradient, rbp, from the same "
        "seeds and with the same weights.\nCosine: between the rule's gradient and the "
        "exact gradient on 100 training images, before and after training.",
    )


def _draw(rows: list[Row]) -> Figure:
    """Draw test errors, and cosines to the exact gradient, of the first seed."""
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    styles = report.rule_styles([row["rule"] for row in first])
    figure, axes = report.panels(1, 2, width=5.6, height=4)
    left, right = axes[0]
    for row in first:
        parts = np.linspace(0, row["updates"], len(row["cosines"]))
        left.plot(parts[1:], row["errors"], label=row["rule"], **styles[row["rule"]])
        right.plot(parts, row["cosines"], label=row["rule"], **styles[row["rule"]])
    left.set(xlabel="updates", ylabel="test error, %", title="test error")
    right.set(xlabel="updates", ylabel="cosine", title="cosine to the exact gradient")
    report.log_ticks(left)
    report.label_ends(left, right)
    return figure
