"""Study `control`: policies learned through differentiable physics.

    s_{t+1} = f(s_t, π_θ(s_t)),     dL/ds_t = ∂ℓ_t/∂s_t + dL/ds_{t+1} J_{t+1}

A simulator that can be differentiated is a step like that of a recurrent network, with
the state of the system for a carry, and every gradient rule learns a policy in it.
Policies are judged from starts that were not trained from, beside LQR near the goal and
iLQR, which plans each episode by itself.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.control import pictures, policy, report as control_report
from experiments.applications.control.judge import by_seed, judge, percent
from experiments.applications.control.mechanics import System
from experiments.applications.control.systems import SYSTEMS
from experiments.harness import options
from experiments.harness.jobs import (
    check_resume,
    Job,
    open_run,
    run_jobs,
    time_taken,
    Way,
)

SHOWN = 24  # episodes in a picture
RULES = ("bptt", "truncated_bptt", "forward_gradient", "pes")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train policies through differentiable physics, and measure how good they are."""

    system: tuple[str, ...] = tuple(SYSTEMS)
    """Of pendulum (its motor is too weak to lift it at once), cartpole (a cart that
    swings up its pole) and arm (two links that reach for a place)."""
    rule: tuple[str, ...] = RULES
    """Where gradients come from: bptt, truncated_bptt, forward_gradient, pes, …"""
    update: str = "adam"
    """What is done with them, clipped to a norm of 1 but for the Rprop family."""
    learning_rate: float | None = 3e-3
    """At first; it falls to 0 along a cosine, but for the Rprop family."""
    lookback: int = 10
    """How many steps of 0.05 s errors travel back, by rules that truncate."""
    directions: int = 4
    """In which forward_gradient looks, and how many pairs pes plays."""
    sigma: float = 0.03
    """How far pes moves the parameters."""
    window: int = 10
    """After how many steps it moves them elsewhere."""
    units: int = 32
    """Of each of a policy's two layers."""
    batch: int = 64
    """Episodes of an update, from random starts."""
    steps: int | None = None
    """Updates; by default those that each system needs."""
    horizon: int | None = None
    """Steps of an episode to train on; by default as each system needs it."""
    looks: int = 10
    """How often to look at new starts on the way."""
    judged: int = 256
    """Starts that policies are judged by, which are the same for all."""
    compared: int = 8
    """Starts that are given to LQR, and to iLQR."""
    seeds: int = 2
    """Policies, of different weights and episodes, under vmap."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/control-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("lookback", "directions", "window", "units", "batch", "steps")
        sizes += ("horizon", "looks", "judged", "compared", "seeds")
        options.check_at_least_one(self, *sizes)
        options.check_known("system", self.system, SYSTEMS)
        options.check_known("update", self.update, choices.UPDATES)
        if not (self.system and self.rule):
            raise ValueError("system and rule must each name at least one.")
        for rule in self.rule:
            _make_rule(self, rule, SYSTEMS["pendulum"])
        if self.compared > self.judged:
            raise ValueError(
                f"compared must be at most judged, {self.judged}; got {self.compared}."
            )
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train each policy by each rule, judge it, and show and write what it does."""
    quick = {"system": ("pendulum",), "rule": ("truncated_bptt",), "steps": 600}
    config = options.at_quick_size(config, **quick, looks=3, seeds=1, compared=4)
    config, folder = open_run("control", config)
    start = time.perf_counter()
    jobs = [
        Job(
            f"{name}-{rule}",
            _steps(config, name)[0],
            partial(_train, config, name, rule),
        )
        for name in config.system
        for rule in config.rule
    ]
    rows, interrupted = run_jobs(folder, jobs)
    for name in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == name]
        control_report.show(name, mine, config)
        _draw(folder, name, mine)
    if rows:
        report.save_picture(folder, "learning", control_report.draw_curves(rows))
        report.save_picture(folder, "flow", control_report.draw_flow(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _steps(config: Config, name: str) -> tuple[int, int]:
    """Return how many updates there are, and after how many to look."""
    steps = config.steps or SYSTEMS[name].updates
    chunk = -(-steps // config.looks)
    return chunk * -(-steps // chunk), chunk


def _make_rule(config: Config, rule: str, system: System):
    return choices.make_rule(
        rule, policy.make_step(system), policy.make_loss(system),
        lookback=config.lookback, directions=config.directions,
        sigma=config.sigma, window=config.window,
    )  # fmt: skip


def _train(config: Config, name: str, rule: str, way: Way) -> dict[str, Any]:
    """Train the policies of all seeds together, judge them; return their row."""
    system, (steps, chunk) = SYSTEMS[name], _steps(config, name)
    key = jax.random.key(config.first_seed)
    draw, batches, looks, judged = (jax.random.fold_in(key, i) for i in range(4))
    keys = jax.random.split(draw, config.seeds)
    params = jax.jit(jax.vmap(partial(policy.init, system, config.units)))(keys)
    episodes = partial(policy.episodes, system)
    seen = episodes(config.judged, system.judged, looks)
    horizon = config.horizon or system.horizon
    beginning = system._replace(start=system.begin)

    def sample(key, _):
        start, goals = policy.episodes(beginning, config.batch, horizon, key)
        return start, goals, goals

    def look(step, metrics):
        played = policy.many(system, metrics["params"], *seen)
        return {"cost": by_seed(played.costs), "success": percent(played.success)}

    result = way.fit(
        _make_rule(config, rule, system),
        choices.make_update(config.update, config.learning_rate, steps=steps),
        params,
        (),
        steps=steps,
        chunk=chunk,
        sample=sample,
        draws=choices.draws(rule),
        key=batches,
        runs=config.seeds,
        look=look,
    )
    policy.save(way.folder / f"policy-{way.job}.npz", result.params)
    test = episodes(config.judged, system.judged, judged)
    return {
        "system": name,
        "rule": rule,
        "update": config.update,
        "params": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        "steps": result.steps,
        "horizon": horizon,
        **judge(config, system, params, result.params, test),
        "nonfinite_step": np.asarray(result.nonfinite_step).tolist(),
        "curve": way.curve(),
        **time_taken(result),
        "temp_bytes": result.temp_bytes,
    }


def _draw(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Draw episodes of one system: portraits of all rules, and of the best a film."""
    system = SYSTEMS[name]
    key = jax.random.key(SHOWN)  # starts that have no part in any figure
    start, goals = policy.episodes(system, SHOWN, system.judged, key)
    played = {}
    for row in rows:
        params = policy.load(folder / f"policy-{row['job']}.npz")
        first = jax.tree.map(lambda leaf: leaf[0], params)
        shown = policy.play(system, first, start, goals)
        played[row["rule"]] = jax.tree.map(np.asarray, shown)
    goals = np.asarray(goals)
    portrait = pictures.draw_portraits(name, played, goals)
    report.save_picture(folder, name, portrait)
    best = max(rows, key=lambda row: (row["success"][0], -row["cost"][0]))["rule"]
    movie = folder / f"{name}.gif"
    pictures.save_movie(movie, name, best, played[best], goals)
