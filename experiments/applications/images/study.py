"""Study `images`: handwritten digits by four kinds of network.

Static: two perceptrons and a convolutional network. Through time: a GRU that reads an
image row by row. Resilient: the smaller perceptron, by iRprop⁻ on the full batch.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.images import (
    report as images_report,
)
from experiments.applications.images.networks import (
    make_network,
    Network,
    NETWORKS,
    STATIC_RULES,
    StaticRule,
)
from experiments.harness import options
from experiments.harness.jobs import (
    check_resume,
    Job,
    open_run,
    run_jobs,
    time_taken,
    Way,
)

PART = 1000  # test images looked at together
SHOWN = 12  # mistakes that are kept to look at


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks on MNIST, each in its own way, and show them beside LeCun's."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Of mlp_300, mlp_500_150, conv, gru_rows and full_batch, which is mlp_300 by
    another update, on all images at once."""
    rule: str = "bptt"
    """Where gradients of gru_rows come from: bptt, truncated_bptt, artbp, rtrl, …"""
    static_rule: StaticRule = "backprop"
    """Where those of the others do; the rest are kinds of feedback alignment."""
    update: str = "adam"
    """What is done with gradients of mini-batches."""
    learning_rate: float | None = 3e-3
    """Of it, at first; it falls to 0 along a cosine, but for the Rprop family."""
    full_batch_update: str = "irprop_minus"
    """What is done with gradients of full_batch."""
    full_batch_rate: float | None = 1e-3
    """Of it: of the Rprop family, the first steps."""
    lookback: int = 14
    """How many rows errors travel back, by rules that truncate."""
    units: int = 96
    """Of gru_rows."""
    epochs: int = 4
    """How often the images are gone through, in mini-batches drawn at random."""
    full_batch_epochs: int = 35
    """How many updates full_batch takes."""
    batch: int = 128
    """Images of a mini-batch."""
    train: int = 60_000
    """How many of the training images to learn from."""
    test: int = 10_000
    """How many of the test images to look at."""
    looks: int = 8
    """How often at most to look at them on the way; the last look is the result."""
    seeds: int = 2
    """Networks of each kind, of different weights and batches, under vmap."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/images-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("lookback", "units", "epochs", "full_batch_epochs", "batch", "train")
        options.check_at_least_one(self, *sizes, "test", "looks", "seeds")
        for name, most in {"train": 60_000, "test": 10_000}.items():
            if getattr(self, name) > most:
                raise ValueError(
                    f"{name} must be at most {most}, as there are no more images; got "
                    f"{getattr(self, name)}."
                )
        options.check_known("networks", self.networks, NETWORKS)
        options.check_known("static_rule", self.static_rule, STATIC_RULES)
        for name in ("update", "full_batch_update"):
            options.check_known(name, getattr(self, name), choices.UPDATES)
        if not self.networks:
            raise ValueError("networks must name at least one.")
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train each network, show them beside published figures, and write them."""
    quick = {"epochs": 4, "full_batch_epochs": 15, "train": 4000, "test": 1000}
    config = options.at_quick_size(
        config, **quick, units=32, batch=64, looks=2, seeds=1
    )
    start, load = time.perf_counter(), cache(data.mnist)
    config, folder = open_run("images", config, check=lambda _: load())
    train, test = (
        (images[:count], labels[:count])
        for (images, labels), count in zip(
            load(), (config.train, config.test), strict=True
        )
    )
    jobs = [
        Job(name, _steps(config, name)[0], partial(_train, config, name, train, test))
        for name in config.networks
    ]
    rows, interrupted = run_jobs(folder, jobs)
    if rows:
        images_report.show(rows, config)
        report.save_picture(folder, "images", images_report.draw_curves(rows))
        mistakes = images_report.draw_mistakes(rows, test)
        report.save_picture(folder, "mistakes", mistakes)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _steps(config: Config, name: str) -> tuple[int, int]:
    """Return how many updates there are, and after how many to look."""
    steps = config.full_batch_epochs
    if name != "full_batch":
        steps = max(1, round(config.epochs * config.train / config.batch))
    chunk = -(-steps // config.looks)
    return chunk * -(-steps // chunk), chunk


def _train(config: Config, name: str, train, test, way: Way) -> dict[str, Any]:
    """Train a network from all seeds together; return its row."""
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
        draws=network.draws,
        key=jax.random.fold_in(key, 2) if network.draws or not whole else None,
        runs=config.seeds,
        look=look,
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
    """Return what each seed takes the images for, [seeds, N]."""
    parts = range(0, len(images), PART)
    said = [np.asarray(classify(params, images[i : i + PART])) for i in parts]
    return np.concatenate(said, axis=1)


def _errors(said: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the test error of each seed in percent."""
    return (100 * np.mean(said != labels, axis=1)).tolist()
