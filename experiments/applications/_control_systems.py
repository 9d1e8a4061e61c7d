"""Mechanical systems that torques or forces drive, differentiable in all they take.

    ds/dt = f(s, u),    s_{t+1} by a step of Runge–Kutta 4 with u held for dt

States are [..., n], actions [..., m] and goals [..., g], with any batch shape. Angles
are 0 where the system is to be, upright, and are not wrapped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

GRAVITY = 9.81  # m/s²
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


def _unstack(array: jax.Array) -> list[jax.Array]:
    return [array[..., i] for i in range(array.shape[-1])]


_stack = lambda *parts: jnp.stack(parts, axis=-1)
_still = lambda states: lambda key: (jnp.zeros(states), jnp.zeros(1))


# A uniform rod of 1 m and 1 kg, and a motor that cannot hold it level: 2 of 4.9 N m.
def _pendulum_derivative(state, action):
    angle, speed = _unstack(state)
    return _stack(speed, 1.5 * GRAVITY * jnp.sin(angle) + 3 * action[..., 0])


def _pendulum_energy(state):
    angle, speed = _unstack(state)
    return speed**2 / 6 + GRAVITY / 2 * jnp.cos(angle)


def _pendulum_features(state, _):
    angle, speed = _unstack(state)
    return _stack(jnp.sin(angle), jnp.cos(angle), speed / 4)


def _pendulum_cost(state, action, _):
    angle, speed = _unstack(state)
    return 1 - jnp.cos(angle) + 0.01 * speed**2 + 0.001 * action[..., 0] ** 2


PENDULUM = System(
    states=("angle from upright, rad", "angular velocity, rad/s"),
    horizon=100,
    judged=200,
    updates=1000,
    limit=(2.0,),
    friction=(0.0,),
    speeds=(1,),
    derivative=_pendulum_derivative,
    energy=_pendulum_energy,
    features=_pendulum_features,
    cost=_pendulum_cost,
    start=lambda key: (uniform(key, jnp.pi, 1.0), jnp.zeros(1)),
    rest=_still(2),
    errors=lambda state, _: jnp.abs(wrapped(state[..., :1])),
    tolerances=(("angle, rad", 0.2),),
)

# Barto, Sutton & Anderson's cart of 1 kg, and its pole of 0.1 kg, 1 m long.
CART, POLE, HALF = 1.0, 0.1, 0.5


def _cartpole_derivative(state, action):
    _, velocity, angle, speed = _unstack(state)
    sin, cos, total = jnp.sin(angle), jnp.cos(angle), CART + POLE
    push = (action[..., 0] + POLE * HALF * speed**2 * sin) / total
    turn = (GRAVITY * sin - cos * push) / (HALF * (4 / 3 - POLE * cos**2 / total))
    return _stack(velocity, push - POLE * HALF * turn * cos / total, speed, turn)


def _cartpole_energy(state):
    _, velocity, angle, speed = _unstack(state)
    moving = (CART + POLE) * velocity**2 / 2 + 2 / 3 * POLE * (HALF * speed) ** 2
    both = POLE * HALF * velocity * speed * jnp.cos(angle)
    return moving + both + POLE * GRAVITY * HALF * jnp.cos(angle)


def _cartpole_features(state, _):
    place, velocity, angle, speed = _unstack(state)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return _stack(place / 2, velocity / 2, sin, cos, speed / 4)


def _cartpole_cost(state, action, _):
    place, velocity, angle, speed = _unstack(state)
    cost = 1 - jnp.cos(angle) + 0.1 * place**2 + 0.01 * (velocity**2 + speed**2)
    return cost + 0.001 * action[..., 0] ** 2


CARTPOLE = System(
    states=("cart, m", "velocity, m/s", "angle from upright, rad", "rad/s"),
    horizon=40,
    judged=200,
    updates=1600,
    limit=(10.0,),
    friction=(0.0,),
    speeds=(1,),
    derivative=_cartpole_derivative,
    energy=_cartpole_energy,
    features=_cartpole_features,
    cost=_cartpole_cost,
    start=lambda key: (uniform(key, 1.0, 0.5, jnp.pi, 1.0), jnp.zeros(1)),
    rest=_still(4),
    errors=lambda state, _: jnp.abs(_stack(wrapped(state[..., 2]), state[..., 0])),
    tolerances=(("angle, rad", 0.2), ("cart, m", 0.5)),
)

# Two uniform rods of 0.5 m and 1 kg, on a table: gravity does nothing.
LINK = 0.5
LINK_INERTIA = LINK**2 / 3  # of a rod about its end, per kg


def tip(state: jax.Array) -> jax.Array:
    """Return where the hand of the arm is, [..., 2] m."""
    shoulder, elbow = state[..., 0], state[..., 0] + state[..., 1]
    return LINK * _stack(
        jnp.cos(shoulder) + jnp.cos(elbow), jnp.sin(shoulder) + jnp.sin(elbow)
    )


def _arm_inertia(elbow):
    """Return the mass matrix's three numbers, and how fast they change."""
    both = LINK**2 / 2 * jnp.cos(elbow)
    whole = 2 * LINK_INERTIA + LINK**2 + 2 * both
    return whole, LINK_INERTIA + both, LINK_INERTIA, LINK**2 / 2 * jnp.sin(elbow)


def _arm_derivative(state, action):
    _, elbow, first, second = _unstack(state)
    a, b, c, change = _arm_inertia(elbow)
    p = action[..., 0] + change * second * (2 * first + second)
    q = action[..., 1] - change * first**2
    determinant = a * c - b**2
    return _stack(
        first, second, (c * p - b * q) / determinant, (a * q - b * p) / determinant
    )


def _arm_energy(state):
    _, elbow, first, second = _unstack(state)
    a, b, c, _ = _arm_inertia(elbow)
    return (a * first**2 + c * second**2) / 2 + b * first * second


def _arm_features(state, goal):
    """Return what does not change when arm and goal are turned about the shoulder."""
    shoulder, elbow, first, second = _unstack(state)
    sin, cos = jnp.sin(shoulder), jnp.cos(shoulder)
    turned = lambda x, y: (cos * x + sin * y, cos * y - sin * x)
    error = 4 * (goal - tip(state))
    return _stack(
        jnp.sin(elbow), jnp.cos(elbow), first / 4, second / 4,
        *turned(*_unstack(goal)), *turned(*_unstack(error)),
    )  # fmt: skip


def _arm_cost(state, action, goal):
    squared = jnp.sum((tip(state) - goal) ** 2, axis=-1)
    near = jnp.sqrt(squared + 0.05**2) - 0.05  # m, and a square from 5 cm on
    speed = jnp.sum(state[..., 2:] ** 2, axis=-1)
    return near + 0.01 * speed + 0.001 * jnp.sum(action**2, axis=-1)


def _arm_start(key):
    pose, angle, radius = jax.random.split(key, 3)
    state = uniform(pose, jnp.pi, 2.5, 0.0, 0.0)
    # Uniform over the ring of places that are at least 0.2 and at most 0.9 m away.
    radius = jnp.sqrt(jax.random.uniform(radius, minval=0.2**2, maxval=0.9**2))
    angle = jax.random.uniform(angle, maxval=2 * jnp.pi)
    return state, radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _arm_rest(key):
    pose, elbow = jax.random.split(key)
    state = uniform(pose, jnp.pi, 0.0, 0.0, 0.0)
    bent = jax.random.uniform(elbow, minval=0.9, maxval=2.6)
    state = state.at[1].set(bent)
    return state, tip(state)


ARM = System(
    states=("shoulder, rad", "elbow, rad", "shoulder, rad/s", "elbow, rad/s"),
    horizon=60,
    judged=120,
    updates=1500,
    limit=(4.0, 2.0),
    friction=(0.4, 0.2),
    speeds=(2, 3),
    derivative=_arm_derivative,
    energy=_arm_energy,
    features=_arm_features,
    cost=_arm_cost,
    start=_arm_start,
    rest=_arm_rest,
    errors=lambda state, goal: jnp.linalg.norm(
        tip(state) - goal, axis=-1, keepdims=True
    ),
    tolerances=(("distance, m", 0.02),),
)

SYSTEMS = {"pendulum": PENDULUM, "cartpole": CARTPOLE, "arm": ARM}
