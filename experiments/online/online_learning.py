"""Predicting chaotic series online: who follows exact RTRL, and who predicts well.

A tanh network sees the first coordinate of a chaotic system and predicts the next one.
It learns at every step; after an episode the state and the influence are put back to
zero. Two things are measured: the error of prediction, in units of the variance of the
series (NMSE), and the cosine of each rule's gradient with that of exact RTRL at the
same parameters, along the course of the rule.

As the influence begins anew at each episode, exact RTRL needs to run beside a rule in
those episodes only in which the cosine is taken. It is that of the parameters that the
carry depends on, of the mean over the batch: the readout's gradient is exact for all. A
cosine is the mean over the second half of an episode, as in its first steps there is
little of a past to get wrong. KF-RTRL and UORO go back through the last step exactly
here, so that they follow RTRL more closely than as published.

At the size of the published table:
`python -m experiments online_learning --steps 15000 --seeds 10`.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import report
from experiments.harness.options import check_at_least_one
from experiments.online import (
    _dynamical_systems,
    _online_learning_report,
    _predictor,
    _rules,
)
from experiments.online._predictor import Learner


@dataclasses.dataclass(frozen=True)
class Config:
    """Predict Hénon, Mackey–Glass and Lorenz online, beside a published table."""

    systems: tuple[str, ...] = tuple(_dynamical_systems.SYSTEMS)
    """Of henon, mackey_glass, lorenz."""
    rules: tuple[str, ...] = tuple(_rules.RULES)
    """Online rules, of those in experiments/online/_rules.py."""
    random_feedback: bool = True
    """Whether to add RFLO with random feedback, which its name means, to that with the
    readout's own weights."""
    truncations: tuple[tuple[int, int], ...] = ((25, 25), (1, 25))
    """Pairs (h′, h) of truncated BPTT: errors travel back h steps, every h′; it learns
    as often."""
    units: int = 64
    """Of the tanh network."""
    batch: int = 8
    """Streams side by side, of one system."""
    steps: int = 5000
    """Updates of online rules, a multiple of episode; 15,000 in the table."""
    episode: int = 200
    """Steps after which state and influence are put back to zero."""
    compared: int = 5
    """Episodes in which the cosine is taken, evenly spread, the last among them."""
    learning_rate: float = 1e-3
    """Of Adam, for all."""
    seeds: int = 3
    """Independent networks and streams, together; 10 in the table."""
    out: Path | None = None
    """Folder to write to; by default runs/online_learning-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(
            self, "units", "batch", "steps", "episode", "compared", "seeds"
        )
        if self.steps % self.episode:
            raise ValueError(
                f"steps must be a multiple of episode={self.episode}, got {self.steps}."
            )
        for every, lookback in self.truncations:
            if not 1 <= every <= lookback or self.episode % every:
                raise ValueError(
                    "truncations must be pairs (h′, h) with 1 ≤ h′ ≤ h, and h′ must "
                    f"divide episode={self.episode}; got {(every, lookback)}."
                )
        unknown = set(self.systems) - set(_dynamical_systems.SYSTEMS)
        if unknown:
            raise ValueError(
                f"systems must be some of {', '.join(_dynamical_systems.SYSTEMS)}; got "
                f"{', '.join(sorted(unknown))}."
            )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )
        _rules.check_rules(self.rules)


def main(config: Config) -> report.Result:
    """Learn each system by each rule, show it beside the published table, write it."""
    folder = report.make_folder("online_learning", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    chosen = learners(config)
    data = {name: episodes(config, name) for name in config.systems}
    try:
        with report.Progress(len(chosen) * len(data)) as progress:
            for rule, learner in chosen.items():
                for system in data:
                    progress.begin(f"{rule}, {system}", config.steps)
                    row, stopped = _row(config, learner, data[system], progress.advance)
                    if row is not None:
                        rows.append({"rule": rule, "system": system} | row)
                        report.append_row(folder, rows[-1])
                    if stopped:
                        raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    _online_learning_report.show(rows, config)
    if rows:
        picture = _online_learning_report.draw_errors(rows)
        report.save_picture(folder, "errors", picture)
    if _online_learning_report.cosines(rows):
        picture = _online_learning_report.draw_cosines(rows)
        report.save_picture(folder, "cosines", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def episodes(config: Config, system: str) -> np.ndarray:
    """Return a series in episodes, [E, seeds, T + 1, batch].

    The last number of one, which it only predicts, is the first of the next.
    """
    streams = config.seeds * config.batch
    u = _dynamical_systems.series(system, config.steps + 1, streams)
    count = config.steps // config.episode
    starts = config.episode * np.arange(count)[:, None]
    u = u[starts + np.arange(config.episode + 1)[None]]
    u = u.reshape(count, -1, config.seeds, config.batch)
    return u.swapaxes(1, 2).astype(np.float32)


def learners(config: Config) -> dict[str, Learner]:
    """Return how to learn by each rule: the online ones, then truncated BPTT."""
    network = _predictor.step, _predictor.loss
    adam = optax.adam(config.learning_rate)
    chosen = {}
    rules = {name: _rules.RULES[name] for name in config.rules}
    if config.random_feedback:
        feedback = gradients.random_feedback(
            jax.random.key(2), jnp.zeros(()), jnp.zeros(config.units)
        )
        rules["rflo_random"] = partial(gradients.rflo, feedback=feedback)
    for name, make in rules.items():
        exact = None if name == "rtrl" else gradients.rtrl(*network)
        chosen[name] = _predictor.online(make(*network), adam, exact)
    for every, lookback in config.truncations:
        rule = gradients.truncated_bptt(
            *network, every=every, lookback=lookback, update=adam
        )
        chosen[f"truncated ({lookback}; {every})"] = _predictor.windows(rule)
    return chosen


def _row(
    config: Config, learner: Learner, data: np.ndarray, advance: Callable[[int], None]
) -> tuple[dict[str, Any] | None, bool]:
    """Learn one system by one rule; return what came out, and if Ctrl-C ended it."""
    keys = jax.random.split(jax.random.key(1), config.seeds)
    params = jax.vmap(lambda key: _predictor.init(key, config.units))(
        jax.random.split(jax.random.key(0), config.seeds)
    )
    adam = optax.adam(config.learning_rate)
    pair = params, jax.vmap(adam.init)(params)
    at = np.unique(np.linspace(0, len(data), config.compared + 1)[1:].astype(int) - 1)
    values, cosines, seconds, stopped = [], [], [], False
    try:
        for i, u in enumerate(data):
            start = time.perf_counter()
            run = learner.compare if i in at else learner.learn
            of_episode = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            pair, value, cosine = run(pair, u, of_episode)
            values.append(np.asarray(value, float))
            if i in at:
                cosines.append(np.asarray(cosine, float))
            if run is learner.learn:
                seconds.append(time.perf_counter() - start)
            advance((i + 1) * config.episode)
    except KeyboardInterrupt:
        stopped = True
    if not values:
        return None, stopped
    curve = np.stack(values, axis=1)
    timed = seconds[1:]  # without the first, in which the program may be compiled
    return {
        "nmse": curve[:, -5:].mean(axis=1).tolist(),
        "curve": curve.tolist(),
        "curve_steps": (config.episode * (1 + np.arange(curve.shape[1]))).tolist(),
        "cosines": _by_seed(cosines),
        "cosine_steps": (config.episode * (1 + at[: len(cosines)])).tolist(),
        "ms_per_step": 1000 * float(np.median(timed)) / config.episode
        if timed
        else None,
    }, stopped


def _by_seed(cosines: list[np.ndarray]) -> list[list[float]] | None:
    """Return cosines [seeds][episodes]; None if none were taken."""
    if not cosines or np.isnan(cosines).all():
        return None
    return np.stack(cosines, axis=1).tolist()
