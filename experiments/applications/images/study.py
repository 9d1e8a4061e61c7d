"""Study `images`: handwritten digits, classified by four kinds of network.

Two perceptrons and a convolutional network are trained by static backpropagation. A GRU
reads an image row by row, and is trained by backpropagation through time. The smaller
perceptron is also trained by iRprop⁻ on the full batch.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.images import (
    ask,
    report as images_report,
)
from experiments.applications.images.networks import (
    make_network,
    Network,
    NETWORKS,
    STATIC_RULES,
    StaticRule,
)
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy

PART = 1000  # number of test images that a network classifies at once
SHOWN = 12  # number of misclassified images drawn for each network
IMAGES = {"train": 60_000, "test": 10_000}  # numbers of images in MNIST


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How do test errors of four kinds of network on MNIST compare with LeCun's?"""

    QUICK = {
        "epochs": 4, "full_batch_epochs": 15, "train": 4000, "test": 1000, "units": 32,
        "batch": 64, "looks": 2, "seeds": 1,
    }  # fmt: skip
    CHECKS = {
        "lookback units epochs full_batch_epochs batch looks": at_least(1),
        "train test": at_least(1),
        "networks": all_of(given, known(NETWORKS)),
        "static_rule": known(STATIC_RULES),
        "update full_batch_update": known(choices.UPDATES),
    }

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Networks: mlp_300, mlp_500_150, conv, gru_rows, and full_batch, which is mlp_300
    trained on the full batch by full_batch_update."""
    rule: str = "bptt"
    """Gradient rule of gru_rows: bptt, truncated_bptt, artbp, rtrl, …"""
    static_rule: StaticRule = "backprop"
    """Gradient rule of all networks but gru_rows: backprop, or a kind of feedback
    alignment."""
    update: str = "adam"
    """Update rule of all networks but full_batch, on mini-batches."""
    learning_rate: float | None = 3e-3
    """Initial learning rate of the rule `update`; the rate falls to 0 along a cosine,
    except for update rules of the Rprop family."""
    full_batch_update: str = "irprop_minus"
    """Update rule of the network full_batch."""
    full_batch_rate: float | None = 1e-3
    """Learning rate of full_batch_update; for an update rule of the Rprop family, the
    initial step size."""
    lookback: int = 14
    """Number of image rows that truncated gradient rules go back."""
    units: int = 96
    """Number of units of the network gru_rows."""
    epochs: int = 4
    """Number of epochs of the networks that are trained on (random) mini-batches."""
    full_batch_epochs: int = 35
    """Number of updates of the network full_batch; each is one epoch."""
    batch: int = 128
    """Number of images in a mini-batch."""
    train: int = 60_000
    """Number of training images."""
    test: int = 10_000
    """Number of test images."""
    looks: int = 8
    """Largest number of times that a network is tested during training; the error in
    the last test is the result."""
    seeds: int = 2
    """Number of networks of each kind, which differ in weights and mini-batches; they
    train under vmap."""

    predict: Path | None = None
    """A PNG file with one handwritten digit to recognise. With --out and --resume, the
    networks of a finished run are used without further training."""

    def check(self) -> None:
        """Check that MNIST has as many images as the settings require."""
        for name, most in IMAGES.items():
            if getattr(self, name) > most:
                raise ValueError(
                    f"{name} must be at most {most}, as MNIST has no more images; got "
                    f"{getattr(self, name)}."
                )


def main(config: Config) -> report.Result:
    """Train networks; write test errors, and print them with published test errors."""
    load = cache(data.mnist)
    picture = None if config.predict is None else ask.read_picture(config.predict)
    jobs, finish = partial(_jobs, load=load), partial(_finish, load=load, shown=picture)
    return run_study(
        "images", config, jobs, finish, free=("predict",), check=lambda _: load()
    )


def _jobs(config: Config, load) -> list[Job]:
    counts = config.train, config.test
    parts = [
        (images[:count], labels[:count])
        for (images, labels), count in zip(load(), counts, strict=True)
    ]
    return [
        Job(name, _steps(config, name)[0], partial(_train, config, name, *parts))
        for name in config.networks
    ]


def _finish(folder: Path, config: Config, rows: list[Row], load, shown) -> None:
    images_report.show(rows, config)
    report.save_picture(folder, "images", images_report.draw_curves(rows))
    test = tuple(part[: config.test] for part in load().test)
    mistakes = images_report.draw_mistakes(rows, test)
    caption = (
        "First mistakes of each network. The arrow points from the true digit to the "
        "predicted one."
    )
    alt = f"A row of wrongly read digits for each network. {caption}"
    report.save_picture(folder, "mistakes", mistakes, alt=alt, caption=caption)
    ask.save(config, folder, rows, load().train[0][: config.train], test[0])
    if shown is not None:
        ask.show(config, folder, shown)


def _steps(config: Config, name: str) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    steps = config.full_batch_epochs
    if name != "full_batch":
        steps = max(1, round(config.epochs * config.train / config.batch))
    chunk = -(-steps // config.looks)
    return chunk * -(-steps // chunk), chunk


def _train(config: Config, name: str, train, test, way: Way) -> Row:
    """Train one kind of network from all seeds together; return its row of results."""
    network = make_network(
        name,
        rule=config.rule, static_rule=config.static_rule,
        lookback=config.lookback, units=config.units,
    )  # fmt: skip
    steps, chunk = _steps(config, name)
    whole = name == "full_batch"
    update = config.full_batch_update if whole else config.update
    rate = config.full_batch_rate if whole else config.learning_rate
    key = jax.random.key(config.first_seed)
    keys = jax.random.split(jax.random.fold_in(key, 1), config.seeds)
    params = jax.jit(jax.vmap(network.init))(keys)
    classify = jax.jit(jax.vmap(partial(_classify, network), in_axes=(0, None)))
    epochs = lambda step: step * (1 if whole else config.batch / config.train)

    def look(step, metrics):
        said = _say(classify, metrics["params"], test[0])
        return {"epochs": epochs(step), "test_error": _errors(said, test[1])}

    result = way.fit(
        network.rule,
        choices.make_update(update, rate, steps=steps),
        params,
        jax.tree.map(jnp.asarray, train),
        steps=steps,
        chunk=chunk,
        sample=None if whole else partial(_sample, config.batch),
        key=jax.random.fold_in(key, 2) if network.draws or not whole else None,
        runs=config.seeds,
        look=look,
        over=(0, 0),
    )
    said = _say(classify, result.params, test[0])
    wrong = np.flatnonzero(said[0] != test[1])[:SHOWN]
    return {
        "rule": config.rule if name == "gru_rows" else config.static_rule,
        "update": update,
        "params": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        "steps": result.steps,
        "epochs": epochs(result.steps),
        "test_error": _errors(said, test[1]),
        "nonfinite_step": np.asarray(result.nonfinite_step).tolist(),
        "curve": way.curve(),
        "mistakes": [[int(i), int(said[0, i])] for i in wrong],
        **time_taken(result),
        "temp_bytes": result.temp_bytes,
    }


def _sample(batch: int, key: jax.Array, train: tuple) -> tuple:
    chosen = jax.random.randint(key, (batch,), 0, len(train[1]))
    return jax.tree.map(lambda part: part[chosen], train)


def _classify(network: Network, params, images):
    return jnp.argmax(network.logits(params, images), axis=-1)


def _say(classify, params, images: np.ndarray) -> np.ndarray:
    """Return the labels that each seed's network predicts for N images, [seeds, N]."""
    parts = range(0, len(images), PART)
    said = [np.asarray(classify(params, images[i : i + PART])) for i in parts]
    return np.concatenate(said, axis=1)


def _errors(said: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the test error of each seed in percent."""
    return (100 * np.mean(said != labels, axis=1)).tolist()
