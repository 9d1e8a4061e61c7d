"""Mechanical systems driven by torques or forces, and their differentiable steps.

    ds/dt = f(s, u),    s_{t+1} by a step of Runge–Kutta 4 with constant u for time dt

States s are [..., n], actions u [..., m] and goals [..., g], with any batch shape. The
function f is the `derivative` of a system. The angle of a pendulum or pole is 0 if it
is upright, which is the goal. Angles are not wrapped to one turn.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

SECOND = 20  # time steps per second; success is judged in an episode's last second


class System(NamedTuple):
    """A mechanical system, its cost, and its criterion of success.

    Attributes:
      states: names of the state's elements, with units.
      horizon: number of time steps of a training episode.
      judged: number of time steps of a test episode.
      updates: default number of updates of a policy's parameters.
      limit: largest torque or force of each actuator.
      friction: friction coefficient of each actuator, N m s or N s/m.
      derivative: (state, torques or forces) -> ds/dt, without friction.
      speeds: indices of those elements of a state that are speeds of the actuators.
      energy: state -> energy in J; without action and friction, energy is conserved.
      features: (state, goal) -> inputs of the policy.
      cost: (state, action, goal) -> cost of a step; in training, it is the step's loss.
      start: key -> random (initial state, goal) of a test episode.
      begin: key -> random (initial state, goal) of a training episode; for cart and
        pole, about half of these states are near the goal.
      rest: key -> (state, goal); in this state, the system is at rest at the goal and
        needs no action.
      errors: (states, goal) -> distances from the goal, one for each tolerance.
      tolerances: a pair for each distance: (its name and unit, the largest distance
        allowed in the last second of an episode).
      dt: duration of a time step, in seconds.
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
    """Return the state after one time step, during which the action is constant."""
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
    """For each element `end` of `ends`, draw a uniform value between −end and end."""
    return jax.random.uniform(key, (len(ends),), minval=-1.0) * jnp.array(ends)


def wrapped(angle: jax.Array) -> jax.Array:
    """Wrap an angle to the interval from −π to π."""
    return jnp.arctan2(jnp.sin(angle), jnp.cos(angle))


def unstack(array: jax.Array) -> list[jax.Array]:
    """Split an array along its last axis into a list of arrays."""
    return [array[..., i] for i in range(array.shape[-1])]


def stack(*parts: jax.Array) -> jax.Array:
    """Stack arrays along a new last axis."""
    return jnp.stack(parts, axis=-1)
