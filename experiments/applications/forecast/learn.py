"""Training of networks of `forecast` on windows of the past.

Networks are trained in pairs: a network and its twin. The network trains without the
validation part. The number of updates with its lowest validation loss is selected. The
twin also trains on the validation part. The forecasts are made with the twin's
parameters after the selected number of updates.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants.types import PyTree
from experiments import choices
from experiments.applications.forecast.network import (
    Arrays,
    Lane,
    loss,
    losses,
    make_network,
    on_windows,
    say,
)
from experiments.applications.forecast.series import Prepared, Series
from experiments.harness.jobs import time_taken, Way

# Default learning rates of three update rules. The module `choices` has the default
# learning rates of all other update rules.
RATES = {"adam": 5e-3, "adamw": 5e-3, "rmsprop": 2e-3}


class Learned(NamedTuple):
    """Forecasts from the time step `first` on, and entries for the row of results.

    The forecasts `said` are [seeds, time steps to forecast from, H, 3]: a value and the
    two ends of its interval at each of H horizons. The time step `first` is the last
    one before the validation part. The parameters `params` are those of the networks
    that forecast from the last time step.
    """

    said: np.ndarray
    first: int
    row: dict[str, Any]
    params: PyTree


def by_windows(
    config: Any, rule: str, update: str, series: Series, prepared: Prepared, way: Way
) -> Learned:
    """Train networks on windows and forecast, anew for each block of the test part.

    A block is a stretch of the test part. The networks that forecast a block (the
    twins) are trained on all steps before the block.

    Args:
      config: settings of the study.
      rule: name of a gradient rule.
      update: name of an update rule; if it needs the full batch, an update uses all
        windows.
      series: the series to forecast.
      prepared: arrays of the series.
      way: the running job; it saves checkpoints.
    """
    horizons, whole = series.horizons, is_whole(update)
    starts = _block_starts(series, config.blocks)
    steps = config.full_batch_steps if whole else config.steps
    every = -(-steps // config.looks)
    steps = every * config.looks
    arrays = Arrays(prepared.xs, prepared.z, prepared.known)
    network = make_network(config.cell, arrays.xs.shape[1], config.units, len(horizons))
    draws = choices.draws(rule)
    learn = on_windows(
        choices.make_rule(rule, network.step, loss, lookback=config.lookback),
        network, horizons, warm=config.warm, span=config.span, every=every, draws=draws,
    )  # fmt: skip
    key = jax.random.key(config.first_seed)
    held_out = series.test - series.validation
    cuts = np.array([[start - held_out, start] for start in starts])  # [blocks, 2]
    drawn = jax.vmap(network.init)(jax.random.split(key, config.seeds))
    params, lane = _lanes(drawn, cuts, config.looks)
    given = jax.tree.map(jnp.asarray, tuple(arrays))
    if whole:
        given = (jnp.arange(0, max(starts), config.span), *given)
    result = way.fit(
        learn,
        choices.make_update(
            update, config.learning_rate or RATES.get(update),
            steps=None if whole else steps,
        ),
        params,
        given,
        steps=steps,
        chunk=every,
        sample=None if whole else partial(_sample, config.batch),
        key=jax.random.fold_in(key, 1) if draws or not whole else None,
        carry=lane,
        runs=len(lane.cut),
    )  # fmt: skip
    shape = (*cuts.shape, config.seeds)
    apart = lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:])
    kept = jax.tree.map(apart, result.carry.kept)
    scores = [
        _validate(config, network, series, arrays, kept, block, cuts[block])
        for block in range(len(starts))
    ]  # validation losses of each block, [seeds, looks]
    best = np.stack([np.argmin(score, axis=1) for score in scores])
    row = {
        "params": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        "steps": result.steps,
        "stopped_after": (every * (best[0] + 1)).tolist(),
        "validation": np.min(scores[0], axis=1).tolist(),
        **time_taken(result),
        "nonfinite_step": np.asarray(result.nonfinite_step).tolist(),
    }
    said, first, last = _walk(config, network, series, arrays, kept, best, starts)
    return Learned(said, first, row, last)


def _lanes(drawn: PyTree, cuts: np.ndarray, looks: int) -> tuple[PyTree, Lane]:
    """Return params and carry of all lanes (networks that are trained side by side).

    Lanes are ordered by block, then network or twin, then seed.

    Args:
      drawn: initial params of each seed.
      cuts: [blocks, 2], first time step that the network and its twin may not use.
      looks: number of times that params are saved during training.
    """
    seeds = len(jax.tree.leaves(drawn)[0])
    shape = (*cuts.shape, seeds)
    runs = int(np.prod(shape))
    spread = lambda leaf: jnp.broadcast_to(leaf, (*cuts.shape, *leaf.shape)).reshape(
        runs, *leaf.shape[1:]
    )
    params = jax.tree.map(spread, drawn)
    empty = lambda leaf: jnp.zeros((runs, looks, *leaf.shape[1:]))
    kept = jax.tree.map(empty, params)
    cut = jnp.asarray(np.broadcast_to(cuts[..., None], shape).reshape(runs))
    return params, Lane(cut, jnp.zeros(runs, int), kept)


def _block_starts(series: Series, blocks: int) -> list[int]:
    """Return the first time step of each block of the test part.

    For a CSV file, one more block begins after the last row; its networks forecast the
    rows after the end of the file.
    """
    rows = len(series.values)
    borders = np.linspace(series.test, rows, blocks + 1)[:-1].astype(int)
    return [*borders.tolist(), *([rows] if series.name == "csv" else [])]


def check_known(series: Series, blocks: int) -> None:
    """Check that each block's validation part and the test part have a known value.

    Raises:
      ValueError: if one of these parts has no known value.
    """
    held_out = series.test - series.validation
    starts = _block_starts(series, blocks)
    parts = [(start - held_out, start) for start in starts]
    for begin, end in [*parts, (series.test, len(series.values))]:
        if not np.isfinite(series.values[begin:end]).any():
            raise ValueError(
                f"{series.title} has no number in rows {begin} to {end - 1}, counted "
                "from 0; networks are to be chosen or tested on these rows."
            )


def is_whole(update: str) -> bool:
    """Return whether an update rule needs the full batch, as most Rprop variants do."""
    resilient = not choices.UPDATES[update].of_gradients or update == "manhattan"
    return resilient and update != "probabilistic_rprop"


def _sample(batch: int, key: jax.Array, arrays: tuple) -> tuple:
    """Draw starts of windows, as fractions of the steps that a network may use."""
    return (jax.random.uniform(key, (batch,)), *arrays)


def _validate(config, network, series, arrays, kept, block, cuts) -> np.ndarray:
    """Return the validation losses [seeds, looks] of the networks of one block."""
    first = max(0, cuts[0] - 4 * config.warm)
    mine = jax.tree.map(lambda leaf: leaf[block, 0], kept)
    shape = jax.tree.leaves(mine)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), mine)
    xs, z = arrays.xs[first : cuts[1]], arrays.z[first : cuts[1]]
    said = say(network, len(series.horizons), flat, xs)
    target = np.arange(first, cuts[1])[:, None] + np.array(series.horizons)
    counts = arrays.known[first : cuts[1]] & (target >= cuts[0]) & (target < cuts[1])
    errors = np.asarray(losses(said, z[None]))
    means = np.sum(errors * counts, axis=(1, 2)) / counts.sum()
    return np.nan_to_num(means, nan=np.inf).reshape(shape)


def _walk(config, network, series, arrays, kept, best, starts) -> tuple:
    """Forecast the validation part by networks, and each block by its twins.

    Forecasts begin at the last step before a part. Returns the forecasts, the first
    step to forecast from, and the params of the last twins.
    """
    begins = np.array([series.validation, *starts]) - 1
    lanes = [(0, 0), *((block, 1) for block in range(len(starts)))]
    first = max(0, begins[0] - 4 * config.warm)
    seeds = np.arange(config.seeds)
    parts, chosen = [], None
    ends = [*begins[1:], len(arrays.xs)]
    for (block, twin), begin, end in zip(lanes, begins, ends, strict=True):
        chosen = jax.tree.map(
            lambda leaf, at=(block, twin): leaf[*at, seeds, best[at[0]]], kept
        )
        said = say(network, len(series.horizons), chosen, arrays.xs[first:])
        parts.append(np.asarray(said)[:, begin - first : end - first])
    return np.concatenate(parts, axis=1), int(begins[0]), chosen
