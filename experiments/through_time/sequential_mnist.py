"""MNIST read pixel by pixel: each step reads one pixel; the last step predicts a class.

Images are pooled to --side × --side pixels. By default, sequences are a quarter as long
as in the published table. The command for the sizes of the published table, on a GPU,
is `python -m experiments sequential_mnist --side 28 --units 128 --epochs 20 --batch
128`.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from bpvariants import gradients
from experiments import data, report
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import cells

# {cell: published test accuracies in %, for pixels in order and for permuted pixels}.
# From Bai, Kolter, Koltun 2018, table 1: networks of about 70,000 parameters.
PUBLISHED = {"lstm": (87.2, 85.7), "gru": (96.2, 87.3), "tanh": (21.5, 25.3)}
TCN = (99.0, 97.2)
HEADER = ["", "params", "test %", "published", "loss", "steps", "ms/step", "compile s"]
HEADER += ["MiB"]
PART = 500  # number of test images classified together


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do LSTM, GRU and tanh networks classify images read pixel by pixel?"""

    QUICK: ClassVar = {"side": 7, "units": 32, "epochs": 1.0, "test": 2000}
    CHECKS: ClassVar = {
        "units batch test": at_least(1),
        "lookback": at_least(0),
        "epochs learning_rate": above(0),
        "cells": all_of(given, known(cells.DENSE)),
    }

    side: Literal[28, 14, 7, 4, 2] = 14
    """Side length that images are pooled to, in pixels. In the published table, it is
    28, without pooling."""
    rows: bool = False
    """Whether to read images row by row (side steps) instead of pixel by pixel (side²
    steps)."""
    permuted: bool = False
    """Whether to permute the steps of the sequence, in the same way for all images."""
    cells: tuple[str, ...] = ("lstm", "gru", "tanh")
    """Cells to train, from lstm, gru and tanh."""
    units: int = 64
    """Number of units of each cell. The published networks have 70,000 parameters;
    depending on the cell, these are 128 to 256 units."""
    epochs: float = 4.0
    """Number of passes through the 60,000 training images."""
    batch: int = 64
    """Number of images in a mini-batch, drawn at random."""
    learning_rate: float = 3e-3
    """Initial learning rate of Adam; the tanh cell has a third of this rate. Learning
    rates fall to 0 along a cosine. Gradients are clipped to a norm of 1."""
    lookback: int = 0
    """Lookback h of truncated BPTT, with windows of h/2 steps; 0 means BPTT."""
    remat: Literal["none", "step", "slots"] = "none"
    """Values that BPTT recomputes in its backward pass. "step": BPTT stores the
    carries of all T steps, and recomputes the other values. "slots": BPTT stores √T
    carries, and recomputes all other values."""
    test: int = 10_000
    """Number of test images."""

    def check(self):
        """Check that `side` is allowed, and that `remat` is used only with BPTT."""
        if self.side not in (28, 14, 7, 4, 2):
            raise ValueError(f"side must be 28, 14, 7, 4 or 2, got {self.side}.")
        if self.lookback and self.remat != "none":
            raise ValueError(
                "remat is for BPTT; with truncated BPTT, lookback="
                f"{self.lookback}, it must be 'none', got {self.remat!r}."
            )


def main(config: Config) -> report.Result:
    """Train each cell; print test accuracies and published accuracies."""
    load = cache(data.mnist)
    jobs = partial(_jobs, load)
    check = lambda _: load()
    return run_study("sequential_mnist", config, jobs, _finish, check=check)


def _jobs(load: Callable[[], data.MNIST], config: Config) -> list[Job]:
    """Return one job (training) for each cell and each seed."""
    train, test = ((as_sequences(images, config), labels) for images, labels in load())
    steps = max(1, round(config.epochs * len(train[0]) / config.batch))
    jobs = []
    for cell in config.cells:
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            train_one = partial(_row, config, cell, seed, train, test, steps)
            jobs.append(Job(f"{cell}-{seed}", steps, train_one))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _show(rows, config)
    report.save_picture(folder, "sequential_mnist", _draw(rows))


def _length(config: Config) -> int:
    """Return the sequence length T."""
    return config.side if config.rows else config.side**2


def as_sequences(images: np.ndarray, config: Config) -> np.ndarray:
    """Pool images, and convert them to sequences [N, T, d] of rows or of pixels.

    If the option `permuted` is set, the steps of all sequences are put into the same
    random order.
    """
    side, width = config.side, 28 // config.side
    images = images[:, : side * width, : side * width]
    pooled = images.reshape(-1, side, width, side, width).mean(axis=(2, 4))
    sequences = pooled.reshape(len(images), -1, side if config.rows else 1)
    if config.permuted:
        order = np.random.default_rng(config.first_seed).permutation(sequences.shape[1])
        sequences = sequences[:, order]
    return sequences


def _row(
    config: Config, cell: str, seed: int, train, test, steps: int, way: Way
) -> Row:
    """Train a cell from one seed; return its test accuracy, training losses, times."""
    length, inputs = train[0].shape[1:]
    params = cells.init(jax.random.key(seed), cell, inputs, config.units, 10)
    carry = cells.CELLS[cell].carry(params["cell"], (config.batch,))
    at_the_end = jnp.zeros((length, config.batch)).at[-1].set(1.0)

    def sample(key, part):
        images, labels = part
        drawn = jax.random.randint(key, (config.batch,), 0, len(labels))
        targets = jnp.broadcast_to(labels[drawn], (length, config.batch))
        return carry, jnp.swapaxes(images[drawn], 0, 1), targets, at_the_end

    rate = config.learning_rate / (3 if cell == "tanh" else 1)
    schedule = optax.cosine_decay_schedule(rate, steps)
    result = way.fit(
        _rule(config, cell),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        params,
        jax.tree.map(jnp.asarray, train),
        steps=steps,
        chunk=min(50, steps),
        sample=sample,
        key=jax.random.key(seed + 1),
        nonfinite="stop",
        over=(0, 1, 1, 1),
    )
    row = {"cell": cell, "seed": seed}
    row |= {"accuracy": _accuracy(config, cell, result.params, test)}
    row |= {"params": sum(leaf.size for leaf in jax.tree.leaves(params))}
    row |= {"loss": float(np.mean(result.values[-max(1, result.steps // 20) :]))}
    row |= {"steps": result.steps, "temp_bytes": result.temp_bytes}
    return row | time_taken(result) | {"values": result.values.tolist()}


def _rule(config, cell):
    step = cells.make_step(cell)
    loss = optax.softmax_cross_entropy_with_integer_labels
    if config.lookback:
        every = max(1, config.lookback // 2)
        return gradients.truncated_bptt(
            step, loss, every=every, lookback=config.lookback
        )
    slots = gradients.remat.slots(math.isqrt(_length(config)))
    policies = {"none": None, "step": "step", "slots": slots}
    return gradients.bptt(step, loss, remat=policies[config.remat])


def _accuracy(config, cell, params, test) -> float:
    advance, read = cells.CELLS[cell], cells.visible(cell)
    without_output = lambda params, carry, x: (advance(params, carry, x)[0], None)

    @jax.jit
    def classify(images):
        carry = advance.carry(params["cell"], (len(images),))
        xs = jnp.swapaxes(images, 0, 1)
        last, _ = gradients.unroll(without_output, params["cell"], carry, xs)
        return jnp.argmax(cells.readout(params, read(last)), axis=-1)

    images, labels = (part[: config.test] for part in test)
    found = [
        np.asarray(classify(images[begin : begin + PART]))
        for begin in range(0, len(images), PART)
    ]
    return 100 * float(np.mean(np.concatenate(found) == labels))


def _show(rows: list[Row], config: Config) -> None:
    lines = []
    for cell, mine in _by_cell(rows).items():
        of = lambda name, mine=mine: [row[name] for row in mine]
        memory = mine[0]["temp_bytes"]
        line = [cell, str(mine[0]["params"]), report.mean_sd(of("accuracy"))]
        line += [f"{PUBLISHED[cell][config.permuted]:.1f}", report.mean_sd(of("loss"))]
        line += [str(min(of("steps"))), f"{np.mean(of('ms_per_step')):.1f}"]
        line.append(f"{np.mean(of('compile_seconds')):.1f}")
        lines.append([*line, "?" if memory is None else f"{memory / 2**20:.1f}"])
    lines.append(["TCN", "", "", f"{TCN[config.permuted]:.1f}", *5 * [""]])
    how = "row by row" if config.rows else "pixel by pixel"
    how += ", permuted" if config.permuted else ""
    rule = f"BPTT truncated to {config.lookback} steps" if config.lookback else "BPTT"
    same = config.side == 28 and not config.rows
    report.show_table(
        f"MNIST {how}, T = {_length(config)}, {rule}",
        HEADER,
        lines,
        f"Ours: {config.side} × {config.side} pixels, {config.epochs:g} epochs, mean ± "
        f"standard deviation of {config.seeds} seeds. Test %: accuracy, higher is "
        "better. Published: Bai et al. 2018, table 1, 28 × 28 pixels one by one, "
        "T = 784, 70K parameters, settings by grid search; "
        + ("our task is the same." if same else "our task is another, easier one.")
        + " Loss: training loss in the last twentieth of the steps.",
    )
    scores = {
        cell: [row["accuracy"] for row in mine] for cell, mine in _by_cell(rows).items()
    }
    sign: Any = {"higher_is_better": True, "unit": " %"}
    said = [report.verdict("test accuracy", scores, limits=(0, 100), **sign)]
    if same:
        known = {cell: PUBLISHED[cell][config.permuted] for cell in scores}
        said.append(report.against("the published accuracy", known, scores, **sign))
    report.conclude(" ".join(filter(None, said)))


def _by_cell(rows: list[Row]) -> dict[str, list[Row]]:
    names = dict.fromkeys(row["cell"] for row in rows)
    return {name: [row for row in rows if row["cell"] == name] for name in names}


def _draw(rows: list[Row]) -> Figure:
    """Draw the training loss of each cell and seed against updates."""
    figure, axes = report.panels(width=8, height=4.2)
    axis = axes[0, 0]
    for cell, mine in _by_cell(rows).items():
        accuracy = report.mean_sd([row["accuracy"] for row in mine])
        for i, row in enumerate(mine):
            values = np.array(row["values"])
            width = max(1, len(values) // 100)
            cut = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
            label = None if i else f"{cell}, test {accuracy} %"
            steps = width * (1 + np.arange(len(cut)))
            axis.plot(steps, cut, label=label, **report.cell_style(cell))
    axis.axhline(np.log(10), color="#888888", ls=":", label="chance, ln 10")
    axis.set(xlabel="updates", ylabel="training loss, nats")
    axis.set_title("MNIST, read pixel by pixel")
    report.log_ticks(axis)
    report.label_ends(axis)
    return figure
