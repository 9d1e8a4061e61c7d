"""Online prediction of chaotic series: errors, and cosines to exact RTRL.

A tanh network reads the first coordinate of a chaotic system, and predicts its next
value. The parameters θ are updated at every time step. After each episode (a fixed
number of time steps), the state h and the influence ∂h/∂θ are set to zero. The study
measures two things. The first is the NMSE, the mean squared prediction error divided by
the variance of the series. The second is the cosine between each rule's gradient and
the gradient of exact RTRL. During training by the rule, both gradients are computed at
the current parameters.

The cosine is measured only in some episodes. Exact RTRL runs only in these episodes,
which is possible because the influence starts from zero in each episode. The gradients
are averaged over the batch. Gradients in the readout's parameters are left out, because
all rules compute them exactly. Cosines are averaged over the second
half of an episode, because the first steps have little history. In bpvariants, KF-RTRL
and UORO differentiate the last time step exactly, so they are closer to RTRL than in
their published forms.

The command for the sizes of the published table is `python -m experiments
online_learning --steps 15000 --seeds 10`.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import report
from experiments.harness.jobs import Job, Way
from experiments.harness.options import above, at_least, known
from experiments.harness.study import run_study, Study
from experiments.online import (
    _dynamical_systems,
    _online_learning_report,
    _predictor,
    _rules,
)
from experiments.online._predictor import Learner

# Rank 4, as in the published table.
RULES = _rules.RULES | {"sketched_rtrl": partial(gradients.sketched_rtrl, rank=4)}


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which online rules predict chaotic series well, with gradients close to RTRL's?

    Results on Hénon, Mackey–Glass and Lorenz are compared with published results.
    """

    QUICK = {
        "systems": ("henon", "lorenz"),
        "rules": ("rtrl", "snap_1", "uoro"),
        "truncations": ((25, 25),),
        "units": 8,
        "batch": 4,
        "steps": 1000,
        "compared": 3,
        "seeds": 2,
    }
    CHECKS = {
        "units batch steps episode compared": at_least(1),
        "systems": known(_dynamical_systems.SYSTEMS),
        "rules": known(RULES),
        "learning_rate": above(0),
    }

    systems: tuple[str, ...] = tuple(_dynamical_systems.SYSTEMS)
    """Chaotic systems: henon, mackey_glass, lorenz."""
    rules: tuple[str, ...] = tuple(RULES)
    """Online rules: rtrl, snap_1, rflo, kf_rtrl, uoro, sketched_rtrl of rank 4."""
    random_feedback: bool = True
    """Whether to also run RFLO with random feedback, as published, in addition to RFLO
    with the readout's weights as feedback."""
    truncations: tuple[tuple[int, int], ...] = ((25, 25), (1, 25))
    """Pairs (every, lookback) of truncated BPTT: once in `every` steps, gradients are
    propagated back `lookback` steps and the parameters are updated."""
    units: int = 64
    """Number of hidden units of the tanh network."""
    batch: int = 8
    """Number of streams of one system in a mini-batch."""
    steps: int = 5000
    """Number of updates by online rules, a multiple of `episode`; 15,000 in the
    published table."""
    episode: int = 200
    """Number of time steps of an episode, after which state and influence are set to
    zero."""
    compared: int = 5
    """Number of episodes in which the cosine is measured. These episodes are evenly
    spaced, and include the last one."""
    learning_rate: float = 1e-3
    """Learning rate of Adam, for all rules."""
    seeds: int = 3
    """Number of independent networks and streams, trained together under vmap; 10 in
    the published table."""

    def check(self) -> None:
        """Check that `episode` divides `steps`, and each `every` divides `episode`."""
        if self.steps % self.episode:
            raise ValueError(
                f"steps must be a multiple of episode={self.episode}, got {self.steps}."
            )
        for every, lookback in self.truncations:
            if not 1 <= every <= lookback or self.episode % every:
                raise ValueError(
                    "truncations must be pairs (every, lookback) with 1 ≤ every ≤ "
                    "lookback, and every must "
                    f"divide episode={self.episode}; got {(every, lookback)}."
                )


def main(config: Config) -> report.Result:
    """Train on each system by each rule; print our results and published results."""
    return run_study("online_learning", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job (training) for each rule and system."""
    series = cache(partial(episodes, config))

    def train(rule, learner, system, way):
        row = _train(config, learner, series(system), way)
        return {"rule": rule, "system": system} | row

    return [
        Job(f"{rule}, {system}", config.steps, partial(train, rule, learner, system))
        for rule, learner in learners(config).items()
        for system in config.systems
    ]


def _finish(folder: Path, config: Config, rows: list[dict[str, Any]]) -> None:
    _online_learning_report.show(rows, config)
    picture = _online_learning_report.draw_errors(rows)
    report.save_picture(folder, "errors", picture)
    if _online_learning_report.cosines(rows):
        picture = _online_learning_report.draw_cosines(rows)
        report.save_picture(folder, "cosines", picture)


def episodes(config: Config, system: str) -> np.ndarray:
    """Split the series of a system into episodes of T time steps.

    The result has the shape [episodes, seeds, T + 1, batch]. An episode has T + 1
    values, because its last value is only a target. This value is also the first value
    of the next episode.
    """
    streams, seed = config.seeds * config.batch, config.first_seed
    u = _dynamical_systems.series(system, config.steps + 1, streams, seed)
    count = config.steps // config.episode
    starts = config.episode * np.arange(count)[:, None]
    u = u[starts + np.arange(config.episode + 1)[None]]
    u = u.reshape(count, -1, config.seeds, config.batch)
    return u.swapaxes(1, 2).astype(np.float32)


def learners(config: Config) -> dict[str, Learner]:
    """Return {name of a rule: learner}: first online rules, then truncated BPTT."""
    network = _predictor.step, _predictor.loss
    adam = optax.adam(config.learning_rate)
    chosen = {}
    rules = {name: RULES[name] for name in config.rules}
    if config.random_feedback:
        feedback = gradients.random_feedback(
            jax.random.key(3 * config.first_seed + 2),
            jnp.zeros(()),
            jnp.zeros(config.units),
        )
        rules["rflo_random"] = partial(gradients.rflo, feedback=feedback)
    for name, make in rules.items():
        exact = None if name == "rtrl" else gradients.rtrl(*network)
        chosen[name] = _predictor.online(make(*network), adam, exact)
    for every, lookback in config.truncations:
        rule = gradients.truncated_bptt(
            *network, every=every, lookback=lookback, update=adam
        )
        chosen[f"truncated_bptt, {report.window(lookback, every)}"] = (
            _predictor.windows(rule)
        )
    return chosen


def _train(
    config: Config, learner: Learner, data: np.ndarray, way: Way
) -> dict[str, Any]:
    """Train on one system by one rule; return a row of results.

    After Ctrl-C, the row has the results of the finished episodes.
    """
    first = 3 * config.first_seed
    keys = jax.random.split(jax.random.key(first + 1), config.seeds)
    params = jax.vmap(lambda key: _predictor.init(key, config.units))(
        jax.random.split(jax.random.key(first), config.seeds)
    )
    adam = optax.adam(config.learning_rate)
    pair = params, jax.vmap(adam.init)(params)
    at = np.unique(np.linspace(0, len(data), config.compared + 1)[1:].astype(int) - 1)
    values, cosines, seconds, cut_short = [], [], [], False
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
            way.advance((i + 1) * config.episode)
    except KeyboardInterrupt:
        if not values:
            raise
        cut_short = True
    curve = np.stack(values, axis=1)
    timed = seconds[1:]  # the first episode may include compilation
    row = {
        "nmse": curve[:, -5:].mean(axis=1).tolist(),
        "curve": curve.tolist(),
        "curve_steps": (config.episode * (1 + np.arange(curve.shape[1]))).tolist(),
        "cosines": _by_seed(cosines),
        "cosine_steps": (config.episode * (1 + at[: len(cosines)])).tolist(),
        "ms_per_step": 1000 * float(np.median(timed)) / config.episode
        if timed
        else None,
    }
    return row | ({"cut_short": True} if cut_short else {})


def _by_seed(cosines: list[np.ndarray]) -> list[list[float]] | None:
    """Return the cosines as lists [seeds][episodes], or None if all cosines are NaN."""
    if not cosines or np.isnan(cosines).all():
        return None
    return np.stack(cosines, axis=1).tolist()
