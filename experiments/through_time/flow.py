"""Gradient flow through time in tanh, GRU, LSTM and LRU networks, on a text.

    φ_k = mean ‖∂ℓ_s/∂h_{s−k}‖ ∝ β^k,        λ_1 = 1/T log ‖J_T ⋯ J_1‖

Here ℓ_s is the loss of step s, and h_{s−k} is the carry k steps before. The mean norm
of the loss's gradient in this carry is φ_k, and the factor per step in an exponential
fit to φ_k is β. The largest Lyapunov exponent λ_1 of the carry is computed from the
Jacobians J_t = ∂h_t/∂h_{t−1} of T steps.

Each network reads a text character by character, and predicts the next character. The
two initialisations are "normal" and "orthogonal". With "normal", recurrent weights are
drawn from N(0, 1/n) for n units; with "orthogonal", each gate's recurrent matrix is
orthogonal. An LRU has eigenvalues instead of a recurrent matrix. With "normal", the
LRU's eigenvalues are uniform in the unit disc, like the eigenvalues of a large matrix
from N(0, 1/n). With "orthogonal", the absolute values of the LRU's eigenvalues are
between 0.99 and 0.999. Initial biases of the LSTM's forget gates are 1. The quantities
φ_k, β and λ_1 are measured on held-out text, before and after a short training.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, diagnostics, gradients
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import cells as cell_table
from experiments.through_time import _flow_report

EMBEDDING = 16
EXPONENTS = 5  # number of windows to measure Lyapunov exponents on
CELLS = (*cell_table.DENSE, "lru")
STARTS = ("normal", "orthogonal")
# {initialisation: (least, greatest) absolute value of the LRU's initial eigenvalues}.
RINGS = {"normal": (0.0, 0.999), "orthogonal": (0.99, 0.999)}
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How fast do gradients vanish backwards in time in four recurrent cells?"""

    QUICK: ClassVar = {
        "cells": ("tanh", "lru"),
        "units": 16,
        "length": 30,
        "windows": 4,
        "steps": 50,
        "batch": 8,
        "seeds": 1,
    }
    CHECKS: ClassVar = {
        "cells": all_of(given, known(CELLS)),
        "units windows steps batch": at_least(1),
        "length": at_least(3),
        "scale learning_rate": above(0),
    }

    text: Literal["python_reference", "tinyshakespeare"] = "python_reference"
    """Text to train on: the help topics of the running Python, or Tiny Shakespeare,
    which is downloaded once."""
    cells: tuple[str, ...] = CELLS
    """Cells to train, from tanh, gru, lstm and lru."""
    units: int = 64
    """Number of units of each cell; the units of the LRU are complex."""
    scale: float = 1.0
    """Standard deviation of the initial character embeddings. If it is small, the tanh
    network is nearly linear, so the initialisation of its recurrent matrix matters
    more."""
    length: int = 100
    """Number of characters in a window. Gradients are measured up to length − 1 steps
    back."""
    windows: int = 16
    """Number of windows to measure gradients on. Lyapunov exponents are measured on
    windows that are five times as long."""
    steps: int = 500
    """Number of Adam updates."""
    batch: int = 32
    """Number of windows in a mini-batch, drawn at random."""
    learning_rate: float = 3e-3
    """Learning rate of Adam; gradients are clipped to a norm of 1."""
    seeds: int = 3
    """Number of independent training runs, under one vmap."""


def main(config: Config) -> report.Result:
    """Measure gradient flow before and after training; print and write the results."""
    return run_study("flow", config, _jobs, _finish, check=_check)


def _check(config: Config) -> None:
    """Raise a DataError if the text is too short for the windows."""
    text = getattr(data, config.text)()
    longest = (len(text.test) - 1) // EXPONENTS
    if config.length > longest:
        raise DataError(
            f"length must be at most {longest}, a fifth of the held-out text; got "
            f"{config.length}."
        )


def _jobs(config: Config) -> list[Job]:
    """Return one job (training) for each cell and each initialisation."""
    text = getattr(data, config.text)()
    jobs = []
    for cell in config.cells:
        measure = _measurement(config, cell, text)
        for begin in STARTS:
            train = partial(_rows, config, cell, begin, text, measure)
            jobs.append(Job(f"{cell}-{begin}", config.steps, train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _flow_report.show(rows, config, getattr(data, config.text)().source)
    report.save_picture(folder, "flow", _flow_report.draw(rows))


def _rows(config, cell, begin, text, measure, way: Way) -> list[Row]:
    """Train one cell; return one row of measurements before and one after training."""
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    draw = partial(init, config, cell, begin, len(text.alphabet))
    params = jax.vmap(draw)(keys)
    about = {"cell": cell, "start": begin}
    before = about | {"trained": 0} | measure(params)
    windows = config.length + 1
    result = way.fit(
        gradients.bptt(make_step(cell), cross_entropy),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate)),
        params,
        jnp.asarray(text.train),
        steps=config.steps,
        chunk=min(50, config.steps),
        sample=lambda key, characters: _example(
            cell, params, jax.random.randint(
                key, (config.batch,), 0, len(characters) - windows
            ), windows, characters
        ),
        key=jax.random.key(config.first_seed + 1),
        runs=config.seeds, over=(0, 1, 1),
    )  # fmt: skip
    return [before, about | {"trained": result.steps} | measure(result.params)]


def _example(cell, params, begins, length, characters):
    """Return the carry, inputs [T, B] and targets [T, B] of windows of a text.

    The windows begin at the characters with the indices `begins`.
    """
    at = begins[None] + jnp.arange(length)[:, None]
    given = characters[at]
    one = jax.tree.map(lambda leaf: leaf[0], params)  # parameters of the first seed
    return zeros(cell, one, begins.shape), given[:-1], given[1:]


def _measurement(config, cell, text) -> Callable[[PyTree], dict[str, Any]]:
    """Return a function (params) -> measurements of all seeds' networks.

    The networks are measured on held-out text.
    """
    long = EXPONENTS * config.length
    last = len(text.test) - long - 1
    begins = jnp.linspace(0, last, config.windows).astype(int)
    characters = jnp.asarray(text.test)
    step = make_step(cell)

    @jax.jit
    @jax.vmap
    def measured(params):
        alone = jax.tree.map(lambda leaf: leaf[None], params)
        carry, xs, targets = _example(cell, alone, begins, long + 1, characters)
        parts = xs[: config.length], targets[: config.length]
        flow = diagnostics.gradient_flow(step, cross_entropy, params, carry, *parts)
        spectrum = diagnostics.jacobian_spectrum(
            step, params, carry, xs, skip=config.length, power_iterations=1,
            batch_shape=begins.shape,
        )  # fmt: skip
        _, ys = gradients.unroll(step, params, carry, xs)
        bits = jnp.mean(cross_entropy(ys, targets)) / jnp.log(2)
        return flow, jnp.mean(spectrum.exponents[:, 0]), bits

    def measure(params):
        flow, exponents, bits = jax.tree.map(np.asarray, measured(params))
        of_seed = lambda i: jax.tree.map(lambda leaf: leaf[i], flow)
        return {
            "bits": bits.tolist(),
            "beta": flow.beta.tolist(),
            "lookback": flow.lookback.tolist(),
            "verdict": [of_seed(i).verdict for i in range(config.seeds)],
            "exponent": exponents.tolist(),
            "curve": flow.curve.tolist(),
        }

    return measure


def init(
    config: Config, cell: str, begin: str, symbols: int, key: jax.Array
) -> dict[str, Any]:
    """Draw the parameters of a network: an embedding, a cell, and a readout."""
    units = config.units
    embedding, recurrent, square, out = jax.random.split(key, 4)
    if cell == "lru":
        low, high = RINGS[begin]
        params = cells.lru.init(
            recurrent, EMBEDDING, units, min_radius=low, max_radius=high
        )
    else:
        params = cell_table.CELLS[cell].init(recurrent, EMBEDDING, units)
        if begin == "orthogonal":
            shape = params["recurrent"].shape
            params["recurrent"] = cell_table.orthogonal(square, shape)
    return {
        "embedding": config.scale * jax.random.normal(embedding, (symbols, EMBEDDING)),
        "cell": cell_table.remembering(cell, params),
        "readout": jax.random.normal(out, (units, symbols)) / units**0.5,
        "bias": jnp.zeros(symbols),
    }


def zeros(cell: str, params: dict[str, Any], batch: tuple[int, ...]) -> PyTree:
    """Return the initial carry of a cell."""
    return cell_table.CELLS[cell].carry(params["cell"], batch)


def make_step(cell: str) -> Callable:
    """Return a network's step, from a character to the logits of the next character."""
    advance = cell_table.CELLS[cell]

    def step(params, carry, x):
        carry, h = advance(params["cell"], carry, params["embedding"][x])
        h = jnp.tanh(h) if cell == "lru" else h  # the LRU is linear
        return carry, h @ params["readout"] + params["bias"]

    return step
