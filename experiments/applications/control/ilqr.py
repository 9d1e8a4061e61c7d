"""Iterative LQR (iLQR): locally optimal actions, as a reference for policies.

    u_t = limit · tanh(v_t),      v ← v + α k_t + K_t (s − s_old)

The action u_t is bounded, because it is the tanh of an unbounded v_t. Each iteration
linearises the simulator's step around the old states s_old, and approximates the cost
by a quadratic function. The resulting linear-quadratic problem is solved backwards in
time. The solution is the change k_t of v_t, and the gain K_t of feedback from the new
states s. The damping λ is added to the second derivative of the cost with respect to
v_t; λ grows if no step size α lowers the cost.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.applications.control.mechanics import advance, System

STEPS = [0.5**i for i in range(10)]  # step sizes α, all tried at each iteration
LEAST, MOST = 1e-6, 1e8  # bounds of the damping λ
DONE = 1e-5  # smallest relative decrease of the cost; iLQR stops below it


class _Reached(NamedTuple):
    states: jax.Array  # [T + 1, n] states s of the episode
    raw: jax.Array  # [T, m] unbounded actions v, before tanh
    cost: jax.Array  # [] cost, summed over the episode
    damping: jax.Array  # [] damping λ
    tried: jax.Array  # [] int, number of iterations so far


def _act(system: System, raw: jax.Array) -> jax.Array:
    return jnp.array(system.limit) * jnp.tanh(raw)


def _play_step(system: System, state, raw, goal):
    """Return the state after one time step, and the cost of the step."""
    action = _act(system, raw)
    state = advance(system, state, action)
    return state, system.cost(state, action, goal)


def _roll(system: System, old_states, raw, gains, goals, alpha):
    """Simulate an episode with changed actions; return its states, actions and cost."""
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
    """Return the change k of the raw actions v, and the gain K, at each time step.

    The change k and the gain K are NaN if the damped cost is not convex in v.
    """
    cost = lambda s, v, goal: system.cost(s, _act(system, v), goal)
    move = lambda s, v: advance(system, s, _act(system, v))
    A, B = jax.vmap(jax.jacfwd(move, (0, 1)))(reached.states[:-1], reached.raw)
    along = reached.states[1:], reached.raw, goals  # costs depend on the next state
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
    """Improve the actions of each episode separately, by iterative LQR.

    Args:
      system: the system to control.
      states: states of the episodes, including the initial states, [T + 1, B, n].
        Actions alone would not suffice: without feedback, they do not reproduce the
        episode of an unstable system.
      raw: v [T, B, m], the actions before tanh that led to `states`.
      goals: the goal at each step of each episode, [T, B, g].
      iterations: largest number of iterations of iLQR.

    Returns:
      The improved states [T + 1, B, n], the improved v [T, B, m], and the mean cost of
      a step [B]. No improved episode costs more than the given episode.

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
    """Run one iteration; if no step size lowers the cost, only raise the damping λ."""
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
