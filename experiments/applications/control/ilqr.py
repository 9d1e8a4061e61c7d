"""Iterative LQR: locally optimal actions from each start, as a reference for policies.

    u_t = limit · tanh(v_t),      v ← v + α k_t + K_t (s − s_old)

The action u_t is a limited form of v_t. Each iteration linearises the step, and makes
the cost quadratic, around the old states s_old. The resulting linear-quadratic problem
is solved backwards in time for the change k_t of v_t, and the gain K_t. λ is added
to the second derivative of the cost in an action, as damping; λ grows if no step size α
lowers the cost.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.applications.control.mechanics import advance, System

STEPS = [0.5**i for i in range(10)]  # step sizes α, all tried at each iteration
LEAST, MOST = 1e-6, 1e8  # bounds of the damping λ
DONE = 1e-5  # stop if an iteration lowers the cost by a smaller share than this


class _Reached(NamedTuple):
    states: jax.Array  # [T + 1, n]
    raw: jax.Array  # actions before tanh, v [T, m]
    cost: jax.Array  # [] sum over the episode
    damping: jax.Array  # [] λ
    tried: jax.Array  # [] int, number of iterations so far


def _act(system: System, raw: jax.Array) -> jax.Array:
    return jnp.array(system.limit) * jnp.tanh(raw)


def _play_step(system: System, state, raw, goal):
    """Return the state after a step, and the cost of the step."""
    action = _act(system, raw)
    state = advance(system, state, action)
    return state, system.cost(state, action, goal)


def _roll(system: System, old_states, raw, gains, goals, alpha):
    """Play an episode with feedback; return (states, raw, cost)."""
    k, K = gains

    def body(state, inputs):
        old, v, k, K, goal = inputs
        v = v + alpha * k + K @ (state - old)
        new, cost = _play_step(system, state, v, goal)
        return new, (new, v, cost)

    inputs = old_states[:-1], raw, k, K, goals
    _, (states, raw, costs) = jax.lax.scan(body, old_states[0], inputs)
    states = jnp.concatenate([old_states[:1], states])
    return states, raw, jnp.sum(costs)


def _backward(system: System, reached: _Reached, goals):
    """Return change k and gain K at each step; NaN if the cost is not convex in v."""
    cost = lambda s, v, goal: system.cost(s, _act(system, v), goal)
    move = lambda s, v: advance(system, s, _act(system, v))
    A, B = jax.vmap(jax.jacfwd(move, (0, 1)))(reached.states[:-1], reached.raw)
    along = reached.states[1:], reached.raw, goals  # costs are of the new states
    slopes = jax.vmap(jax.grad(cost, (0, 1)))(*along)
    (C, _), (_, R) = jax.vmap(jax.hessian(cost, (0, 1)))(*along)

    def body(value, terms):
        V, w = value
        A, B, (c, r), C, R = terms
        V, w = V + C, w + c
        q_vv = R + B.T @ V @ B + reached.damping * jnp.eye(len(r))
        q_vs, q_v = B.T @ V @ A, r + B.T @ w
        both = jnp.concatenate([q_v[:, None], q_vs], axis=1)
        solved = -jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(q_vv), True), both)
        k, K = solved[:, 0], solved[:, 1:]
        V = A.T @ V @ A + q_vs.T @ K
        w = A.T @ w + q_vs.T @ k - reached.damping * K.T @ k
        return ((V + V.T) / 2 - reached.damping * K.T @ K, w), (k, K)

    n = reached.states.shape[1]
    end = jnp.zeros((n, n)), jnp.zeros(n)
    return jax.lax.scan(body, end, (A, B, slopes, C, R), reverse=True)[1]


@partial(jax.jit, static_argnums=(0, 4))
def ilqr(
    system: System,
    states: jax.Array,
    raw: jax.Array,
    goals: jax.Array,
    iterations: int = 150,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Improve the actions of each episode separately.

    Args:
      system: the system to control.
      states: states of the episodes, starts included, [T + 1, B, n]. States are needed
        because the actions alone, without feedback, do not repeat an unstable episode.
      raw: actions before tanh, v [T, B, m], that led to the states.
      goals: goals at each step, [T, B, g].
      iterations: largest number of iterations.

    Returns:
      The improved states [T + 1, B, n] and v [T, B, m]; and the mean cost of a step,
      [B], which is at most the cost of the given episodes.

    References:
      Li & Todorov, "Iterative linear quadratic regulator design for nonlinear
      biological movement systems", 2004.
    """

    def one(states, raw, goals):
        costs = system.cost(states[1:], _act(system, raw), goals)
        going = lambda reached: (reached.tried < iterations) & (reached.damping < MOST)
        reached = jax.lax.while_loop(
            going,
            partial(_improved, system, goals),
            _Reached(states, raw, jnp.sum(costs), jnp.float32(1), jnp.array(0)),
        )
        return reached.states, reached.raw, reached.cost / len(raw)

    return jax.vmap(one, (1, 1, 1), (1, 1, 0))(states, raw, goals)


def _improved(system: System, goals, reached: _Reached) -> _Reached:
    """Run one iteration; if the cost does not fall, only raise the damping λ."""
    gains = _backward(system, reached, goals)
    roll = lambda alpha: _roll(system, reached.states, reached.raw, gains, goals, alpha)
    states, raw, costs = jax.vmap(roll)(jnp.array(STEPS))
    costs = jnp.where(jnp.isnan(costs), jnp.inf, costs)
    best = jnp.argmin(costs)
    gained = reached.cost - costs[best]
    better = gained > 0
    keep = lambda new, old: jnp.where(better, new[best], old)
    slow = better & (gained < DONE * reached.cost)
    damping = jnp.where(better, reached.damping / 3, 4 * reached.damping)
    return _Reached(
        states=keep(states, reached.states),
        raw=keep(raw, reached.raw),
        cost=keep(costs, reached.cost),
        damping=jnp.where(slow, MOST, jnp.maximum(damping, LEAST)),
        tried=reached.tried + 1,
    )
