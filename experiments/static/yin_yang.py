"""Yin-Yang: how much accuracy is lost without the exact gradient of the lower layers?

The points of a Yin-Yang symbol are divided into three classes: yin, yang, and the two
dots. A linear classifier cannot learn this, and random weights below the output layer
are clearly worse than trained ones, so the task shows within minutes whether a rule
trains the lower layers. The rules are:

- backprop: the exact gradient;
- frozen: only the output layer is trained;
- linear: a network without a hidden layer;
- fa, dfa, usf, brsf and frsf: feedback alignment, see `gradients.feedback_alignment`;
- rbp and jfb: the hidden layer also has connections within itself and settles at a
  fixed point; the gradient is that of recurrent backpropagation, or Jacobian-free;
- ep: equilibrium propagation in such a network, with symmetric connections.

The data and the settings of the network 4-30-3 are those of Kriener, Göltz and
Petrovici 2022, doi:10.1145/3517343.3517380; those of 4-120-3 are from a later table of
the same data. Test accuracies of both sources are shown for comparison. The activation
(relu) and the initial weights are a choice of this study.
"""

import dataclasses
import itertools
import math
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import training
from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import all_of, at_least, given, known
from experiments.harness.placement import local_devices
from experiments.harness.study import run_study, Study
from experiments.static import _yin_yang_report
from experiments.static._yin_yang_runs import (
    make_network,
    make_run,
    RULES,
    Setting,
    SETTLING,
)

# {network: (units of its hidden layers, learning rate of Adam)}.
NETWORKS = {
    "4-30-3": ((30,), 0.01),
    "4-120-3": ((120,), 0.001),
    "4-30-30-3": ((30, 30), 0.01),
}
SETTLES = (30,)  # units of the network that settles
# Number of networks that settle in a block of a sweep. They take minutes, and a stopped
# run goes on after the last block.
BLOCK = 10
LARGEST = 64  # number of feed-forward networks in a block
CHUNK = 10  # number of epochs between two points of a learning curve
SIDE = 96  # the regions of the classes are shown on SIDE × SIDE points


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which approximate gradients train lower layers, on Yin-Yang data?"""

    QUICK = {"networks": ("4-30-3",), "epochs": 20, "seeds": 5}
    QUICK |= {"rules": ("backprop", "frozen", "linear", "fa")}
    CHECKS = {
        "networks": all_of(given, known(NETWORKS)),
        "rules": all_of(given, known(RULES)),
        "epochs": at_least(1),
    }

    networks: tuple[str, ...] = ("4-30-3", "4-120-3")
    """Networks to train, from 4-30-3, 4-120-3 and 4-30-30-3, named by their numbers of
    units. The learning rate of 4-120-3 is 0.001, that of the others 0.01."""
    rules: tuple[str, ...] = RULES
    """Rules to train by. The rules rbp, jfb and ep train a network with 30 units
    that settles, and are left out for the networks 4-120-3 and 4-30-30-3."""
    epochs: int = 300
    """Number of passes through the 5000 training points, in batches of 20."""
    seeds: int = 20
    """Number of runs of each rule, with different initial weights and batches. They
    train together under one vmap; those of rbp, jfb and ep under two."""


def main(config: Config) -> report.Result:
    """Train all networks by all rules; show test accuracies beside published ones."""
    return run_study("yin_yang", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    return [
        Job(f"{name} {rule}", _chunks(config, rule), partial(_row, config, name, rule))
        for name in config.networks
        for rule in config.rules
        if NETWORKS[name][0] == SETTLES or rule not in SETTLING
    ]


def _chunks(config: Config, rule: str) -> int:
    """Return how often the sweep of a rule says how far it is."""
    chunks, blocks = math.ceil(config.epochs / CHUNK), config.seeds / _block(rule)
    return chunks * math.ceil(blocks)


def _block(rule: str) -> int:
    """Return the largest number of networks that train together under one vmap."""
    return BLOCK if rule in SETTLING else LARGEST


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _yin_yang_report.show(rows, config)
    text = _yin_yang_report.markdown(rows)
    report.write_atomically(folder / "table.md", text)
    report.save_picture(folder, "accuracy", _yin_yang_report.draw_accuracy(rows))
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == name]
        picture = _yin_yang_report.draw_regions(mine)
        report.save_picture(
            folder, f"regions-{name}", picture, alt=_yin_yang_report.describe(mine),
            caption=f"Network {name}: the regions of the classes after one run of each "
            "rule. The points are misclassified test points.",
        )  # fmt: skip


def _row(config: Config, name: str, rule: str, way: Way) -> Row:
    """Train all seeds by one rule; return accuracies, angles and learning curves."""
    hidden, rate = NETWORKS[name]
    setting = Setting(rule, hidden, rate)
    way.checkpoints.mkdir(parents=True, exist_ok=True)
    began, chunks = time.perf_counter(), itertools.count(1)
    result = training.sweep(
        make_run,
        [setting],
        range(config.first_seed, config.first_seed + config.seeds),
        steps=config.epochs,
        chunk=min(CHUNK, config.epochs),
        block=min(config.seeds, _block(rule)),
        devices=local_devices(None),
        path=way.checkpoints / "runs.jsonl",
        curves=True,
        progress=lambda *_: way.advance(next(chunks)),
    )
    if result.interrupted:
        raise KeyboardInterrupt
    seconds = time.perf_counter() - began
    of = lambda field: [_or_none(row[field]) for row in result.rows]
    row = {"network": name, "rule": rule, "rate": rate}
    row |= {field: of(field) for field in ("accuracy", "angle", "loss", "status")}
    row |= {"epochs": result.rows[0]["curve"]["step"], "seconds": seconds}
    row["validation"] = [run["curve"]["validation"] for run in result.rows]
    return row | _regions(config, setting)


def _or_none(value: float | str) -> float | str | None:
    """Replace NaN by None, which JSON can store."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _regions(config: Config, setting: Setting) -> Row:
    """Train the first seed once more; return its classes on a grid, as digits.

    A sweep returns no parameters, so the run is repeated. It begins with the weights of
    the first seed, and its accuracy may differ from that of the sweep by rounding.
    """
    network = make_network(setting.rule, setting.hidden)
    xs, ys = np.meshgrid(*2 * [(np.arange(SIDE) + 0.5) / SIDE])
    points = jnp.asarray(np.stack([xs, ys, 1 - xs, 1 - ys], axis=-1), jnp.float32)

    @jax.jit
    def train(key):
        state, advance, evaluate = make_run(setting, key)
        state = jax.lax.fori_loop(
            0, config.epochs, lambda t, state: advance(state, t)[0], state
        )
        logits = network.logits(state[0], points.reshape(-1, 4))
        return jnp.argmax(logits, axis=-1), evaluate(state)["accuracy"]

    classes, score = train(jax.random.key(config.first_seed))
    digits = "".join(map(str, np.asarray(classes).tolist()))
    return {"regions": digits, "regions_accuracy": float(score)}
