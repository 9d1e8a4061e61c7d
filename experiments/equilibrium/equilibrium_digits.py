"""An equilibrium network on digits, trained by five gradients in three regimes.

    z = tanh(z W + x U + b),  logits = z V + c

The state z is iterated from zero. The input x is an image of scikit-learn's digits,
which are split into training and test images at random. There are three regimes. In two
of these regimes, the recurrent matrix W starts at scale 0.5 or 0.9, and is not bounded.
In the third regime, W starts at scale 0.5, and is projected to a spectral norm of at
most 0.95 after each update. Without the projection, training leads to a W for which z
no longer settles at a fixed point. Without the projection, the accuracy falls most with
the exact gradient, because the exact gradient assumes that z has settled.

If the state z has not settled, this study computes the gradient at the last iterate
(`on_failure="ignore"`), like libraries that do not check convergence. With the default
of `gradients.fixed_point`, `on_failure="nan"`, the gradient would be NaN.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bpvariants import gradients, updates
from experiments import data, report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least, known
from experiments.harness.study import run_study, Study

UNITS, BATCH, TRAIN, LIMIT, STEPS = 64, 128, 1437, 0.95, 200
SOLVER = gradients.solvers.relaxation(1.0, tol=1e-5, max_steps=STEPS)
ADJOINTS = {  # None: backpropagation through 50 iterations of the state
    "bptt-50": None,
    "rbp": gradients.adjoints.relaxation(tol=1e-5, max_steps=STEPS),
    "neumann-5": gradients.adjoints.neumann(5),
    "neumann-1": gradients.adjoints.neumann(1),
    "jfb": gradients.adjoints.jfb(),
}
# {regime: (scale of the initial recurrent matrix, whether this matrix is projected)}.
REGIMES = {"free, 0.5": (0.5, False), "free, 0.9": (0.9, False)}
REGIMES |= {"projected, 0.5": (0.5, True)}
# Test accuracies in %, measured outside this project in float32. For each kind of
# gradient, there are three pairs, one for each regime. A pair has the mean and the
# standard deviation over 3 seeds.
MEASURED = {
    "bptt-50": ((97.13, 1.12), (97.41, 0.69), (97.78, 0.60)),
    "rbp": ((95.37, 2.40), (86.20, 2.50), (97.78, 0.60)),
    "neumann-5": ((97.22, 0.79), (97.69, 0.26), (97.87, 0.73)),
    "neumann-1": ((96.57, 1.02), (95.74, 0.69), (97.69, 0.57)),
    "jfb": ((96.11, 0.82), (97.13, 0.52), (97.87, 0.35)),
}
CAPTION = (
    "Test accuracies and training losses. There is one column for each regime: whether "
    "W is free or projected, and its initial scale. A loss is the mean over seeds."
)


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Do approximate gradients train an equilibrium network as well as the exact one?

    The networks read digits. W is the recurrent matrix of the state. Regimes: W is free
    and starts at scale 0.5 or 0.9, or it is projected to a spectral norm of at most
    0.95 after each update. Only then does the state surely settle.
    """

    QUICK = {
        "regimes": ("free, 0.9", "projected, 0.5"),
        "rules": ("rbp", "jfb"),
        "seeds": 1,
        "epochs": 2,
    }
    CHECKS = {
        "regimes": known(REGIMES),
        "rules": known(ADJOINTS),
        "epochs": at_least(1),
    }

    regimes: tuple[str, ...] = ()
    """Regimes to train in; by default all three. The name of a regime states the
    initial scale of W, and whether W is free or projected."""
    rules: tuple[str, ...] = ()
    """Kinds of gradient to train with; by default all five."""
    seeds: int = 3
    """Number of trainings with each gradient in each regime; each training has its own
    split of the digits and initial weights."""
    epochs: int = 40
    """Number of passes through the training images; each pass has 11 batches."""


def main(config: Config) -> report.Result:
    """Train all networks; show test accuracies, and accuracies measured elsewhere."""
    return run_study("equilibrium_digits", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    digits = data.digits()
    parts = zip(digits.train, digits.test, strict=True)
    examples = [jnp.asarray(np.concatenate(part)) for part in parts]
    return [
        Job(f"{regime}: {rule}", 1, partial(_row, config, regime, rule, examples))
        for regime in config.regimes or REGIMES
        for rule in config.rules or ADJOINTS
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _show(rows)
    report.save_picture(folder, "equilibrium_digits", _draw(rows), caption=CAPTION)
    for regime in dict.fromkeys(row["regime"] for row in rows):
        scores = {r["rule"]: r["accuracy"] for r in rows if r["regime"] == regime}
        said = report.verdict(
            "test accuracy", scores, higher_is_better=True, unit=" %", limits=(0, 100)
        )
        report.conclude(f"{regime}: {said}")


def _row(
    config: Config, regime: str, rule: str, examples: list[jax.Array], way: Way
) -> Row:
    """Train with one kind of gradient in one regime; return results of all seeds."""
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    train = jax.vmap(
        partial(_train, config.epochs, regime, rule), in_axes=(0, None, None)
    )
    begin = time.perf_counter()
    program = jax.jit(train).lower(keys, *examples).compile()
    middle = time.perf_counter()
    outcome = jax.block_until_ready(program(keys, *examples))
    seconds = time.perf_counter() - middle
    steps = config.epochs * (TRAIN // BATCH)
    row = {"regime": regime, "rule": rule, "ms_per_step": 1000 * seconds / steps}
    row |= {"compile_seconds": middle - begin}
    return row | {name: np.asarray(v, float).tolist() for name, v in outcome.items()}


def _f(params, z, x):
    return jnp.tanh(z @ params["recurrent"] + x @ params["input"] + params["bias"])


def _settle(rule, params, x):
    start = jnp.zeros((*x.shape[:-1], UNITS))
    if rule == "bptt-50":
        body = lambda z, _: (_f(params, z, x), None)
        return jax.lax.scan(body, start, length=50)[0]
    z, _ = gradients.fixed_point(
        _f,
        params,
        start,
        x,
        solver=SOLVER,
        adjoint=ADJOINTS[rule],
        on_failure="ignore",
        batch_ndim=1,
    )
    return z


def _logits(params, z):
    return z @ params["readout"] + params["readout_bias"]


def _train(epochs, regime, rule, key, images, labels):
    """Train a network; return test accuracy, training losses, whether it settles.

    A trained network settles if its state reaches a fixed point on the test images.
    """
    scale, projected = REGIMES[regime]
    split_key, init_key, batch_key = jax.random.split(key, 3)
    order = jax.random.permutation(split_key, len(images))
    train, test = order[:TRAIN], order[TRAIN:]
    params = _init(init_key, scale)
    optimizer = optax.adam(3e-3)
    if projected:
        only = {name: name == "recurrent" for name in params}
        project = optax.masked(updates.project_spectral_norm(LIMIT), only)
        optimizer = optax.chain(optimizer, project)

    def loss(params, x, label):
        logits = _logits(params, _settle(rule, params, x))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return jnp.mean(losses)

    def step(params_and_state, key):
        params, state = params_and_state
        batch = jax.random.choice(key, train, (BATCH,), replace=False)
        value, grads = jax.value_and_grad(loss)(params, images[batch], labels[batch])
        change, state = optimizer.update(grads, state, params)
        new: Any = optax.apply_updates(params, change)
        return (new, state), value

    keys = jax.random.split(batch_key, epochs * (TRAIN // BATCH))
    start = params, optimizer.init(params)
    (params, _), values = jax.lax.scan(step, start, keys)
    start = jnp.zeros((len(test), UNITS))
    z, info = gradients.fixed_point(
        _f, params, start, images[test], solver=SOLVER, batch_ndim=1
    )
    correct = jnp.argmax(_logits(params, z), axis=-1) == labels[test]
    return {
        "accuracy": 100 * jnp.mean(correct),
        "values": jnp.mean(values.reshape(epochs, -1), axis=1),
        "steps": jnp.max(info.steps),
        "residual": jnp.max(info.residual),
        "converged": 100 * jnp.mean(info.converged),
        "norm": jnp.linalg.norm(params["recurrent"], ord=2),
    }


def _init(key, scale):
    keys = jax.random.split(key, 3)
    normal = lambda key, *shape: jax.random.normal(key, shape) / UNITS**0.5
    return {
        "recurrent": scale * normal(keys[0], UNITS, UNITS),
        "input": normal(keys[1], 64, UNITS),
        "bias": jnp.zeros(UNITS),
        "readout": normal(keys[2], UNITS, 10),
        "readout_bias": jnp.zeros(10),
    }


def _show(rows: list[Row]) -> None:
    lines = []
    for row in rows:
        mean, deviation = _measured(row)
        lines.append(
            [
                f"{row['regime']}, {row['rule']}",
                report.mean_sd(row["accuracy"]),
                f"{mean:.2f} ± {deviation:.2f}",
                f"{np.max(row['steps']):.0f}",
                f"{np.max(row['residual']):.1e}",
                f"{np.mean(row['converged']):.0f}",
                f"{np.max(row['norm']):.2f}",
                f"{row['ms_per_step']:.1f}",
            ]
        )
    report.show_table(
        "Digits by an equilibrium network",
        ["", "test %", "measured", "steps", "residual", "settle %", "‖W‖", "ms/step"],
        lines,
        "Test accuracy, mean ± standard deviation over seeds (higher is better). "
        "Measured: outside this project, 3 seeds.\nAfter training, on the test set: "
        f"steps: evaluations until all examples settle (at most {STEPS}); residual: "
        "the largest residual; settle %: share of examples that settle; ‖W‖: spectral "
        "norm of W.\nms/step: time of one training step of all seeds together.",
    )


def _measured(row):
    order = ("free, 0.5", "free, 0.9", "projected, 0.5")
    return MEASURED[row["rule"]][order.index(row["regime"])]


def _draw(rows) -> Figure:
    """Draw training losses, our test accuracies, and accuracies measured elsewhere.

    There is one column of panels for each regime.
    """
    regimes = list(dict.fromkeys(row["regime"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    styles = report.rule_styles(rules)
    figure, axes = report.panels(2, len(regimes), width=4.8, height=3.4, sharey="row")
    for (top, bottom), regime in zip(axes.T, regimes, strict=True):
        mine = [row for row in rows if row["regime"] == regime]
        for row in mine:
            j, style = rules.index(row["rule"]), styles[row["rule"]]
            mean, deviation = _measured(row)
            top.errorbar(j + 0.2, mean, yerr=deviation, color="#888888", fmt="s")
            accuracy = row["accuracy"]
            top.plot([j] * len(accuracy), accuracy, "o", color=style["color"])
            curve = np.mean(row["values"], axis=0)
            epochs = 1 + np.arange(len(curve))
            bottom.plot(epochs, curve, label=row["rule"], **style)
        top.set_xticks(range(len(rules)), rules, fontsize=9, rotation=30, ha="right")
        top.set_xlim(-0.5, len(rules) - 0.3)
        top.set(title=regime, ylabel="test accuracy, %")
        bottom.set(xlabel="epochs", ylabel="training loss")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        report.log_ticks(bottom)
    axes[0, 0].set_ylim(top=100.8)
    dots = {"linestyle": "", "color": "#444444", "marker": "o"}
    squares = dots | {"color": "#888888", "marker": "s"}
    names = {"a seed of this run": dots, "measured elsewhere, mean ± sd": squares}
    report.legend_below(figure, names)
    report.label_ends(*axes[1])
    return figure
