"""A trained model of `robot` that predicts the action after some sensor frames."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import training
from experiments import data
from experiments.applications.robot import networks
from experiments.harness import models, novelty
from experiments.harness.errors import DataError
from experiments.harness.jobs import Row, Way
from experiments.networks import windows

PREFERRED = "gru-16"  # the network that answers, if it is trained; else the last one
SENSORS = 24


def read_frames(path: str | Path) -> np.ndarray:
    """Read sensor frames from a CSV file without a header: 24 numbers in each row.

    Further columns, such as the action in the data set, are ignored.

    Raises:
      DataError: if the file cannot be read, or has other rows.
    """
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(SENSORS))
    except (OSError, ValueError) as error:
        raise DataError(
            f"--csv: {path} cannot be read: {error}. It must have {SENSORS} numbers in "
            "each row, separated by commas, and no header."
        ) from error


READS = {"csv": read_frames}


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that predicts the action after the last of some frames.

    The argument is an array [T, 24] of the sensors' distances in metres, in order of
    time; T may be 1.
    """
    name, inputs = saved.settings["network"], saved.settings["inputs"]
    mean, sd = saved.params["mean"], saved.params["sd"]
    network = networks.make_network(name, len(mean))
    params = jax.tree.map(jnp.asarray, saved.params["network"])

    def predict(x: Any) -> models.Answer:
        frames = np.asarray(x, float)
        if frames.ndim != 2 or frames.shape[1] != SENSORS or not len(frames):
            raise ValueError(f"frames must be [T, 24], got {list(frames.shape)}.")
        if not np.all(np.isfinite(frames)):
            raise ValueError("frames must have finite distances, got NaN or inf.")
        xs = ((networks.INPUTS[inputs](frames) - mean) / sd).astype(np.float32)
        likely = _likely(network, params, xs)[-1]
        best = int(likely.argmax())
        views = {"frame": xs[-1:]}
        return models.answer(saved, data.ACTIONS[best], float(likely[best]), views)

    return predict


def _likely(network: networks.Network, params: Any, xs: np.ndarray) -> np.ndarray:
    """Return the probabilities of actions at each frame, [T, actions]."""
    return np.asarray(_compiled(network)(params, jnp.asarray(xs)))


@cache
def _compiled(network: networks.Network) -> Callable:
    def run(params, xs):
        step = lambda carry, x: network.step(params, carry, (x[None], None))
        _, ys = jax.lax.scan(step, network.zeros((1,)), xs)
        return jax.nn.softmax(ys[:, 0])

    return jax.jit(run)


def save(config: Any, folder: Path, rows: list[Row]) -> None:
    """Save the GRU of 16 units, or else the last trained network, on its inputs.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
    """
    inputs = config.inputs[0]
    trained = [
        row["model"] for row in rows if row["inputs"] == inputs and "steps" in row
    ]
    if not trained:
        return
    name = PREFERRED if PREFERRED in trained else trained[-1]
    frames = networks.load(inputs, config.tune)
    network = networks.make_network(name, frames.xs.shape[1])
    where = Way(f"{inputs}-{name}", folder).checkpoints
    _, params = training.read_checkpoint(where, windows.init(config, network))
    raw = networks.INPUTS[inputs](data.wall_following().readings)[: frames.first]
    views = {"frame": frames.xs[: frames.first]}, {"frame": frames.xs[frames.first :]}
    models.save_model(
        folder,
        "robot",
        {
            "network": jax.tree.map(lambda leaf: leaf[0], params),
            "mean": raw.mean(axis=0),
            "sd": raw.std(axis=0),
            "novelty": novelty.calibrate(*views),
        },
        {"network": name, "inputs": inputs},
    )
