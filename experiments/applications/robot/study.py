"""Study `robot`: the next move along a wall, by networks with and without memory.

Static networks see one frame of the sensors. Recurrent ones see one frame at a time
too, and keep a state: the claim is that they need fewer units for the same task.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.robot import (
    baselines,
    networks,
    report as robot_report,
)
from experiments.harness import options
from experiments.harness.jobs import check_resume, Job, open_run, run_jobs, Way
from experiments.networks import windows


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks to steer a robot along a wall, beside classifiers."""

    networks: tuple[str, ...] = (
        "mlp-6", "mlp-32", "tanh-4", "tanh-16", "gru-4", "gru-16", "lstm-16",
    )  # fmt: skip
    """Kinds and units: mlp, which sees one frame, tanh, gru, lstm."""
    inputs: tuple[str, ...] = ("sensors", "two")
    """What they see: all 24 sensors, or the distances to the front and to the left."""
    rule: str = "bptt"
    """Where gradients come from: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """How many frames errors travel back, by rules that truncate within a window."""
    update: str = "adam"
    """What is done with gradients: adam, sgd, forgetting, rprop, …"""
    learning_rate: float | None = 1e-2
    """At first; it falls to 0 along a cosine, but for the Rprop family."""
    dropout: float = 0.0
    """Share of units that the readout does not see, drawn at each step."""
    streams: int = 12
    """Parts of the training frames that are read side by side."""
    window: int = 48
    """Frames of each stream that an update is of; errors do not travel further."""
    steps: int = 1500
    """Updates."""
    chunk: int = 100
    """Updates between two looks at the test part."""
    tune: bool = False
    """Test on frames 2728 to 4091, the validation part, and learn from those before: to
    choose settings without a look at the test part."""
    seeds: int = 5
    """Networks of each kind, of different weights, under vmap."""
    seed: int = 0
    """The first of them."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/robot-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("lookback", "streams", "window", "steps", "chunk", "seeds")
        options.check_at_least_one(self, *sizes)
        options.check_known("inputs", self.inputs, networks.INPUTS)
        options.check_known("update", self.update, choices.UPDATES)
        for name in self.networks:
            networks.read_name(name)
        if not self.networks or not self.inputs:
            raise ValueError("networks and inputs must each name at least one.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        learned = networks.VALIDATION if self.tune else networks.TEST
        if self.streams * (2 * self.window - 1) > learned:
            raise ValueError(
                f"streams={self.streams} and window={self.window} need "
                f"{self.streams * (2 * self.window - 1)} frames to learn from, and "
                f"there are {learned}: take fewer streams or a shorter window."
            )
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train, test, show it beside others' figures, and write it."""
    small = {"networks": ("mlp-32", "gru-16"), "inputs": ("two",), "seeds": 2}
    config = options.at_quick_size(config, **small, steps=400, chunk=200)
    config, folder = open_run("robot", config, check=lambda _: data.wall_following())
    start, jobs = time.perf_counter(), []
    for inputs in config.inputs:
        frames = networks.load(inputs, config.tune)
        for model, say in baselines.BASELINES.items():
            given = partial(_baseline, inputs, model, say, frames)
            jobs.append(Job(f"{inputs}, {model}", 1, given))
        for name in config.networks:
            train = partial(_train, config, inputs, name, frames)
            jobs.append(Job(f"{inputs}-{name}", config.steps, train))
    rows, interrupted = run_jobs(folder, jobs)
    if rows:
        robot_report.show(rows, config)
        robot_report.save_pictures(folder, rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _baseline(
    inputs: str, model: str, say, frames: networks.Frames, way: Way
) -> dict[str, Any]:
    """Return the row of a classifier."""
    row: dict[str, Any] = {"inputs": inputs, "model": model}
    row |= _scored(frames, say(frames)[None])
    way.advance(1)
    return row


def _train(
    config: Config, inputs: str, name: str, frames: networks.Frames, way: Way
) -> dict[str, Any]:
    """Train one kind of network from all seeds; return its row."""
    network = networks.make_network(name, frames.xs.shape[1])
    wrong = lambda y, action: (jnp.argmax(y, axis=-1) != action).astype(jnp.float32)
    window = frames.score_window()
    params, trained = windows.train(
        config,
        way,
        network,
        windows.Windows(
            frames.xs[: frames.first],
            frames.actions[: frames.first],
            config.streams,
            config.window,
            keeps=True,
            seed=config.seed,
        ),
        windows.Scores(network._replace(loss=wrong), window),
        best=False,
    )
    row: dict[str, Any] = {"inputs": inputs, "model": name, **trained}
    row["epochs"] = config.steps * config.streams * config.window / frames.first
    return row | _scored(frames, networks.say(network, params, window))


def _scored(frames: networks.Frames, said: np.ndarray) -> dict[str, Any]:
    """Return accuracies in percent, [seeds], and whom the first took for whom."""
    actions = frames.actions[frames.first :]
    counts = report.confusion(actions, said[0], len(data.ACTIONS))
    right = 100 * np.mean(said == actions, axis=1)
    return {
        "accuracy": right.tolist(),
        "of": len(actions),
        "confusion": counts.tolist(),
        "said": said[0].tolist(),
    }
