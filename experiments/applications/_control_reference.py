"""What a policy is measured by: LQR near the goal, and iLQR from the same starts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_discrete_are

from experiments.applications._control_ilqr import ilqr
from experiments.applications._control_policy import many, play_by
from experiments.applications._control_systems import advance, System

NEAR = 0.05  # rad, m and their rates: how far starts near the goal are from it
POSES = 16


def lqr_gain(system: System, state: jax.Array, goal: jax.Array) -> np.ndarray:
    """Return K of the best u = −K (s − state) near a rest, [m, n].

    The step is linearised by `jax.jacfwd`, the cost of (s_{t+1}, u_t) squared, and the
    discrete Riccati equation solved.

    Args:
      system: to drive.
      state: at rest [n].
      goal: [g], where it costs least.
    """
    still = jnp.zeros(len(system.limit))
    A, B = (
        np.asarray(part, float)
        for part in jax.jacfwd(partial(advance, system), (0, 1))(state, still)
    )
    curvature = jax.hessian(system.cost, (0, 1))(state, still, goal)
    C, R = (np.asarray(curvature[i][i], float) for i in (0, 1))
    # What u_t costs in the state that it leads to is a part of the Riccati equation's
    # terms at t: Q = AᵀCA, S = AᵀCB, R + BᵀCB.
    P = solve_discrete_are(A, B, A.T @ C @ A, R + B.T @ C @ B, s=A.T @ C @ B)
    return np.linalg.solve(R + B.T @ (C + P) @ B, B.T @ (C + P) @ A)
