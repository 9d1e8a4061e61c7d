"""Policy of `control`: a small perceptron, and the simulation of its episodes."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments.applications.control.mechanics import advance, SECOND, System


def init(system: System, units: int, key: jax.Array) -> list[dict[str, jax.Array]]:
    """Draw the parameters of a perceptron with two hidden layers.

    Args:
      system: the system to control.
      units: number of units of each hidden layer.
      key: key for the initial weights.
    """
    state, goal = system.start(key)
    inputs = system.features(state, goal).shape[0]
    sizes = (inputs, units, units, len(system.limit))
    keys = jax.random.split(key, len(sizes) - 1)
    layers = [
        {"weights": jax.random.normal(key, (n, m)) / n**0.5, "bias": jnp.zeros(m)}
        for key, n, m in zip(keys, sizes, sizes[1:], strict=False)
    ]
    layers[-1]["weights"] *= 0.1  # keep initial actions small
    return layers


def act(system: System, params: PyTree, state: jax.Array, goal: jax.Array):
    """Return a policy's action [..., m], one element for each of the m actuators."""
    h = system.features(state, goal)
    for layer in params:
        h = jnp.tanh(h @ layer["weights"] + layer["bias"])
    return jnp.array(system.limit) * h


def make_step(system: System) -> Callable:
    """Return the step (params, state, goal) -> (next state, (next state, action))."""

    def step(params, state, goal):
        action = act(system, params, state, goal)
        state = advance(system, state, action)
        return state, (state, action)

    return step


def make_loss(system: System) -> Callable:
    """Return the loss function ((next state, action), goal) -> cost of the step."""
    return lambda y, goal: system.cost(y[0], y[1], goal)


@partial(jax.jit, static_argnums=(0, 1, 2))
def episodes(system: System, count: int, steps: int, key: jax.Array):
    """Draw the initial states [B, n] and the goals [T, B, g] of B random episodes."""
    states, goals = jax.vmap(system.start)(jax.random.split(key, count))
    return states, jnp.broadcast_to(goals, (steps, *goals.shape))


class Played(NamedTuple):
    """B simulated episodes of T steps."""

    states: jax.Array  # [T + 1, B, n], including the initial state
    actions: jax.Array
    costs: jax.Array  # [T, B] cost of each step
    error: jax.Array  # [B, distances] largest distance from the goal in the last second
    mean_error: jax.Array  # [B, distances] mean distances in the last second
    success: jax.Array  # [B] whether the episode is a success


@partial(jax.jit, static_argnums=0)
def play(system: System, params: PyTree, start: jax.Array, goals: jax.Array) -> Played:
    """Simulate episodes of a policy.

    Args:
      system: the system to control.
      params: parameters of the policy.
      start: initial states of the episodes, [B, n].
      goals: the goal at each step of each episode, [T, B, g].
    """
    _, (states, actions) = gradients.unroll(make_step(system), params, start, goals)
    costs = system.cost(states, actions, goals)
    errors = system.errors(states[-SECOND:], goals[-SECOND:])
    worst = jnp.max(errors, axis=0)
    allowed = jnp.array([tolerance for _, tolerance in system.tolerances])
    # If a distance is NaN, the episode is no success: comparisons with NaN are False.
    success = jnp.all(worst <= allowed, axis=-1)
    states = jnp.concatenate([start[None], states])
    return Played(states, actions, costs, worst, jnp.mean(errors, axis=0), success)


def some(played: Played, seed: int, count: int) -> Played:
    """Return the first `count` episodes of the policy trained from one seed."""
    over_time = (leaf[seed, :, :count] for leaf in played[:3])
    return Played(*over_time, *(leaf[seed, :count] for leaf in played[3:]))


def save(path: Path, params: Any) -> None:
    """Write the policies of all seeds (leaves [seeds, ...]) to an .npz file."""
    layers = {
        f"{name}_{i}": np.asarray(array)
        for i, layer in enumerate(params)
        for name, array in layer.items()
    }
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.savez(file, **layers)  # pyright: ignore[reportArgumentType]
    os.replace(beside, path)


def load(path: Path) -> list[dict[str, jax.Array]]:
    """Read policies from a file that :func:`save` wrote."""
    with np.load(path) as layers:
        count = sum(name.startswith("bias") for name in layers)
        return [
            {name: jnp.asarray(layers[f"{name}_{i}"]) for name in ("weights", "bias")}
            for i in range(count)
        ]


def many(system: System, params: Any, start: jax.Array, goals: jax.Array) -> Played:
    """Simulate the policies of all seeds, each from the same initial states `start`."""
    return jax.vmap(lambda one: play(system, one, start, goals))(params)
