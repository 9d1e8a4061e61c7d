"""Study `robot`: a robot's next action, by networks with and without memory.

A static network predicts the action from one frame of the sensors. A recurrent network
reads one frame at a time too, but keeps a state. The study tests the published claim
that recurrent networks need fewer units than static networks.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.robot import (
    ask,
    baselines,
    networks,
    report as robot_report,
)
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import all_of, at_least, given, known, within
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import windows


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Do networks with memory need fewer units to predict a robot's next action?"""

    QUICK = {
        "networks": ("mlp-32", "gru-16"), "inputs": ("two",), "seeds": 2, "steps": 400,
        "chunk": 200,
    }  # fmt: skip
    CHECKS = {
        "lookback streams window steps chunk": at_least(1),
        "networks": given,
        "inputs": all_of(given, known(networks.INPUTS)),
        "update": known(choices.UPDATES),
        "dropout": within(0, 1, ends="[)"),
    }

    networks: tuple[str, ...] = (
        "mlp-6", "mlp-32", "tanh-4", "tanh-16", "gru-4", "gru-16", "lstm-16",
    )  # fmt: skip
    """Networks, written kind-units; the kinds are mlp (sees one frame), tanh, gru,
    lstm."""
    inputs: tuple[str, ...] = ("sensors", "two")
    """Inputs: sensors (all 24), or two (the distances to the front and to the left)."""
    rule: str = "bptt"
    """Gradient rule: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """Number of frames that truncated gradient rules go back in a window."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, rprop, …"""
    learning_rate: float | None = 1e-2
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    dropout: float = 0.0
    """Dropout rate of units before the readout; each time step has a new mask."""
    streams: int = 12
    """Number of parts that the training frames are split into; they are read in
    parallel."""
    window: int = 48
    """Number of frames that an update reads from each stream; gradients are propagated
    back through these frames only."""
    steps: int = 1500
    """Number of updates."""
    chunk: int = 100
    """Number of updates between two evaluations on the test part."""
    tune: bool = False
    """Test on the validation part (frames 2728 to 4091) after training on the frames
    before it, to choose settings."""
    seeds: int = 5
    """Number of networks of each kind, which differ in their initial weights; they
    train under vmap."""

    def check(self) -> None:
        """Check the names of networks, and that there are enough training frames."""
        for name in self.networks:
            networks.read_name(name)
        learned = networks.VALIDATION if self.tune else networks.TEST
        if self.streams * (2 * self.window - 1) > learned:
            raise ValueError(
                f"streams={self.streams} and window={self.window} need "
                f"{self.streams * (2 * self.window - 1)} training frames, but there "
                f"are {learned}: take fewer streams or a shorter window."
            )


def main(config: Config) -> report.Result:
    """Train and test networks; write and print accuracies, with published results."""
    check = lambda _: data.wall_following()
    return run_study("robot", config, _jobs, _finish, check=check)


def _jobs(config: Config) -> list[Job]:
    jobs = []
    for inputs in config.inputs:
        frames = networks.load(inputs, config.tune)
        for model, say in baselines.BASELINES.items():
            given = partial(_baseline, inputs, model, say, frames)
            jobs.append(Job(f"{inputs}, {model}", 1, given))
        for name in config.networks:
            train = partial(_train, config, inputs, name, frames)
            jobs.append(Job(f"{inputs}-{name}", config.steps, train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    robot_report.show(rows, config)
    robot_report.save_pictures(folder, rows)
    ask.save(config, folder, rows)


def _baseline(inputs: str, model: str, say, frames: networks.Frames, way: Way) -> Row:
    """Test a baseline; return its row of results."""
    row: Row = {"inputs": inputs, "model": model}
    row |= _scored(frames, say(frames)[None])
    way.advance(1)
    return row


def _train(
    config: Config, inputs: str, name: str, frames: networks.Frames, way: Way
) -> Row:
    """Train one kind of network from all seeds together; return its row of results."""
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
            seed=config.first_seed,
        ),
        windows.Scores(network._replace(loss=wrong), window),
        best=False,
    )
    row: Row = {"inputs": inputs, "model": name, **trained}
    row["epochs"] = config.steps * config.streams * config.window / frames.first
    return row | _scored(frames, networks.say(network, params, window))


def _scored(frames: networks.Frames, said: np.ndarray) -> Row:
    """Return each seed's accuracy in percent, and the first seed's confusion matrix."""
    actions = frames.actions[frames.first :]
    counts = report.confusion(actions, said[0], len(data.ACTIONS))
    right = 100 * np.mean(said == actions, axis=1)
    return {
        "accuracy": right.tolist(),
        "of": len(actions),
        "confusion": counts.tolist(),
        "said": said[0].tolist(),
    }
