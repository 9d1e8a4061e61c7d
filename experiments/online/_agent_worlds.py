"""Environments of `agents`, as pure functions: memory, cart and pole, pendulum.

A step of an environment is one function of its state and an action, without random
numbers. Random numbers enter only where an episode begins, so that all random numbers
of a run can be drawn before the run. All functions are for one environment; use
`jax.vmap` for several.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree
from experiments.applications.control.mechanics import advance, wrapped
from experiments.applications.control.systems import SYSTEMS

POLE_LIMIT, CART_LIMIT = 12 * jnp.pi / 180, 2.4  # an episode ends beyond them
CART_TIME, CART_STEPS = 0.02, 500  # seconds of a step, largest number of steps


class Transition(NamedTuple):
    """Result of one step of an environment."""

    state: PyTree
    reward: jax.Array  # []
    terminated: jax.Array  # [] bool: no reward follows after this step
    truncated: jax.Array  # [] bool: a time limit ends the episode


class World(NamedTuple):
    """An environment with a finite number of actions.

    Attributes:
      observations: number of elements of an observation.
      actions: number of actions.
      draws: number of random numbers that `begin` needs.
      begin: uniform random numbers in [0, 1), [draws] -> state of a new episode.
      observe: state -> observation, [observations].
      step: (state, action) -> transition.
      scale: factor of the rewards from which an agent learns.
    """

    observations: int
    actions: int
    draws: int
    begin: Callable[[jax.Array], PyTree]
    observe: Callable[[PyTree], jax.Array]
    step: Callable[[PyTree, jax.Array], Transition]
    scale: float = 1.0


def memory_chain(length: int) -> World:
    """Return the task MemoryChain: show a bit, wait, and ask for the bit.

    An episode has length + 2 steps. The first observation is (bit, 0), with the bit −1
    or 1; `length` observations (0, 0) follow; the last observation is (0, 1), the
    query. The action at the query earns 1 if it equals the bit, and −1 otherwise: the
    best mean return is 1, and a guess earns 0. All other actions have no effect.
    """

    def observe(state):
        bit, time = state
        return jnp.stack([jnp.where(time == 0, bit, 0.0), 1.0 * (time == length + 1)])

    def step(state, action):
        bit, time = state
        last = time == length + 1
        right = (action == 1) == (bit > 0)
        reward = jnp.where(last, jnp.where(right, 1.0, -1.0), 0.0)
        return Transition((bit, time + 1), reward, last, jnp.zeros_like(last))

    begin = lambda noise: (jnp.where(noise[0] < 0.5, -1.0, 1.0), jnp.array(0))
    return World(2, 2, 1, begin, observe, step)


def masked_cartpole() -> World:
    """Return cart and pole without its velocities: balance the pole, in 500 steps.

    The rules are those of CartPole-v1 in Gymnasium, except that gravity is that of the
    study `control` (9.81 m/s² instead of 9.8), and that the agent observes the position
    and the angle only. Each step earns 1.
    """
    system = SYSTEMS["cartpole"]

    def begin(noise):
        return 0.1 * noise - 0.05, jnp.array(0)

    def observe(state):
        return state[0][::2] / jnp.array([CART_LIMIT, POLE_LIMIT])

    def step(state, action):
        moving, time = state
        force = system.limit[0] * (2.0 * action - 1.0)
        moving = moving + CART_TIME * system.derivative(moving, force[None])
        fallen = jnp.abs(moving[::2]) > jnp.array([CART_LIMIT, POLE_LIMIT])
        fallen = jnp.any(fallen)
        late = (time + 1 >= CART_STEPS) & ~fallen
        return Transition((moving, time + 1), jnp.array(1.0), fallen, late)

    return World(2, 2, 4, begin, observe, step, scale=0.05)


def pendulum() -> World:
    """Return the pendulum of the study `control`, with the torques −2, 0 and 2 N m.

    An episode begins at a random angle and lasts 200 steps (10 s). The observation is
    the sine and cosine of the angle, and the angular velocity. A step earns minus the
    cost of the study `control`, which is near 0 if the pendulum stands upright, and
    near 2 if it hangs.
    """
    system, nothing = SYSTEMS["pendulum"], jnp.zeros(1)

    def begin(noise):
        return (2 * noise - 1) * jnp.array([jnp.pi, 1.0]), jnp.array(0)

    def step(state, action):
        moving, time = state
        torque = (system.limit[0] * (action - 1.0))[None]
        moving = advance(system, moving, torque)
        moving = moving.at[0].set(wrapped(moving[0]))
        reward = -system.cost(moving, torque, nothing)
        late = time + 1 >= system.judged
        return Transition((moving, time + 1), reward, jnp.zeros_like(late), late)

    observe = lambda state: system.features(state[0], nothing)
    return World(3, 3, 2, begin, observe, step, scale=0.05)


WORLDS: dict[str, Callable[[], World]] = {
    "cartpole": masked_cartpole,
    "pendulum": pendulum,
}


def make_world(name: str) -> World:
    """Return an environment: cartpole, pendulum, or chain_N with the length N."""
    kind, _, length = name.partition("_")
    return memory_chain(int(length)) if kind == "chain" else WORLDS[name]()


def is_world(name: str) -> bool:
    """Return whether `make_world` knows a name."""
    kind, _, length = name.partition("_")
    return name in WORLDS or (kind == "chain" and length.isdecimal())
