"""A convolutional equilibrium network on MNIST, trained by exact gradients and by JFB.

    x = pool(relu(conv5(image))),   h = tanh(conv3(h) + x),   logits = V h + c

The input x is computed once for each image, and the state h is iterated to a fixed
point. The exact gradient is computed by recurrent backpropagation (RBP); JFB is
Jacobian-free backpropagation. For C channels, the kernel of the convolution conv3 is a
matrix [9 C, C]. After each update, the matrix is projected to a spectral norm of at
most 0.3. The spectral norm of the whole convolution is at most three times the norm of
this matrix, so it is at most 0.9. The state h therefore always settles.

To train for as many epochs as the paper (Fung et al. 2022), on a GPU, run
`python -m experiments equilibrium_mnist --channels 48 --epochs 100 --batch 100`.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from bpvariants import gradients, updates
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import above, at_least
from experiments.harness.study import run_study, TrainingStudy

SIDE, LIMIT = 7, 0.3
SOLVER = gradients.solvers.relaxation(1.0, tol=1e-4, max_steps=100)
ADJOINTS = {
    "rbp": gradients.adjoints.relaxation(tol=1e-4, max_steps=100),
    "jfb": gradients.adjoints.jfb(),
}
# Test accuracies in % of Fung et al. 2022, read off the names of the files in which
# they released their weights. The published network is larger, and was trained for 100
# epochs.
PUBLISHED = {"rbp": 95.99, "jfb": 99.36}
HEADER = ["", "test %", "published", "evaluations", "settle %", "steps", "ms/step"]
HEADER += ["compile s", "MiB"]


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Does JFB train a convolutional equilibrium network as well as exact RBP?"""

    QUICK = {"channels": 4, "epochs": 0.1, "test": 1000}
    CHECKS = {"channels batch test": at_least(1), "epochs": above(0)}

    channels: int = 16
    """Number of channels of the state, which has 7 × 7 positions."""
    epochs: float = 1.0
    """Number of passes through the 60,000 training images."""
    batch: int = 128
    """Number of images in a mini-batch, drawn at random."""
    test: int = 10_000
    """Number of test images to evaluate."""


def main(config: Config) -> report.Result:
    """Train by both kinds of gradient; show our and published test accuracies."""
    check = lambda config: data.mnist()
    return run_study("equilibrium_mnist", config, _jobs, _finish, check=check)


def _jobs(config: Config) -> list[Job]:
    digits = data.mnist()
    steps = max(1, round(config.epochs * len(digits.train[0]) / config.batch))
    return [
        Job(f"{rule}-{seed}", steps, partial(_train, config, rule, seed, digits, steps))
        for rule in ADJOINTS
        for seed in range(config.first_seed, config.first_seed + config.seeds)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _show(rows)
    report.save_picture(folder, "equilibrium_mnist", _draw(rows))


def _train(
    config: Config, rule: str, seed: int, digits: data.MNIST, steps: int, way: Way
) -> Row:
    """Train by one kind of gradient; return test accuracy, training losses, times."""
    sample = lambda key, part: jax.tree.map(
        lambda leaf: leaf[jax.random.randint(key, (config.batch,), 0, len(leaf))], part
    )
    result = way.fit(
        jax.value_and_grad(partial(_loss, rule), has_aux=True),
        _optimizer(steps),
        _init(jax.random.key(seed), config.channels),
        jax.tree.map(jnp.asarray, digits.train),
        steps=steps,
        chunk=max(1, min(50, steps)),
        sample=sample,
        key=jax.random.key(seed + 1),
        nonfinite="stop",
        over=(0, 0),
    )
    images, labels = (part[: config.test] for part in digits.test)
    row = {"rule": rule, "seed": seed} | _evaluate(result.params, images, labels)
    row |= {"steps": result.steps} | time_taken(result)
    return row | {"temp_bytes": result.temp_bytes, "values": result.values.tolist()}


def _evaluate(params: PyTree, images: np.ndarray, labels: np.ndarray) -> Row:
    """Return accuracy, % of images whose state settles, and iterations of the state.

    All three are measured on test images. The number of iterations is a mean over these
    images.
    """
    correct, taken, settled = [], [], []
    look = jax.jit(_look)
    for begin in range(0, len(images), 500):
        part = slice(begin, begin + 500)
        right, info = look(params, jnp.asarray(images[part]), labels[part])
        correct.append(np.asarray(right))
        taken.append(np.asarray(info.steps))
        settled.append(np.asarray(info.converged))
    return {
        "accuracy": 100 * float(np.mean(np.concatenate(correct))),
        "settled": 100 * float(np.mean(np.concatenate(settled))),
        "evaluations": float(np.mean(np.concatenate(taken))),
    }


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


def _show(rows: list[Row]) -> None:
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        runs = [row for row in rows if row["rule"] == rule]
        of = lambda name, runs=runs: [row[name] for row in runs]
        memory = of("temp_bytes")[0]
        lines.append(
            [
                rule,
                report.mean_sd(of("accuracy")),
                f"{PUBLISHED[rule]:.2f}",
                f"{np.mean(of('evaluations')):.1f}",
                f"{np.mean(of('settled')):.1f}",
                f"{np.mean(of('steps')):.0f}",
                f"{np.mean(of('ms_per_step')):.1f}",
                f"{np.mean(of('compile_seconds')):.1f}",
                "?" if memory is None else f"{memory / 2**20:.1f}",
            ]
        )
    report.show_table(
        "MNIST by a convolutional equilibrium network",
        HEADER,
        lines,
        "Test accuracy, mean ± standard deviation of several seeds (higher is better). "
        "Published: Fung et al. 2022, a larger network after 100 epochs; the authors "
        "computed the exact gradient by their own solver.\nEvaluations: mean number of "
        "evaluations of the step until a test image settles.",
    )
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["rule"], []).append(row["accuracy"])
    report.conclude(
        report.verdict(
            "test accuracy", scores, higher_is_better=True, unit=" %", limits=(0, 100)
        )
    )


def _draw(rows: list[Row]) -> Figure:
    """Draw a curve of smoothed training losses for each kind of gradient and seed."""
    figure, axes = report.panels(width=8, height=4)
    axis = axes[0, 0]
    for row in rows:
        values = np.array(row["values"])
        width = max(1, len(values) // 50)
        cut = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        steps = width * (1 + np.arange(len(cut)))
        label = f"{row['job']}, test {row['accuracy']:.2f} %"
        axis.plot(steps, cut, label=label, **report.rule_style(row["job"]))
    axis.set(xlabel="updates", ylabel="training loss, nats", title="MNIST")
    report.log_ticks(axis)
    report.label_ends(axis)
    return figure
