"""MNIST by a convolutional network that settles: exact recurrent backpropagation, JFB.

    x = pool(relu(conv5(image))),   h = tanh(conv3(h) + x),   logits = V h + c

The kernel of conv3 is kept at a spectral norm of 0.3, as a matrix of [9 C, C]: that of
the convolution is at most three times as much, so h always settles.

On a GPU, for as long as the paper trains (Fung et al. 2022):
`python -m experiments equilibrium_mnist --channels 48 --epochs 100 --batch 100`.
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

from bpvariants import gradients, training, updates
from experiments import data, report

SIDE, LIMIT = 7, 0.3
SOLVER = gradients.solvers.relaxation(tol=1e-4, max_steps=100)
ADJOINTS = {
    "rbp": gradients.adjoints.relaxation(tol=1e-4, max_steps=100),
    "jfb": gradients.adjoints.jfb(),
}
# Fung et al. 2022, names of the released weights: a larger network, 100 epochs.
PUBLISHED = {"rbp": 95.99, "jfb": 99.36}
HEADER = ["", "test %", "published", "evaluations", "settle %", "steps", "ms/step"]
HEADER += ["compile s", "MiB"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a convolutional equilibrium network on MNIST, by exact RBP and by JFB."""

    channels: int = 16
    """Channels of the state, on 7 × 7 positions."""
    epochs: float = 1.0
    """How often the 60,000 images are gone through."""
    batch: int = 128
    """Images of a step, drawn at random."""
    test: int = 10_000
    """How many of the test images to look at."""
    seed: int = 0
    """Of weights and batches."""
    out: Path | None = None
    """Folder to write to; by default runs/equilibrium_mnist-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("channels", "batch", "test"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not self.epochs > 0:
            raise ValueError(f"epochs must be positive, got {self.epochs}.")


def main(config: Config) -> report.Result:
    """Train with each gradient, show them, and write them to a folder."""
    folder = report.make_folder("equilibrium_mnist", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    digits = data.mnist()
    steps = max(1, round(config.epochs * len(digits.train[0]) / config.batch))
    try:
        with report.Progress(len(ADJOINTS)) as progress:
            for rule in ADJOINTS:
                progress.begin(rule, steps)
                row, stopped = _row(config, rule, digits, steps, progress.advance)
                if row is not None:
                    rows.append(row)
                    report.append_row(folder, row)
                if stopped:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    _show(rows)
    if rows:
        report.save_picture(folder, "equilibrium_mnist", _draw(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _row(config, rule, digits, steps, advance) -> tuple[dict[str, Any] | None, bool]:
    sample = lambda key, part: jax.tree.map(
        lambda leaf: leaf[jax.random.randint(key, (config.batch,), 0, len(leaf))], part
    )
    result = training.fit(
        jax.value_and_grad(partial(_loss, rule), has_aux=True),
        _optimizer(steps),
        _init(jax.random.key(config.seed), config.channels),
        jax.tree.map(jnp.asarray, digits.train),
        steps=steps,
        chunk=max(1, min(50, steps)),
        sample=sample,
        key=jax.random.key(config.seed + 1),
        log=lambda step, metrics: advance(step),
        nonfinite="stop",
    )
    if not result.steps:
        return None, result.interrupted
    images, labels = (part[: config.test] for part in digits.test)
    correct, taken, settled = [], [], []
    look = jax.jit(_look)
    for begin in range(0, len(images), 500):
        part = slice(begin, begin + 500)
        right, info = look(result.params, jnp.asarray(images[part]), labels[part])
        correct.append(np.asarray(right))
        taken.append(np.asarray(info.steps))
        settled.append(np.asarray(info.converged))
    row = {"rule": rule, "accuracy": 100 * float(np.mean(np.concatenate(correct)))}
    row |= {"settled": 100 * float(np.mean(np.concatenate(settled)))}
    row |= {"evaluations": float(np.mean(np.concatenate(taken)))}
    row |= {"steps": result.steps, "ms_per_step": 1000 * result.seconds / result.steps}
    row |= {"compile_seconds": result.compile_seconds, "temp_bytes": result.temp_bytes}
    return row | {"values": result.values.tolist()}, result.interrupted


def _init(key: jax.Array, channels: int) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    normal = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    return {
        "stem": normal(keys[0], 25, channels),
        "stem_bias": jnp.zeros(channels),
        "recurrent": LIMIT / 2 * normal(keys[1], 9 * channels, channels),
        "readout": normal(keys[2], SIDE * SIDE * channels, 10),
        "readout_bias": jnp.zeros(10),
    }


def _optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.cosine_decay_schedule(3e-3, steps)
    only = dict.fromkeys(("stem", "stem_bias", "readout", "readout_bias"), False)
    project = updates.project_spectral_norm(LIMIT)
    return optax.chain(
        optax.adam(rate), optax.masked(project, only | {"recurrent": True})
    )


def _convolve(h: jax.Array, matrix: jax.Array, side: int) -> jax.Array:
    kernel = matrix.reshape(side, side, h.shape[-1], matrix.shape[-1])
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        h, kernel, (1, 1), "SAME", dimension_numbers=layout
    )


def _f(params, h, x):
    return jnp.tanh(_convolve(h, params["recurrent"], 3) + x)


def _inject(params, images):
    x = _convolve(images[..., None], params["stem"], 5) + params["stem_bias"]
    x = jax.nn.relu(x)
    shape = (len(x), SIDE, 4, SIDE, 4, x.shape[-1])
    return jnp.max(x.reshape(shape), axis=(2, 4))


def _readout(params, h):
    return h.reshape(len(h), -1) @ params["readout"] + params["readout_bias"]


def _settle(rule, params, images):
    x = _inject(params, images)
    options = {"solver": SOLVER, "adjoint": ADJOINTS[rule], "batch_ndim": 1}
    return gradients.fixed_point(_f, params, jnp.zeros_like(x), x, **options)


def _loss(rule, params, images, labels):
    h, _ = _settle(rule, params, images)
    logits = _readout(params, h)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), None


def _look(params, images, labels):
    h, info = _settle("jfb", params, images)
    return jnp.argmax(_readout(params, h), axis=-1) == labels, info


def _show(rows):
    lines = []
    for row in rows:
        memory = row["temp_bytes"]
        line = [row["rule"], f"{row['accuracy']:.2f}", f"{PUBLISHED[row['rule']]:.2f}"]
        line += [
            f"{row['evaluations']:.1f}",
            f"{row['settled']:.1f}",
            str(row["steps"]),
        ]
        line += [f"{row['ms_per_step']:.1f}", f"{row['compile_seconds']:.1f}"]
        lines.append([*line, "?" if memory is None else f"{memory / 2**20:.1f}"])
    report.show_table(
        "MNIST by a convolutional equilibrium network",
        HEADER,
        lines,
        "Published: a larger network after 100 epochs, its exact gradient by a solver "
        "of its own (Fung et al. 2022). Evaluations: of f, until a test image settles.",
    )


def _draw(rows) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        values = np.array(row["values"])
        width = max(1, len(values) // 50)
        cut = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        steps = width * (1 + np.arange(len(cut)))
        axis.plot(steps, cut, label=f"{row['rule']}, test {row['accuracy']:.2f} %")
    axis.set(xlabel="steps", ylabel="training loss", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
