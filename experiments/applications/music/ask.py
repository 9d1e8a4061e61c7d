"""A trained model of `music` that predicts the next notes of a piece."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data
from experiments.applications.music import midi
from experiments.applications.music.networks import make_network
from experiments.harness import models, novelty
from experiments.networks.recurrent import Network

READS = {"midi": Path}
LENGTH = 24  # number of steps by which a piece is compared with training pieces
LEARNED = 1000  # number of training parts that a piece is compared with


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that predicts the notes that sound after a piece.

    The argument is the path of a MIDI file, or a list of sets of MIDI numbers, one set
    for each step. The value of the answer is a tuple of MIDI numbers: all keys that
    sound with a probability above ½, or else the most probable key. The probability is
    that of all 88 keys together. A piece of fewer than 24 steps has no distance.
    """
    own = saved.settings
    network = make_network(own["cell"], own["units"])
    params = jax.tree.map(jnp.asarray, saved.params["network"])

    def predict(x: str | Path | Iterable[Iterable[int]]) -> models.Answer:
        path = isinstance(x, str | Path)
        piece = midi.read_midi(Path(x), own["per_beat"]) if path else x
        roll = data.to_roll(piece).astype(np.uint8)
        if not len(roll):
            raise ValueError("the piece has no steps: give one with some notes.")
        _, logits = _run(network, params, roll[None])
        likely = 1 / (1 + np.exp(-logits[0, -1]))
        keys = np.flatnonzero(likely > 0.5)
        keys = keys if keys.size else np.array([likely.argmax()])
        sounds = np.isin(np.arange(data.KEYS), keys)
        probability = float(np.prod(np.where(sounds, likely, 1 - likely)))
        value = tuple((data.LOWEST + keys).tolist())
        if len(roll) < LENGTH:
            return models.Answer(value, probability)
        views = _views(network, params, roll[None, -LENGTH:])
        return models.answer(saved, value, probability, views)

    return predict


def _run(
    network: Network, params: Any, rolls: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses [N, T − 1] and the outputs [N, T, 88] of N parts of pieces."""
    losses, ys = _compiled(network)(params, rolls)
    return np.asarray(losses).T, np.asarray(ys).swapaxes(0, 1)


@cache
def _compiled(network: Network) -> Callable:
    def run(params, rolls):
        step = lambda carry, x: network.step(params, carry, (x, None))
        xs = jnp.swapaxes(rolls, 0, 1)
        _, ys = jax.lax.scan(step, network.zeros(xs.shape[1:2]), xs)
        return network.loss(ys[:-1], xs[1:]), ys

    return jax.jit(run)


def _views(network: Network, params: Any, rolls: np.ndarray) -> novelty.Views:
    """Return the vectors by which parts of pieces are compared, rolls [N, T, 88].

    The vectors are the mean loss per step after the first quarter of the steps, and
    the mean and the largest number of keys that sound.
    """
    losses, _ = _run(network, params, rolls)
    count = rolls.sum(axis=2)
    sounds = np.stack([count.mean(axis=1), count.max(axis=1)], axis=1)
    return {"nats": losses[:, LENGTH // 4 :].mean(axis=1)[:, None], "keys": sounds}


def _cut(rolls: Sequence[np.ndarray]) -> np.ndarray:
    """Return evenly chosen parts of pieces that do not overlap, [N, 24, 88]."""
    parts = [
        roll[i : i + LENGTH]
        for roll in rolls
        for i in range(0, len(roll) - LENGTH + 1, LENGTH)
    ]
    chosen = np.linspace(0, len(parts) - 1, min(LEARNED, len(parts))).astype(int)
    return np.array([parts[i] for i in chosen]).reshape(-1, LENGTH, data.KEYS)


def save(
    folder: Path,
    network: Network,
    params: Any,
    parts: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    settings: dict[str, Any],
) -> None:
    """Save a network of a run.

    Args:
      folder: folder of the run.
      network: the network.
      params: its parameters.
      parts: piano rolls of the training pieces, and of pieces not trained on.
      settings: cell, number of units, and steps in a beat.
    """
    rolls = [_cut(part) for part in parts]
    calibrated = {}
    if len(rolls[1]) >= 2 * novelty.FEWEST:
        views = [_views(network, params, each) for each in rolls]
        calibrated = novelty.calibrate(*views)
    saved = {"network": params, "novelty": calibrated}
    models.save_model(folder, "music", saved, settings)
