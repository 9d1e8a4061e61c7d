"""Mechanical systems driven by torques or forces, and their differentiable steps.

    ds/dt = f(s, u),    s_{t+1} by a step of Runge–Kutta 4 with u held for dt

States are [..., n], actions [..., m] and goals [..., g], with any batch shape. Angles
are 0 where the system is to be, upright, and are not wrapped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

SECOND = 20  # steps of the last second, in which it must have arrived


class System(NamedTuple):
    """A system, what it costs, and when it has arrived.

    Attributes:
      states: the names of a state's numbers, with units.
      horizon: steps of an episode to train on; errors through longer ones of cart and
        pole grow out of all bounds.
      judged: steps of an episode to be judged by.
      updates: how many it needs to learn.
      limit: the largest torque or force of each actuator.
      friction: of each actuator, N m s or N s/m.
      derivative: (state, torques or forces) -> ds/dt, without friction.
      speeds: which numbers of a state are the speeds of the actuators.
      energy: state -> J, which stays as it is without an action.
      features: (state, goal) -> what the policy sees.
      cost: (state, action, goal) -> the loss of a step.
      start: key -> (state, goal), at random.
      begin: the same to train from: some nearer the goal, where that helps.
      rest: key -> (state, goal), where it is at its goal and needs no action.
      errors: (states, goal) -> how far from the goal, one number for each tolerance.
      tolerances: what errors may be in the last second, with units.
      dt: seconds of a step.
    """

    states: tuple[str, ...]
    horizon: int
    judged: int
    updates: int
    limit: tuple[float, ...]
    friction: tuple[float, ...]
    speeds: tuple[int, ...]
    derivative: Callable[[jax.Array, jax.Array], jax.Array]
    energy: Callable[[jax.Array], jax.Array]
    features: Callable[[jax.Array, jax.Array], jax.Array]
    cost: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    start: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    begin: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    rest: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    errors: Callable[[jax.Array, jax.Array], jax.Array]
    tolerances: tuple[tuple[str, float], ...]
    dt: float = 0.05


def advance(system: System, state: jax.Array, action: jax.Array) -> jax.Array:
    """Return the state after a step, in which the action is held."""
    h, friction = system.dt, jnp.array(system.friction)

    def f(state):
        slowed = action - friction * jnp.stack(
            [state[..., i] for i in system.speeds], axis=-1
        )
        return system.derivative(state, slowed)

    first = f(state)
    second = f(state + h / 2 * first)
    third = f(state + h / 2 * second)
    fourth = f(state + h * third)
    return state + h / 6 * (first + 2 * second + 2 * third + fourth)


def uniform(key: jax.Array, *ends: float) -> jax.Array:
    """Draw numbers, each between minus and plus an end."""
    return jax.random.uniform(key, (len(ends),), minval=-1.0) * jnp.array(ends)


def wrapped(angle: jax.Array) -> jax.Array:
    """Return an angle between −π and π."""
    return jnp.arctan2(jnp.sin(angle), jnp.cos(angle))


def unstack(array: jax.Array) -> list[jax.Array]:
    """Return the numbers of a state, or of an action, one by one."""
    return [array[..., i] for i in range(array.shape[-1])]


def stack(*parts: jax.Array) -> jax.Array:
    """Put them together again."""
    return jnp.stack(parts, axis=-1)
