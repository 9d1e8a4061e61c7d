"""A trained model of `language` that continues a text."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments import data
from experiments.applications.language import characters
from experiments.harness import models, novelty
from experiments.networks.recurrent import Network

READS = {"text": str}
LENGTHS = (16, 32, 64, 128)  # lengths of a text for which distances are calibrated
WARM = 4  # number of characters at the start of a text that are not scored
CHUNKS = 600  # number of chunks of training text that a new text is compared with
WRITTEN = 200  # number of characters of an answer
UNSEEN = 12.0  # loss of a character that is not in the training text, nats


def make_predict(saved: models.Saved) -> Callable[[str], models.Answer]:
    """Return a function that continues a text, given as a string.

    The continuation has 200 characters. The same text has the same continuation.
    The last 128 characters of the text are read. Characters that are not in the
    training text are left out, and make the text less like the training text. A text
    of fewer than 16 characters has no distance.
    """
    own = saved.settings
    alphabet = own["alphabet"]
    cell, units, embedding = own["network"]
    network = characters.make_network(cell, units, embedding, len(alphabet))
    params = jax.tree.map(jnp.asarray, saved.params["network"])
    places = {each: i for i, each in enumerate(alphabet)}

    def predict(text: str) -> models.Answer:
        known = np.array([places[each] for each in text if each in places], np.int32)
        if not known.size:
            raise ValueError(f"the text has no character of the training text: {text}")
        read = np.zeros(LENGTHS[-1], np.int32)
        known = known[-len(read) :]
        read[-len(known) :] = known
        there = np.arange(len(read)) >= len(read) - len(known)
        written = _writer(network)(params, read, there, own["temperature"])
        value = "".join(alphabet[i] for i in written)
        lengths = [length for length in LENGTHS if length <= len(text)]
        if not lengths:
            return models.Answer(value)
        part = text[-lengths[-1] :]
        numbers = np.array([[places.get(each, -1) for each in part]], np.int32)
        views = {"nats": _nats(network, params, numbers)}
        calibrated = saved.params["novelty"].get(str(lengths[-1]), {})
        return models.answer(saved, value, None, views, calibrated)

    return predict


def _nats(network: Network, params: Any, texts: np.ndarray) -> np.ndarray:
    """Return the mean loss of each of N texts [N, T] in nats per character, [N, 1].

    The characters are indices, and −1 for a character that is not in the alphabet.
    """
    xs = jnp.asarray(texts.T)
    losses = np.asarray(_losses(network)(params, jnp.maximum(xs, 0)))
    losses = np.where(np.asarray(xs[1:]) < 0, UNSEEN, losses)
    return losses[WARM:].mean(axis=0)[:, None]


@cache
def _writer(network: Network) -> Callable:
    """Return a function (params, read [T], there [T], temperature) -> characters.

    The mask `there` is False at places of `read` that are skipped, not the last.
    """

    def write(params, read, there, temperature):
        def look(carry, inputs):
            x, here = inputs
            new, _ = network.step(params, carry, (x, None))
            pick = lambda new, old: jnp.where(here, new, old)
            return jax.tree.map(pick, new, carry), None

        def draw(state, key):
            carry, logits = network.step(params, state[0], (state[1], None))
            x = jax.random.categorical(key, logits / temperature).astype(jnp.int32)
            return (carry, x), x

        given = read[:-1], there[:-1]
        carry, _ = jax.lax.scan(look, network.zeros(()), given)
        keys = jax.random.split(jax.random.key(0), WRITTEN)
        return jax.lax.scan(draw, (carry, read[-1]), keys)[1]

    return jax.jit(write)


@cache
def _losses(network: Network) -> Callable:
    def step(params, carry, pair):
        carry, y = network.step(params, carry, (pair[0], None))
        return carry, network.loss(y, pair[1])

    def run(params, xs):
        carry = network.zeros(xs.shape[1:])
        return gradients.unroll(step, params, carry, (xs[:-1], xs[1:]))[1]

    return jax.jit(run)


def save(config: Any, folder: Path, text: data.Text, params: Any) -> None:
    """Save the network of the first seed; distances are calibrated on the test text.

    Args:
      config: settings of the run.
      folder: folder of the run.
      text: the text, with a part that is not trained on.
      params: parameters of the network.
    """
    sizes = [config.cell, config.units, config.embedding]
    network = characters.make_network(
        config.cell, config.units, config.embedding, len(text.alphabet)
    )
    calibrated = {}
    enough = len(text.test) // (2 * novelty.FEWEST)
    for length in (length for length in LENGTHS if length <= enough):
        views = [
            {"nats": _nats(network, params, _chunks(part, length))}
            for part in (text.train, text.test)
        ]
        calibrated[str(length)] = novelty.calibrate(*views)
    models.save_model(
        folder,
        "language",
        {"network": params, "novelty": calibrated},
        {
            "network": sizes,
            "alphabet": text.alphabet,
            "temperature": config.temperature,
        },
    )


def _chunks(part: np.ndarray, length: int) -> np.ndarray:
    """Return evenly spaced chunks that do not overlap, [N, length]."""
    count = min(CHUNKS, len(part) // length)
    begins = np.linspace(0, len(part) - length, count).astype(int)
    return part[begins[:, None] + np.arange(length)]
