"""Task `digits` of `compare`: feed-forward, recurrent and equilibrium networks."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

from bpvariants import gradients, updates
from experiments import data
from experiments.compare.job import Job, Part, Reference, Task
from experiments.compare.kinds import RECURRENT, RESILIENT, STATIC, THROUGH_TIME

CLASSES = 10
BATCH = 128
SIGNS = ("rprop", "irprop", "manhattan")  # updates that use signs of gradients
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def digits(steps: int | None = None) -> Task:
    """Return the task `digits` with its jobs (trainings).

    If `steps` is given, it is the number of updates of every job.
    """
    train, test = data.digits()
    jobs = [
        Job(
            **common,
            kind=f"resilient, {kind}" if update.startswith(SIGNS) else kind,
            update=update,
            optimizer=optimizer,
            steps=steps or own_steps,
        )
        for kind, make in KINDS.items()
        for own_steps, common, optimizers in make(train, test)
        for update, optimizer in optimizers.items()
    ]
    # Logistic regression is fitted in float64, until its loss is minimal. One digit is
    # so near the border between two classes that rounding in float32 would decide its
    # class.
    wide = lambda images, labels: (np.asarray(images, np.float64), labels)
    logistic = LogisticRegression(tol=1e-8, max_iter=1000).fit(*wide(*train))
    scores = {
        "train %": 100 * logistic.score(*wide(*train)),
        "test %": 100 * logistic.score(*wide(*test)),
    }
    return Task(
        name="digits",
        title="Handwritten digits",
        about="UCI digits from scikit-learn, 8×8 pixels, 1347 images to train and 450 "
        "to test in file order, which keeps most writers apart; scores are "
        "accuracies. A static network sees the whole image, a recurrent network reads "
        "it row by row, and an equilibrium layer iterates until it settles. Whenever "
        "an update brings the spectral norm of the layer's recurrent matrix above 0.9, "
        "the matrix is shrunk to that norm.",
        value="training loss (cross entropy, nats)",
        score="test %",
        measure="test accuracy, %",
        higher_is_better=True,
        jobs=jobs,
        parts=[
            Part(STATIC, lambda row: row.kind == "static"),
            Part(RECURRENT, lambda row: "recurrent" in row.kind),
            Part(THROUGH_TIME, lambda row: "through time" in row.kind),
            Part(RESILIENT, lambda row: row.kind == "resilient, static"),
        ],
        references=[Reference("logistic regression", scores)],
        unit=" %",
        limits=(0.0, 100.0),
    )


def _accuracy(predict: Callable[[Any, jax.Array], jax.Array], train, test) -> Callable:
    percent = lambda params, images, labels: (
        100 * jnp.mean(jnp.argmax(predict(params, images), axis=-1) == labels)
    )
    return lambda params: {
        "train %": percent(params, *train),
        "test %": percent(params, *test),
    }


def _dense_init(key: jax.Array, inputs: int, outputs: int, scale: float = 1.0):
    w = jax.random.normal(key, (inputs, outputs)) * scale / inputs**0.5
    return {"w": w, "b": jnp.zeros(outputs)}


def _dense(params, y):
    return y @ params["w"] + params["b"]


def _draw(prepare: Callable) -> Callable:
    """Return a function that draws and prepares a mini-batch of BATCH images."""

    def sample(key, dataset):
        images, labels = dataset
        chosen = jax.random.choice(key, len(labels), (BATCH,), replace=False)
        return prepare(images[chosen], labels[chosen])

    return sample


def _static(train, test):
    layers = [(_dense, jnp.tanh), (_dense, lambda s: s)]

    def init(key):
        first, second = jax.random.split(key)
        return _dense_init(first, 64, 32), _dense_init(second, 32, CLASSES)

    def predict(params, images):
        for (function, activation), theta in zip(layers, params, strict=True):
            images = activation(function(theta, images))
        return images

    common = {
        "network": "MLP 64-32-10",
        "rule": "backprop",
        "gradient": gradients.backprop(layers, cross_entropy),
        "init": init,
        "data": tuple(map(jnp.asarray, train)),
        "evaluate": _accuracy(predict, train, test),
    }
    optimizers = {
        "sgd(1.0)": optax.sgd(1.0),
        "adam(0.02)": optax.adam(0.02),
        "forgetting(0.2, 0.9)": updates.forgetting(0.2, 0.9),
        "rprop_plus(0.01)": updates.rprop_plus(0.01),
        "rprop_minus(0.01)": updates.rprop_minus(0.01),
        "irprop_plus(0.01)": updates.irprop_plus(0.01),
        "irprop_minus(0.01)": updates.irprop_minus(0.01),
        "manhattan(0.002)": updates.manhattan(0.002),
    }
    yield 100, common, optimizers


class _RowReader(nn.Module):
    """A gated recurrent network that reads an image row by row."""

    units: int = 24

    @nn.compact
    def __call__(self, carry, row):
        carry, h = nn.GRUCell(self.units)(carry, row)
        return carry, nn.Dense(CLASSES)(h)


def _rows(train, test):
    network = _RowReader()

    def prepare(images, labels):
        rows = jnp.moveaxis(images.reshape(-1, 8, 8), 1, 0)  # [T, B, 8]
        carry = jnp.zeros((len(images), network.units))
        targets = jnp.broadcast_to(labels, (8, *labels.shape))
        # Only the output after the last row of an image has a loss.
        last = jnp.zeros(targets.shape).at[-1].set(1.0)
        return carry, rows, targets, last

    def init(key):
        return network.init(key, jnp.zeros((1, network.units)), jnp.zeros((1, 8)))

    def predict(params, images):
        carry, rows, *_ = prepare(images, jnp.zeros(len(images), jnp.int32))
        return gradients.unroll(network.apply, params, carry, rows)[1][-1]

    common = {
        "network": "GRU 24 over 8 rows",
        "rule": "bptt",
        "gradient": gradients.bptt(network.apply, cross_entropy),
        "init": init,
        "evaluate": _accuracy(predict, train, test),
    }
    dataset = tuple(map(jnp.asarray, train))
    drawn = {"data": dataset, "sample": _draw(prepare), "batch": f"{BATCH} drawn"}
    stochastic = {
        "sgd(0.5)": optax.sgd(0.5),
        "adam(0.01)": optax.adam(0.01),
        "forgetting(0.1, 0.9)": updates.forgetting(0.1, 0.9),
    }
    yield 300, common | drawn, stochastic
    full = {"data": prepare(*dataset)}
    yield 60, common | full, {"irprop_minus(0.01)": updates.irprop_minus(0.01)}


def _equilibrium(train, test):
    units = 32

    def settle(params, h, x):
        return jnp.tanh(h @ params["recurrent"] + _dense(params["input"], x))

    def init(key):
        keys = jax.random.split(key, 3)
        recurrent = 0.5 * jax.random.normal(keys[0], (units, units)) / units**0.5
        return {
            "recurrent": recurrent,
            "input": _dense_init(keys[1], 64, units),
            "readout": _dense_init(keys[2], units, CLASSES),
        }

    read = lambda params, h: _dense(params["readout"], h)
    start = lambda images: jnp.zeros((len(images), units))

    def predict(params, images):
        h, _ = gradients.fixed_point(settle, params, start(images), images)
        return read(params, h)

    prepare = lambda images, labels: (start(images), images, labels)
    common = {
        "network": "equilibrium layer of 32",
        "rule": "recurrent_backprop",
        "gradient": gradients.recurrent_backprop(settle, cross_entropy, readout=read),
        "init": init,
        "evaluate": _accuracy(predict, train, test),
    }
    dataset = tuple(map(jnp.asarray, train))
    drawn = {"data": dataset, "sample": _draw(prepare), "batch": f"{BATCH} drawn"}
    chosen = {"recurrent": True, "input": False, "readout": False}
    shrink = optax.masked(updates.project_spectral_norm(limit=0.9), chosen)
    safe = lambda optimizer: optax.chain(optimizer, shrink)
    stochastic = {
        "sgd(0.5)": safe(optax.sgd(0.5)),
        "adam(0.005)": safe(optax.adam(0.005)),
    }
    yield 300, common | drawn, stochastic
    full = {"data": prepare(*dataset)}
    yield (
        40,
        common | full,
        {"irprop_minus(0.005)": safe(updates.irprop_minus(0.005))},
    )


KINDS = {"static": _static, "through time": _rows, "recurrent": _equilibrium}
