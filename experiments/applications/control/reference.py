"""Costs with which policies are compared: those of LQR near the goal, and of iLQR."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_discrete_are

from experiments.applications.control.ilqr import ilqr
from experiments.applications.control.mechanics import advance, System, uniform
from experiments.applications.control.policy import Played

NEAR = 0.1  # largest difference of a start from the state at rest, in each element


def lqr_gain(A: Any, B: Any, C: Any, R: Any) -> np.ndarray:
    """Return the gain K [m, n] of LQR; the optimal action in the state s is u = −K s.

        s_{t+1} = A s_t + B u_t,    cost Σ_t (s_{t+1}ᵀ C s_{t+1} + u_tᵀ R u_t) / 2

    Args:
      A: [n, n], derivative of the next state with respect to the state.
      B: [n, m], derivative of the next state with respect to the action.
      C: [n, n], matrix of the quadratic cost of a state.
      R: [m, m], matrix of the quadratic cost of an action.
    """
    A, B, C, R = (np.asarray(matrix, float) for matrix in (A, B, C, R))
    C, R = (C + C.T) / 2, (R + R.T) / 2  # remove asymmetry caused by rounding
    Q = A.T @ C @ A  # the next state's cost as a quadratic form in the state s_t
    P = solve_discrete_are(A, B, (Q + Q.T) / 2, R + B.T @ C @ B, s=A.T @ C @ B)
    return np.linalg.solve(R + B.T @ (C + P) @ B, B.T @ (C + P) @ A)


@partial(jax.jit, static_argnums=0)
def linearised(system: System, rests: jax.Array, goals: jax.Array) -> tuple:
    """Return the matrices A, B, C and R of :func:`lqr_gain`, for each state at rest."""

    def one(state, goal):
        still = jnp.zeros(len(system.limit))
        A, B = jax.jacfwd(partial(advance, system), (0, 1))(state, still)
        (C, _), (_, R) = jax.hessian(system.cost, (0, 1))(state, still, goal)
        return A, B, C, R

    return jax.vmap(one)(rests, goals)


@partial(jax.jit, static_argnums=(0, 1, 2))
def near_rest(system: System, count: int, steps: int, key: jax.Array) -> tuple:
    """Draw B states at rest, an initial state near each, and goals [T, B, g]."""
    at, beside = (jax.random.split(half, count) for half in jax.random.split(key))
    rests, goals = jax.vmap(system.rest)(at)
    away = jax.vmap(lambda key: uniform(key, *[NEAR] * len(system.states)))(beside)
    return rests, rests + away, jnp.broadcast_to(goals, (steps, *goals.shape))


def lqr_costs(system: System, rests, starts, goals) -> np.ndarray:
    """Return each episode's mean cost of a step, [B], if LQR chooses the actions.

    The actions are clipped to the limits of the system.
    """
    found = zip(*linearised(system, rests, goals[0]), strict=True)
    gains = jnp.array([lqr_gain(*matrices) for matrices in found], jnp.float32)
    return np.asarray(_follow(system, gains, rests, starts, goals))


@partial(jax.jit, static_argnums=0)
def _follow(system: System, gains, rests, starts, goals):
    limit = jnp.array(system.limit)

    def body(state, goal):
        action = jnp.einsum("bmn,bn->bm", gains, rests - state)
        action = jnp.clip(action, -limit, limit)
        state = advance(system, state, action)
        return state, system.cost(state, action, goal)

    return jnp.mean(jax.lax.scan(body, starts, goals)[1], axis=0)


def ilqr_costs(
    system: System, idle: Played, played: Played, goals: jax.Array
) -> np.ndarray:
    """Return the lowest mean cost of a step that iLQR finds from each start, [B].

    iLQR runs twice: it starts once from episodes without action, and once from a
    policy's episodes. The lower of the two costs is returned.

    Args:
      system: the system to control.
      idle: episodes without action, [T, B, …].
      played: episodes of the policy, with the same initial states as `idle`.
      goals: the goal at each step of each episode, [T, B, g].
    """
    # In float32, tanh can round to ±1, where arctanh is infinite.
    share = jnp.clip(played.actions / jnp.array(system.limit), -1 + 1e-6, 1 - 1e-6)
    both = lambda *parts: jnp.concatenate(parts, axis=1)
    states = both(idle.states, played.states)
    raw = both(jnp.zeros_like(share), jnp.arctanh(share))
    _, _, costs = ilqr(system, states, raw, both(goals, goals))
    return np.asarray(costs).reshape(2, -1).min(axis=0)


def ratios(of: Any, by: Any) -> list[float]:
    """Return the mean of `of` divided by the mean of `by`, for each seed.

    Both means are over the episodes, which are the last axis.
    """
    return (np.mean(of, axis=-1) / np.mean(by, axis=-1)).tolist()
