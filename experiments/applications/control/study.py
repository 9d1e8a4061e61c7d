"""Study `control`: policies trained by differentiating through a physics simulator.

    s_{t+1} = f(s_t, π_θ(s_t)),     dL/ds_t = ∂ℓ_t/∂s_t + dL/ds_{t+1} J_{t+1}

Here f is the simulator, s_t is the state of the system, and π_θ is the policy. The cost
of a step is ℓ_t, the total cost is L, and J_{t+1} = ds_{t+1}/ds_t. Like the step of a
recurrent network, the step of a differentiable simulator maps a carry to the next
carry; the carry is the state of the system. Every gradient rule for recurrent networks
can therefore train a policy in the simulator. Initial states for tests and for training
are drawn separately. Baselines are LQR near the goal, and iLQR, which plans each
episode separately.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.control import (
    ask,
    pictures,
    policy,
    report as control_report,
)
from experiments.applications.control.judge import by_seed, judge, percent
from experiments.applications.control.mechanics import System
from experiments.applications.control.systems import SYSTEMS
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy

SHOWN = 24  # number of episodes in a phase portrait
RULES = ("bptt", "truncated_bptt", "forward_gradient", "pes")


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How good are policies that gradient rules learn through a physics simulator?"""

    QUICK = {
        "system": ("pendulum",), "rule": ("truncated_bptt",), "steps": 600, "looks": 3,
        "seeds": 1, "compared": 4,
    }  # fmt: skip
    CHECKS = {
        "lookback directions window units batch steps horizon looks": at_least(1),
        "judged compared": at_least(1),
        "system": all_of(given, known(SYSTEMS)),
        "rule": given,
        "update": known(choices.UPDATES),
    }

    system: tuple[str, ...] = tuple(SYSTEMS)
    """Systems: pendulum (its motor is too weak to lift it directly), cartpole (a cart
    that swings up its pole) and arm (two links that reach for a point)."""
    rule: tuple[str, ...] = RULES
    """Gradient rules: bptt, truncated_bptt, forward_gradient, pes, …"""
    update: str = "adam"
    """Update rule; gradients are clipped to a norm of 1, except for update rules of the
    Rprop family."""
    learning_rate: float | None = 3e-3
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    lookback: int = 10
    """Number of time steps (of 0.05 s) that truncated gradient rules go back."""
    directions: int = 4
    """Number of random directions of forward_gradient, and number of antithetic pairs
    of episodes of pes."""
    sigma: float = 0.03
    """Standard deviation of the perturbations of the parameters by pes."""
    window: int = 10
    """Number of time steps after which pes perturbs the parameters anew."""
    units: int = 32
    """Number of units of each of a policy's two hidden layers."""
    batch: int = 64
    """Number of episodes in an update; they begin at random starts."""
    steps: int | None = None
    """Number of updates of the parameters; the default depends on the system."""
    horizon: int | None = None
    """Number of time steps of a training episode; the default depends on the system."""
    looks: int = 10
    """Largest number of times that policies are tested during training."""
    judged: int = 256
    """Number of episodes in a test; all policies are tested from the same initial
    states."""
    compared: int = 8
    """Number of test episodes on which policies are compared with iLQR, and number of
    episodes near the goal on which policies are compared with LQR."""
    seeds: int = 2
    """Number of policies for each rule, which differ in initial weights and episodes;
    they train under vmap."""

    def check(self) -> None:
        """Check that gradient rules exist, and that there are enough test episodes."""
        for rule in self.rule:
            _make_rule(self, rule, SYSTEMS["pendulum"])
        if self.compared > self.judged:
            raise ValueError(
                f"compared must be at most judged, {self.judged}; got {self.compared}."
            )


def main(config: Config) -> report.Result:
    """Train and test policies by each gradient rule; print and write the results."""
    return run_study("control", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    return [
        Job(
            f"{name}-{rule}",
            _steps(config, name)[0],
            partial(_train, config, name, rule),
        )
        for name in config.system
        for rule in config.rule
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    for name in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == name]
        control_report.show(name, mine, config)
        _draw(folder, name, mine)
    report.save_picture(folder, "learning", control_report.draw_curves(rows))
    report.save_picture(folder, "flow", control_report.draw_flow(rows))
    ask.save(folder, rows)


def _steps(config: Config, name: str) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    steps = config.steps or SYSTEMS[name].updates
    chunk = -(-steps // config.looks)
    return chunk * -(-steps // chunk), chunk


def _make_rule(config: Config, rule: str, system: System):
    return choices.make_rule(
        rule, policy.make_step(system), policy.make_loss(system),
        lookback=config.lookback, directions=config.directions,
        sigma=config.sigma, window=config.window,
    )  # fmt: skip


def _train(config: Config, name: str, rule: str, way: Way) -> Row:
    """Train and test the policies of all seeds together; return a row of results."""
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
        key=batches,
        runs=config.seeds,
        look=look,
        over=(0, 1, 1),
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


def _draw(folder: Path, name: str, rows: list[Row]) -> None:
    """Draw phase portraits for all gradient rules, and a GIF for the best rule.

    The GIF shows an untrained policy beside the policy that the best rule trained.
    """
    system = SYSTEMS[name]
    key = jax.random.key(SHOWN)  # the initial states differ from those of the tests
    start, goals = policy.episodes(system, SHOWN, system.judged, key)
    played, units = {}, 1
    for row in rows:
        params = policy.load(folder / f"policy-{row['job']}.npz")
        first = jax.tree.map(lambda leaf: leaf[0], params)
        units = len(first[0]["bias"])
        shown = policy.play(system, first, start, goals)
        played[row["rule"]] = jax.tree.map(np.asarray, shown)
    goals = np.asarray(goals)
    portrait = pictures.draw_portraits(name, played, goals)
    report.save_picture(folder, name, portrait)
    best = max(rows, key=lambda row: (row["success"][0], -row["cost"][0]))["rule"]
    movie = folder / f"{name}.gif"
    untrained = policy.play(system, policy.init(system, units, key), start, goals)
    policies = {"untrained": untrained, "trained": played[best]}
    policies = {who: jax.tree.map(np.asarray, each) for who, each in policies.items()}
    pictures.save_movie(movie, name, best, policies, goals)
    report.show_file(
        movie,
        alt=f"Animation of {name}: the untrained policy beside the policy trained by "
        f"{best}, with target and torque.",
        caption=f"{name}: an episode before and after training by {best}.",
    )
