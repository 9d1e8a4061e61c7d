"""How far errors travel back: tanh, GRU, LSTM and LRU from two starts, on a text.

    φ_k = mean ‖∂ℓ_s/∂h_{s−k}‖ ∝ β^k,        λ_1 = 1/T log ‖J_T ⋯ J_1‖

Each network reads a text, character by character, and guesses the next one. From the
"normal" start recurrent weights are drawn from N(0, 1/n), from the "orthogonal" one
each gate's matrix is orthogonal. An LRU has no matrix, but eigenvalues: those of a
normal matrix fill the unit disc, and so do the LRU's from the first start; from the
second they lie near the unit circle, 0.99 ≤ |λ| ≤ 0.999. The LSTM's forget gates begin
with a bias of 1. Flow and exponents are measured on text that is not trained on,
before and after a short training.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import diagnostics, gradients, training
from bpvariants.cells import lru
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.errors import DataError
from experiments.harness.options import check_at_least_one
from experiments.networks import cells
from experiments.through_time import _flow_report

EMBEDDING = 16
CELLS = (*cells.DENSE, "lru")
STARTS = ("normal", "orthogonal")
RINGS = {"normal": (0.0, 0.999), "orthogonal": (0.99, 0.999)}  # of the LRU's |λ|
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the flow of errors in four cells, from two starts, before and after."""

    text: Literal["python_reference", "tinyshakespeare"] = "python_reference"
    """What to read: the help of the running Python, or Tiny Shakespeare, which is
    fetched once if it is not there."""
    units: int = 64
    """Of each cell; the LRU's are complex."""
    scale: float = 1.0
    """Standard deviation of the characters' embeddings at first. Where inputs are small
    tanh is nearly linear, and the start of its matrix shows."""
    length: int = 100
    """Characters of a window, and so one more than the largest lag."""
    windows: int = 16
    """On which flow and exponents are measured; exponents on five times the length."""
    steps: int = 500
    """Updates by Adam."""
    batch: int = 32
    """Windows of an update, drawn at random."""
    learning_rate: float = 3e-3
    """Of Adam; gradients are clipped to a norm of 1."""
    seeds: int = 3
    """Independent trainings, together."""
    out: Path | None = None
    """Folder to write to; by default runs/flow-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "units", "windows", "steps", "batch", "seeds")
        if self.length < 3:
            raise ValueError(f"length must be at least 3, got {self.length}.")
        for name in ("scale", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")


def main(config: Config) -> report.Result:
    """Measure, train, measure again, show it, and write it to a folder."""
    folder = report.make_folder("flow", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    text = getattr(data, config.text)()
    jobs = [(cell, begin) for cell in CELLS for begin in STARTS]
    try:
        with report.Progress(len(jobs)) as progress:
            for cell in CELLS:
                measure = _measurement(config, cell, text)
                for begin in STARTS:
                    progress.begin(f"{cell}, {begin}", config.steps)
                    for row in _rows(config, cell, begin, text, measure, progress):
                        rows.append(row)
                        report.append_row(folder, row)
    except KeyboardInterrupt:
        interrupted = True
    _flow_report.show(rows, config, text.source)
    if rows:
        report.save_picture(folder, "flow", _flow_report.draw(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _rows(config, cell, begin, text, measure, progress):
    """Yield what is measured before the training, and after."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    draw = partial(init, config, cell, begin, len(text.alphabet))
    params = jax.vmap(draw)(keys)
    about = {"cell": cell, "start": begin}
    yield about | {"trained": 0} | measure(params)
    windows = config.length + 1
    result = training.fit(
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
        key=jax.random.key(1),
        runs=config.seeds,
        log=lambda step, metrics: progress.advance(step),
    )  # fmt: skip
    if result.steps:
        yield about | {"trained": result.steps} | measure(result.params)
    if result.interrupted:
        raise KeyboardInterrupt


def _example(cell, params, begins, length, characters):
    """Return the carry, inputs and targets [T, B] of windows that begin there."""
    at = begins[None] + jnp.arange(length)[:, None]
    given = characters[at]
    one = jax.tree.map(lambda leaf: leaf[0], params)  # of the seeds
    return zeros(cell, one, begins.shape), given[:-1], given[1:]


def _measurement(config, cell, text) -> Callable[[PyTree], dict[str, Any]]:
    """Return the function that measures networks, [seeds], on text to test on."""
    long = 5 * config.length
    last = len(text.test) - long - 1
    if last < 0:
        raise DataError(
            f"length must be at most {(len(text.test) - 1) // 5}, a fifth of the text "
            f"to test on; got {config.length}."
        )
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
    """Return the parameters of a network: an embedding, a cell, and a readout."""
    units = config.units
    embedding, recurrent, square, out = jax.random.split(key, 4)
    if cell == "lru":
        low, high = RINGS[begin]
        params = lru.init(recurrent, EMBEDDING, units, min_radius=low, max_radius=high)
    else:
        params = cells.CELLS[cell].init(recurrent, EMBEDDING, units)
        if begin == "orthogonal":
            shape = params["recurrent"].shape
            params["recurrent"] = cells.orthogonal(square, shape)
    return {
        "embedding": config.scale * jax.random.normal(embedding, (symbols, EMBEDDING)),
        "cell": cells.remembering(cell, params),
        "readout": jax.random.normal(out, (units, symbols)) / units**0.5,
        "bias": jnp.zeros(symbols),
    }


def zeros(cell: str, params: dict[str, Any], batch: tuple[int, ...]) -> PyTree:
    """Return the carry before the first step."""
    return cells.CELLS[cell].carry(params["cell"], batch)


def make_step(cell: str) -> Callable:
    """Return the step of a network: a character goes in, logits come out."""
    advance = cells.CELLS[cell]

    def step(params, carry, x):
        carry, h = advance(params["cell"], carry, params["embedding"][x])
        h = jnp.tanh(h) if cell == "lru" else h  # which is linear so far
        return carry, h @ params["readout"] + params["bias"]

    return step
