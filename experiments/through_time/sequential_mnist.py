"""MNIST read pixel by pixel: one number a step, and the class after the last.

Images are pooled to --side × --side by default, which makes sequences four times as
short as those of the published table. At its size, on a GPU:
`python -m experiments sequential_mnist --side 28 --units 128 --epochs 20 --batch 128`.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from bpvariants import gradients, training
from experiments import data, report
from experiments.networks import cells

# Bai, Kolter, Koltun 2018, table 1, about 70K parameters: in order, permuted.
PUBLISHED = {"lstm": (87.2, 85.7), "gru": (96.2, 87.3), "tanh": (21.5, 25.3)}
TCN = (99.0, 97.2)
HEADER = ["", "params", "test %", "published", "loss", "steps", "ms/step", "compile s"]
HEADER += ["MiB"]
COLOURS = {"tanh": "C3", "gru": "C0", "lstm": "C2"}
PART = 500  # test images looked at together


@dataclasses.dataclass(frozen=True)
class Config:
    """Train LSTM, GRU and tanh on images read in T steps, and classified at the end."""

    side: Literal[28, 14, 7, 4, 2] = 14
    """Images are pooled to side × side pixels; 28, as they are, in the table."""
    rows: bool = False
    """Read row by row, T = side, rather than pixel by pixel, T = side²."""
    permuted: bool = False
    """Read in an order drawn once, the same for all images."""
    cells: tuple[str, ...] = ("lstm", "gru", "tanh")
    """Of lstm, gru, tanh."""
    units: int = 64
    """Of each cell; 128 to 256 for the 70,000 parameters of the table."""
    epochs: float = 4.0
    """How often the 60,000 images are gone through."""
    batch: int = 64
    """Images of a step, drawn at random."""
    learning_rate: float = 3e-3
    """Of Adam at first, falling to 0 by a cosine; gradients are clipped to a norm of 1.
    tanh takes a third of it."""
    lookback: int = 0
    """If not 0, gradients are truncated: errors travel back so many steps, every half
    of it."""
    remat: Literal["none", "step", "slots"] = "none"
    """What whole gradients compute again rather than keep: nothing; each step, from T
    carries; or more, from √T carries in slots."""
    test: int = 10_000
    """How many of the test images to look at."""
    seed: int = 0
    """Of weights, batches and the order of pixels."""
    out: Path | None = None
    """Folder to write to; by default runs/sequential_mnist-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name, low in {"units": 1, "batch": 1, "test": 1, "lookback": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(
                    f"{name} must be at least {low}, got {getattr(self, name)}."
                )
        for name in ("epochs", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.side not in (28, 14, 7, 4, 2):
            raise ValueError(f"side must be 28, 14, 7, 4 or 2, got {self.side}.")
        unknown = set(self.cells) - set(cells.DENSE)
        if unknown or not self.cells:
            raise ValueError(
                f"cells must be some of {', '.join(cells.DENSE)}; got {self.cells}."
            )
        if self.lookback and self.remat != "none":
            raise ValueError(
                "remat is for whole gradients; with lookback="
                f"{self.lookback} it must be 'none', got {self.remat!r}."
            )


def main(config: Config) -> report.Result:
    """Train each cell, show them beside the published table, and write them."""
    folder = report.make_folder("sequential_mnist", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    digits = data.mnist()
    train, test = ((as_sequences(images, config), labels) for images, labels in digits)
    steps = max(1, round(config.epochs * len(train[0]) / config.batch))
    try:
        with report.Progress(len(config.cells)) as progress:
            for cell in config.cells:
                progress.begin(f"{cell}, T = {train[0].shape[1]}", steps)
                row, stopped = _row(config, cell, train, test, steps, progress.advance)
                if row is not None:
                    rows.append(row)
                    report.append_row(folder, row)
                if stopped:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    _show(rows, config, train[0].shape[1])
    if rows:
        report.save_picture(folder, "sequential_mnist", _draw(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def as_sequences(images: np.ndarray, config: Config) -> np.ndarray:
    """Return images as sequences, [N, T, d]: pooled, in rows or pixels, reordered."""
    side, width = config.side, 28 // config.side
    images = images[:, : side * width, : side * width]
    pooled = images.reshape(-1, side, width, side, width).mean(axis=(2, 4))
    sequences = pooled.reshape(len(images), -1, side if config.rows else 1)
    if config.permuted:
        order = np.random.default_rng(config.seed).permutation(sequences.shape[1])
        sequences = sequences[:, order]
    return sequences


def _row(
    config, cell, train, test, steps, advance
) -> tuple[dict[str, Any] | None, bool]:
    length, inputs = train[0].shape[1:]
    params = cells.init(jax.random.key(config.seed), cell, inputs, config.units, 10)
    carry = cells.CELLS[cell].carry(params["cell"], (config.batch,))
    at_the_end = jnp.zeros((length, config.batch)).at[-1].set(1.0)

    def sample(key, part):
        images, labels = part
        drawn = jax.random.randint(key, (config.batch,), 0, len(labels))
        targets = jnp.broadcast_to(labels[drawn], (length, config.batch))
        return carry, jnp.swapaxes(images[drawn], 0, 1), targets, at_the_end

    rate = config.learning_rate / (3 if cell == "tanh" else 1)
    schedule = optax.cosine_decay_schedule(rate, steps)
    result = training.fit(
        _rule(config, cell),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        params,
        jax.tree.map(jnp.asarray, train),
        steps=steps,
        chunk=min(50, steps),
        sample=sample,
        key=jax.random.key(config.seed + 1),
        log=lambda step, metrics: advance(step),
        nonfinite="stop",
    )
    if not result.steps:
        return None, result.interrupted
    row = {"cell": cell, "accuracy": _accuracy(config, cell, result.params, test)}
    row |= {"params": sum(leaf.size for leaf in jax.tree.leaves(params))}
    row |= {"loss": float(np.mean(result.values[-max(1, result.steps // 20) :]))}
    row |= {"steps": result.steps, "ms_per_step": 1000 * result.seconds / result.steps}
    row |= {"compile_seconds": result.compile_seconds, "temp_bytes": result.temp_bytes}
    return row | {"values": result.values.tolist()}, result.interrupted


def _rule(config, cell):
    step = cells.make_step(cell)
    loss = optax.softmax_cross_entropy_with_integer_labels
    if config.lookback:
        every = max(1, config.lookback // 2)
        return gradients.truncated_bptt(
            step, loss, every=every, lookback=config.lookback
        )
    length = config.side if config.rows else config.side**2
    slots = gradients.remat.slots(math.isqrt(length))
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


def _show(rows, config, length):
    lines = []
    for row in rows:
        memory = row["temp_bytes"]
        published = PUBLISHED[row["cell"]][config.permuted]
        line = [row["cell"], str(row["params"]), f"{row['accuracy']:.2f}"]
        line += [f"{published:.1f}", f"{row['loss']:.3f}", str(row["steps"])]
        line += [f"{row['ms_per_step']:.1f}", f"{row['compile_seconds']:.1f}"]
        lines.append([*line, "?" if memory is None else f"{memory / 2**20:.1f}"])
    lines.append(["TCN", "", "", f"{TCN[config.permuted]:.1f}", *5 * [""]])
    how = "row by row" if config.rows else "pixel by pixel"
    how += ", permuted" if config.permuted else ""
    truncated = f", truncated to {config.lookback} steps" if config.lookback else ""
    same = config.side == 28 and not config.rows
    report.show_table(
        f"MNIST {how}, T = {length}, gradients by BPTT{truncated}",
        HEADER,
        lines,
        f"Ours: {config.side} × {config.side} pixels, {config.epochs:g} epochs, one "
        "seed. Published: Bai et al. 2018, table 1, 28 × 28 pixels one by one, "
        "T = 784, 70K parameters, settings searched by grid; "
        + ("the same task." if same else "another task than ours, and a harder one.")
        + " Loss: of training, in the last twentieth of the steps.",
    )


def _draw(rows) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        values = np.array(row["values"])
        width = max(1, len(values) // 100)
        cut = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        label = f"{row['cell']}, test {row['accuracy']:.1f} %"
        steps = width * (1 + np.arange(len(cut)))
        axis.plot(steps, cut, color=COLOURS[row["cell"]], label=label)
    axis.axhline(np.log(10), color="black", linewidth=0.8, label="guessing, ln 10")
    axis.set(xlabel="steps", ylabel="training loss", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
