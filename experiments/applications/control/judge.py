"""Tests of the policies of `control`, and gradient flow through the simulator."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import diagnostics
from experiments.applications.control import policy, reference
from experiments.applications.control.mechanics import System

FLOWING, LAGS = 16, 100  # gradient flow: numbers of episodes and of time steps


def judge(config: Any, system: System, before, params, test) -> dict[str, Any]:
    """Score trained policies, untrained policies, no action, LQR and iLQR.

    Args:
      config: settings of the study.
      system: the system to control.
      before: initial parameters of the policies, leaves [seeds, ...].
      params: trained parameters of the policies, leaves [seeds, ...].
      test: initial states [B, n] and goals [T, B, g] of the test episodes.
    """
    start, goals = test
    played, untrained, idle = (
        policy.many(system, each, start, goals)
        for each in (params, before, jax.tree.map(jnp.zeros_like, before))
    )
    few = config.compared
    best = [
        reference.ilqr_costs(
            system,
            policy.some(idle, seed, few),
            policy.some(played, seed, few),
            goals[:, :few],
        )
        for seed in range(config.seeds)
    ]
    key = jax.random.key(config.first_seed + 1)
    rests, near, at = reference.near_rest(system, config.compared, system.judged, key)
    by_lqr = reference.lqr_costs(system, rests, near, at)
    mine = policy.many(system, params, near, at).costs
    return {
        "success": percent(played.success),
        "succeeded": [int(np.sum(played.success)), int(np.size(played.success))],
        "error": _errors(played),
        "cost": by_seed(played.costs),
        "untrained": percent(untrained.success),
        "untrained_cost": by_seed(untrained.costs),
        "untrained_error": _errors(untrained),
        "idle": percent(idle.success),
        "idle_cost": by_seed(idle.costs),
        "to_ilqr": reference.ratios(np.mean(played.costs[..., :few], axis=1), best),
        "to_lqr": reference.ratios(np.mean(mine, axis=1), by_lqr),
        "flow": [_flow(system, each, start, goals) for each in (before, params)],
    }


def by_seed(costs: jax.Array) -> list[float]:
    """Return each seed's mean cost of a step, from costs [seeds, T, B]."""
    return np.mean(costs, axis=(1, 2)).tolist()


def percent(success: jax.Array) -> list[float]:
    """Return each seed's success rate in percent, from success [seeds, B]."""
    return (100 * np.mean(success, axis=1)).tolist()


def _errors(played: policy.Played) -> list[list[float]]:
    """Return the mean distances from the goal in the last second of the test episodes.

    There is one list for each of the system's distances, with a value for each seed.
    """
    return np.mean(played.mean_error, axis=1).T.tolist()


@partial(jax.jit, static_argnums=0)
def _measured_flow(system: System, params, start, goals) -> diagnostics.GradientFlow:
    step, loss = policy.make_step(system), policy.make_loss(system)
    one = lambda params: diagnostics.gradient_flow(
        step, loss, params, start, goals, goals, samples=LAGS // 4
    )
    return jax.vmap(one)(params)


def _flow(system: System, params, start, goals) -> dict[str, Any]:
    """Measure how gradients grow or shrink, step by step back through the simulator."""
    lags = slice(LAGS), slice(FLOWING)
    flow = _measured_flow(system, params, start[lags[1]], goals[lags])
    flow = jax.tree.map(np.asarray, flow)
    of_seed = lambda i: jax.tree.map(lambda leaf: leaf[i], flow)
    return {
        "beta": flow.beta.tolist(),
        "verdict": [of_seed(i).verdict for i in range(len(flow.beta))],
        "lookback": flow.lookback.tolist(),
        "curve": flow.curve.tolist(),
    }
