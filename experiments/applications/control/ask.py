"""Trained policies of `control` that choose an action for a state."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.applications.control import policy
from experiments.applications.control.mechanics import System
from experiments.applications.control.systems import SYSTEMS
from experiments.harness import models, novelty
from experiments.harness.jobs import Row

EPISODES = 64  # number of simulated episodes whose states a new state is compared with
GOAL = 2  # number of coordinates of the arm's goal; the other systems have none


def read_state(text: str) -> np.ndarray:
    """Parse numbers that are separated by commas or spaces."""
    try:
        return np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError as error:
        raise ValueError(
            f"{error}: give numbers separated by commas, such as 3.14,0."
        ) from error


READS = {"state": read_state}


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that chooses the action for a state.

    The argument is a sequence of numbers. The number of numbers says which system is
    meant: 2 for the pendulum (angle from upright in rad, angular velocity in rad/s), 4
    for cart and pole (position, velocity, angle, angular velocity), 6 for the arm (two
    angles, two angular velocities, and the goal's x and y in m). The value of the
    answer is a tuple of torques in N m; for the cart, a force in N.
    """
    sizes = {_size(name): name for name in saved.settings["systems"]}

    def predict(x: Sequence[float]) -> models.Answer:
        given = np.asarray(x, np.float32)
        name = sizes.get(len(given) if given.ndim == 1 else 0)
        if name is None or not np.all(np.isfinite(given)):
            needed = ", or ".join(
                f"{size} for the {each}" for size, each in sizes.items()
            )
            raise ValueError(f"finite numbers are needed: {needed}; got {list(given)}.")
        system, own = SYSTEMS[name], saved.params[name]
        count = len(system.states)
        state, goal = given[:count], given[count:]
        goal = goal if goal.size else np.zeros(1, np.float32)
        action = policy.act(
            system, own["policy"], jnp.asarray(state), jnp.asarray(goal)
        )
        features = system.features(jnp.asarray(state), jnp.asarray(goal))
        views = {"state": np.asarray(features)[None]}
        value = tuple(round(float(each), 4) for each in action)
        return models.answer(saved, value, None, views, own["novelty"])

    return predict


def _size(name: str) -> int:
    return len(SYSTEMS[name].states) + (GOAL if name == "arm" else 0)


def save(folder: Path, rows: list[Row]) -> None:
    """Save the best policy of each system.

    The best policy has the most successes in the last test during the training, whose
    episodes are not those of the final test; the cost decides between equals.
    """
    found = {}
    for name in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == name]
        score = lambda row: (
            row["curve"][-1]["success"][0],
            -row["curve"][-1]["cost"][0],
        )
        best = max(mine, key=score)["job"]
        params = policy.load(folder / f"policy-{best}.npz")
        params = jax.tree.map(lambda leaf: leaf[0], params)
        learned, held_out = (_visited(SYSTEMS[name], params, seed) for seed in (1, 2))
        calibrated = novelty.calibrate({"state": learned}, {"state": held_out})
        found[name] = {"policy": params, "novelty": calibrated}
    models.save_model(folder, "control", found, {"systems": [*found]})


def _visited(system: System, params: Any, seed: int) -> np.ndarray:
    """Return the features of a state of each of several episodes, [N, features].

    The states are at different times, so that they are independent of each other.
    """
    count = EPISODES * (4 if seed == 1 else 2)
    key = jax.random.fold_in(jax.random.key(977), seed)
    start, goals = policy.episodes(system, count, system.judged, key)
    states = policy.play(system, params, start, goals).states[:-1]
    times, episode = np.arange(count) % len(states), np.arange(count)
    return np.asarray(system.features(states[times, episode], goals[times, episode]))
