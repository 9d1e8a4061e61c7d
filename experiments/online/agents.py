"""Agents that act and learn at every step, with and without credit through time.

An actor–critic of recurrent trace units learns from each step once: no replay, no
batch. Its gradients are those of `gradients.diagonal_rtrl`, which is exact through time
up to changes of the parameters, or of truncated BPTT with a lookback of few steps. The
tasks need memory: MemoryChain asks for a bit after N steps, cart and pole are observed
without velocities. The pendulum needs no memory.

References:
  Elsayed et al., "Streaming deep reinforcement learning finally works", 2024,
  arXiv:2410.14606.
  Elelimy et al., "Real-time recurrent learning using trace units in reinforcement
  learning", NeurIPS 2024, arXiv:2409.01449.
"""

import dataclasses
import itertools
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, within
from experiments.harness.study import run_study, Study
from experiments.online import _agents_report
from experiments.online._agent_rules import make_rules
from experiments.online._agent_worlds import is_world, make_world, World
from experiments.online._streaming_agent import (
    lambda_returns,
    Record,
    run,
    Settings,
)

POINTS = 40  # number of points of a learning curve
LAST = 0.1  # share of the steps, at the end, in which an agent is scored
CHOOSING = 977  # settings are chosen on seeds that are derived from this number


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Does an agent that learns at every step need credit through time?"""

    QUICK = {
        "worlds": ("chain_2",),
        "steps": 4000,
        "seeds": 2,
        "choosing_seeds": 1,
        "frozen": False,
        "decays": (0.0,),
        "units": 4,
        "hidden": 4,
        "timed_steps": 2000,
    }
    CHECKS = {
        "units hidden choosing_seeds": at_least(1),
        "steps timed_steps": at_least(POINTS),
        "lookbacks": at_least(1),
        "decays": all_of(given, within(0, 1, ends="[)")),
        "entropies": all_of(given, at_least(0)),
        "rate max_angle actor_kappa": above(0),
        "discount": within(0, 1, ends="[)"),
        "min_radius max_radius": within(0, 1, ends="[)"),
    }

    worlds: tuple[str, ...] = ("chain_8", "chain_128")
    """Environments: chain_N (MemoryChain of length N), cartpole (without velocities),
    pendulum."""
    lookbacks: tuple[int, ...] = (1,)
    """Lookbacks of truncated BPTT, beside diagonal_rtrl: numbers of steps that
    gradients are propagated back."""
    frozen: bool = True
    """A control, too: agents whose recurrent parameters stay as drawn, so that only the
    layers after a fixed random memory learn."""
    units: int = 16
    """Number of recurrent trace units of each network."""
    hidden: int = 16
    """Number of units of the hidden layer of each network."""
    min_radius: float = 0.97
    """Smallest factor by which the state of a unit decays per step, before learning."""
    max_radius: float = 0.975
    """Largest factor by which the state of a unit decays per step, before learning."""
    max_angle: float = 0.02
    """Largest rotation of a unit per step, in radians, before learning."""
    actor_kappa: float = 1.0
    """Factor κ in the bound of the actor's step size; the paper has 3."""
    steps: int = 400_000
    """Number of steps of each agent."""
    rate: float = 1.0
    """Step size α, before its bound."""
    discount: float = 0.99
    """Discount γ of later rewards."""
    decays: tuple[float, ...] = (0.0,)
    """Decays λ of the traces to choose from."""
    entropies: tuple[float, ...] = (0.01,)
    """Factors τ of the policy's entropy to choose from."""
    seeds: int = 5
    """Number of agents with different parameters, run together under vmap."""
    choosing_seeds: int = 2
    """Number of further agents for each setting, with which settings are chosen."""
    timed_steps: int = 100_000
    """Number of steps over which the speed is measured."""

    def check(self) -> None:
        """Check the names of the environments, and the radii."""
        wrong = [name for name in self.worlds if not is_world(name)]
        if wrong or not self.worlds:
            raise ValueError(
                "worlds must be some of cartpole, pendulum and chain_N with a length "
                f"N, such as chain_8; got {', '.join(wrong) or 'none'}."
            )
        if self.min_radius >= self.max_radius:
            raise ValueError(
                f"min_radius must be below max_radius, got {self.min_radius} and "
                f"{self.max_radius}."
            )


def main(config: Config) -> report.Result:
    """Let agents learn in each environment by each rule; print returns and speed."""
    return run_study("agents", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    rules = make_rules(config.lookbacks, frozen=config.frozen)
    jobs = [
        Job(f"{world}, {rule}", config.steps, partial(_learn, config, world, rule))
        for world in config.worlds
        for rule in rules
    ]
    learning = make_rules(config.lookbacks)
    timed = [(rule, lanes) for rule in learning for lanes in (1, config.seeds)]
    jobs += [
        Job(
            f"speed, {rule}, {lanes} agents",
            config.timed_steps,
            partial(_speed, config, rule, lanes),
        )
        for rule, lanes in dict.fromkeys(timed)
    ]
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _agents_report.show(rows, config)
    if any("curve" in row for row in rows):
        report.save_picture(folder, "agents", _agents_report.draw(rows))


def _learn(config: Config, name: str, rule: str, way: Way) -> Row:
    """Choose settings with some agents, then let new agents learn with them."""
    world = make_world(name)
    make_rule = make_rules(config.lookbacks, frozen=config.frozen)[rule]
    choices = list(itertools.product(config.decays, config.entropies))
    agent = partial(_agent, config, world, make_rule)
    key = jax.random.key(config.first_seed)
    if len(choices) > 1:
        keys = jax.random.split(
            jax.random.fold_in(key, CHOOSING), config.choosing_seeds
        )
        grid = jax.jit(jax.vmap(jax.vmap(agent, (None, 0)), (0, None)))
        scores = [_score(each) for each in _each(grid(jnp.array(choices), keys))]
        chosen = choices[int(np.argmax(np.mean(scores, axis=1)))]
    else:
        scores, (chosen,) = [], choices
    keys = jax.random.split(key, config.seeds)
    records = jax.jit(jax.vmap(agent, (None, 0)))(jnp.array(chosen), keys)
    way.advance(config.steps)
    return {
        "world": name,
        "rule": rule,
        "steps": config.steps,
        "decay": chosen[0],
        "entropy": chosen[1],
        "tried": [float(np.mean(score)) for score in scores],
        "score": _score(records),
        "rarest": [rarest_answer(record, world.actions) for record in _each(records)],
        "curve": [mean_returns(record) for record in _each(records)],
        "explained": [
            _explained(record, world, config.discount) for record in _each(records)
        ],
    }


def _agent(config: Config, world: World, make_rule, setting, key) -> Record:
    settings = Settings(
        config.rate, config.rate, setting[0], config.discount, setting[1],
        config.units, config.hidden, config.min_radius, config.max_radius,
        config.max_angle, config.actor_kappa,
    )  # fmt: skip
    return run(world, make_rule, settings, config.steps, key)[0]


def _each(records: Record) -> list[Record]:
    """Split records along their first axis; the parts have NumPy arrays."""
    return [Record(*parts) for parts in zip(*map(np.asarray, records), strict=True)]


def episodes(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the last step of each episode that has ended, and its sum of rewards."""
    ends = np.flatnonzero(record.terminated | record.truncated)
    sums = np.cumsum(record.rewards, dtype=float)[ends]
    return ends, np.diff(sums, prepend=0.0)


def rarest_answer(record: Record, actions: int) -> float:
    """Return how often the rarest of the actions ends an episode, in the last steps.

    It is near 0 if an agent answers always the same.
    """
    ends, _ = episodes(record)
    last = ends[ends >= (1 - LAST) * len(record.rewards)]
    counts = np.bincount(record.actions[last], minlength=actions)
    return float(counts.min() / max(counts.sum(), 1))


def _score(records: Record) -> list[float]:
    """Return each agent's mean return of the episodes that end in the last steps."""
    found = []
    for record in _each(records):
        ends, returns = episodes(record)
        last = ends >= (1 - LAST) * len(record.rewards)
        found.append(float(np.mean(returns[last])) if last.any() else float("nan"))
    return found


def mean_returns(record: Record) -> list[float | None]:
    """Return the mean return of the episodes that end in each part of the run.

    It is None where no episode ends.
    """
    ends, returns = episodes(record)
    part = ends * POINTS // len(record.rewards)
    counts = np.bincount(part, minlength=POINTS)
    sums = np.bincount(part, weights=returns, minlength=POINTS)
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return [total / count if count else None for total, count in pairs]


def _explained(record: Record, world: World, discount: float) -> float:
    """Return the share of the variance of the returns that the critic explains.

    The returns are discounted, and those of the last steps of the run.
    """
    cut = int((1 - LAST) * len(record.rewards))
    last = jax.tree.map(lambda leaf: jnp.asarray(leaf[cut:]), record)
    last = last._replace(rewards=world.scale * last.rewards)
    returns = np.asarray(lambda_returns(last, discount, 1.0), float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(1 - np.var(returns - np.asarray(last.values)) / np.var(returns))


def _speed(config: Config, rule: str, lanes: int, way: Way) -> Row:
    """Measure the time of a step of MemoryChain-8, after compilation."""
    timed = dataclasses.replace(config, steps=config.timed_steps)
    make_rule = make_rules(config.lookbacks)[rule]
    agent = partial(_agent, timed, make_world("chain_8"), make_rule)
    setting = jnp.array([config.decays[0], config.entropies[0]])
    keys = jax.random.split(jax.random.key(config.first_seed), lanes)
    many = jax.vmap(agent, (None, 0)) if lanes > 1 else agent
    args = setting, keys if lanes > 1 else keys[0]
    compiled = jax.jit(many).lower(*args).compile()
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    seconds = time.perf_counter() - start
    way.advance(config.timed_steps)
    microseconds = 1e6 * seconds / config.timed_steps
    return {"speed_of": rule, "lanes": lanes, "microseconds": microseconds}
