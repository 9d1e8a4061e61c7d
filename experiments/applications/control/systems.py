"""Mechanical systems of `control`: a pendulum, a cart with a pole, a two-link arm."""

import jax
import jax.numpy as jnp

from experiments.applications.control.mechanics import (
    stack,
    System,
    uniform,
    unstack,
    wrapped,
)

GRAVITY = 9.81  # m/s²


def _still(states: int):
    return lambda key: (jnp.zeros(states), jnp.zeros(1))


# The pendulum is a uniform rod of 1 m and 1 kg. Holding the rod horizontal takes a
# torque of 4.9 N m, but the motor has only 2 N m.
def _pendulum_derivative(state, action):
    angle, speed = unstack(state)
    return stack(speed, 1.5 * GRAVITY * jnp.sin(angle) + 3 * action[..., 0])


def _pendulum_energy(state):
    angle, speed = unstack(state)
    return speed**2 / 6 + GRAVITY / 2 * jnp.cos(angle)


def _pendulum_features(state, _):
    angle, speed = unstack(state)
    return stack(jnp.sin(angle), jnp.cos(angle), speed / 4)


def _pendulum_cost(state, action, _):
    angle, speed = unstack(state)
    return 1 - jnp.cos(angle) + 0.01 * speed**2 + 0.001 * action[..., 0] ** 2


def _pendulum_start(key):
    return uniform(key, jnp.pi, 1.0), jnp.zeros(1)


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
    start=_pendulum_start,
    begin=_pendulum_start,
    rest=_still(2),
    errors=lambda state, _: jnp.abs(wrapped(state[..., :1])),
    tolerances=(("angle, rad", 0.2),),
)

# Cart and pole of Barto, Sutton & Anderson: a cart of 1 kg, a pole of 0.1 kg and 1 m.
CART, POLE, HALF = 1.0, 0.1, 0.5


def _cartpole_derivative(state, action):
    _, velocity, angle, speed = unstack(state)
    sin, cos, total = jnp.sin(angle), jnp.cos(angle), CART + POLE
    push = (action[..., 0] + POLE * HALF * speed**2 * sin) / total
    turn = (GRAVITY * sin - cos * push) / (HALF * (4 / 3 - POLE * cos**2 / total))
    return stack(velocity, push - POLE * HALF * turn * cos / total, speed, turn)


def _cartpole_energy(state):
    _, velocity, angle, speed = unstack(state)
    moving = (CART + POLE) * velocity**2 / 2 + 2 / 3 * POLE * (HALF * speed) ** 2
    both = POLE * HALF * velocity * speed * jnp.cos(angle)
    return moving + both + POLE * GRAVITY * HALF * jnp.cos(angle)


def _cartpole_features(state, _):
    place, velocity, angle, speed = unstack(state)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return stack(place / 2, velocity / 2, sin, cos, speed / 4)


def _cartpole_cost(state, action, _):
    place, velocity, angle, speed = unstack(state)
    cost = 1 - jnp.cos(angle) + 0.1 * place**2 + 0.01 * (velocity**2 + speed**2)
    return cost + 0.001 * action[..., 0] ** 2


def _cartpole_start(key):
    return uniform(key, 1.0, 0.5, jnp.pi, 1.0), jnp.zeros(1)


def _cartpole_begin(key):
    """Return a random initial state; about half are within half a radian of upright."""
    near, key = jax.random.split(key)
    state, goal = _cartpole_start(key)
    share = jnp.where(jax.random.bernoulli(near), 0.5 / jnp.pi, 1.0)
    return state.at[2].multiply(share), goal


CARTPOLE = System(
    states=("cart, m", "velocity, m/s", "angle from upright, rad", "rad/s"),
    horizon=30,
    judged=200,
    updates=1600,
    limit=(10.0,),
    friction=(0.0,),
    speeds=(1,),
    derivative=_cartpole_derivative,
    energy=_cartpole_energy,
    features=_cartpole_features,
    cost=_cartpole_cost,
    start=_cartpole_start,
    begin=_cartpole_begin,
    rest=_still(4),
    errors=lambda state, _: jnp.abs(stack(wrapped(state[..., 2]), state[..., 0])),
    tolerances=(("angle, rad", 0.2), ("cart, m", 0.5)),
)

# The arm has two uniform rods of 0.5 m and 1 kg; its plane is horizontal, so gravity
# does no work.
LINK = 0.5
LINK_INERTIA = LINK**2 / 3  # moment of inertia of a rod about its end, per kg


def tip(state: jax.Array) -> jax.Array:
    """Return the position of the arm's hand in metres, [..., 2]."""
    shoulder, elbow = state[..., 0], state[..., 0] + state[..., 1]
    return LINK * stack(
        jnp.cos(shoulder) + jnp.cos(elbow), jnp.sin(shoulder) + jnp.sin(elbow)
    )


def _arm_inertia(elbow):
    """Return the arm's mass matrix and the factor of the terms with products of speeds.

    The mass matrix is symmetric; its three different elements are returned.
    """
    both = LINK**2 / 2 * jnp.cos(elbow)
    whole = 2 * LINK_INERTIA + LINK**2 + 2 * both
    return whole, LINK_INERTIA + both, LINK_INERTIA, LINK**2 / 2 * jnp.sin(elbow)


def _arm_derivative(state, action):
    _, elbow, first, second = unstack(state)
    a, b, c, change = _arm_inertia(elbow)
    p = action[..., 0] + change * second * (2 * first + second)
    q = action[..., 1] - change * first**2
    determinant = a * c - b**2
    return stack(
        first, second, (c * p - b * q) / determinant, (a * q - b * p) / determinant
    )


def _arm_energy(state):
    _, elbow, first, second = unstack(state)
    a, b, c, _ = _arm_inertia(elbow)
    return (a * first**2 + c * second**2) / 2 + b * first * second


def _arm_features(state, goal):
    """Return features that do not change if arm and goal rotate about the shoulder."""
    shoulder, elbow, first, second = unstack(state)
    sin, cos = jnp.sin(shoulder), jnp.cos(shoulder)
    turned = lambda x, y: (cos * x + sin * y, cos * y - sin * x)
    error = 4 * (goal - tip(state))
    return stack(
        jnp.sin(elbow), jnp.cos(elbow), first / 4, second / 4,
        *turned(*unstack(goal)), *turned(*unstack(error)),
    )  # fmt: skip


def _arm_cost(state, action, goal):
    squared = jnp.sum((tip(state) - goal) ** 2, axis=-1)
    near = jnp.sqrt(squared + 0.05**2) - 0.05  # distance in m, smoothed below 5 cm
    speed = jnp.sum(state[..., 2:] ** 2, axis=-1)
    return near + 0.01 * speed + 0.001 * jnp.sum(action**2, axis=-1)


def _arm_start(key):
    pose, angle, radius = jax.random.split(key, 3)
    state = uniform(pose, jnp.pi, 2.5, 0.0, 0.0)
    # The goal is uniform over the ring between 0.2 and 0.9 m from the shoulder.
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
    begin=_arm_start,
    rest=_arm_rest,
    errors=lambda state, goal: jnp.linalg.norm(
        tip(state) - goal, axis=-1, keepdims=True
    ),
    tolerances=(("distance, m", 0.02),),
)

SYSTEMS = {"pendulum": PENDULUM, "cartpole": CARTPOLE, "arm": ARM}
