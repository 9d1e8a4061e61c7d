"""Solvers and adjoints of fixed points, with reference gradients computed in NumPy.

The network's state is the fixed point of f(h) = tanh(h W + x), and the loss is Σ (h −
target)². The adjoint z solves the linear equation z = Jᵀ z + c. Here J is the Jacobian
of f at the fixed point, and c is the derivative of the loss with respect to h.
"""

from functools import cache
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients

N, BATCH = 3, 4
TIGHT = {"tol": 1e-13, "max_steps": 2000}
SOLVERS = {
    "relaxation": gradients.solvers.relaxation(0.9, **TIGHT),
    "anderson": gradients.solvers.anderson(4, 0.9, **TIGHT),
    "broyden": gradients.solvers.broyden(3, **TIGHT),
    "auto": gradients.solvers.auto(**TIGHT),
}
ADJOINTS = {
    "relaxation": gradients.adjoints.relaxation(0.9, **TIGHT),
    "anderson": gradients.adjoints.anderson(3, **TIGHT),
    "broyden": gradients.adjoints.broyden(4, **TIGHT),
    "cg": gradients.adjoints.cg(**TIGHT),
}
# This adjoint is its own solver, and runs so many steps that it settles.
OWN = {"reversible": gradients.adjoints.reversible(0.5, steps=400)}
W = np.array([[0.3, -0.6, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.3]])
f = lambda w, h, x: jnp.tanh(h @ w + x)
square = lambda h, target: jnp.sum((h - target) ** 2, axis=-1)

_counts = np.array([1.0, 0.0, 2.0, 0.5])
# Format: {name: function that changes the arguments (init, x, target, weights)}.
CONDITIONS = {
    "plain": lambda h, x, t, w: (h, x, t, w),
    "zero_init": lambda h, x, t, w: (0 * h, x, t, w),
    "far_init": lambda h, x, t, w: (5 + 0 * h, x, t, w),
    "init_at_the_fixed_point": lambda h, x, t, w: (settled(W, x), x, t, w),
    "large_inputs": lambda h, x, t, w: (h, 4 * x, t, w),
    "weights_random": lambda h, x, t, w: (h, x, t, _counts + 0.1),
    "weights_of_some": lambda h, x, t, w: (h, x, t, _counts),
    "weights_zero": lambda h, x, t, w: (h, x, t, 0 * w),
    "nan_target_of_weight_0": lambda h, x, t, w: (
        h,
        x,
        np.where(_counts[:, None] == 0, np.nan, t),
        _counts,
    ),
}


class Program(NamedTuple):
    """A solver and an adjoint solver, which are tested together."""

    solver: str
    adjoint: str

    @property
    def name(self):
        return f"{self.solver}/{self.adjoint}"

    def cells(self):
        return [f"{self.name}/{name}" for name in CONDITIONS]


PROGRAMS = [Program(*names) for names in product(SOLVERS, ADJOINTS)]
PROGRAMS += [Program("own", name) for name in OWN]
FAST = {Program("relaxation", "cg")}


def settled(w, x):
    h = np.zeros_like(x)
    for _ in range(2000):
        h = np.tanh(h @ w + x)
    return h


def make(name):
    n = np.random.default_rng(list(name.encode()))
    init, x, target = (0.5 * n.normal(size=(BATCH, N)) for _ in range(3))
    return CONDITIONS[name](init, x, target, np.ones(BATCH))


def defined(init, x, target, weights):
    """Return the weighted mean loss and its gradient with respect to W, by NumPy."""
    h, shares = settled(W, x), weights / (weights.sum() or 1)
    target = np.where(shares[:, None] == 0, 0, target)
    value, grad = np.sum(shares * np.sum((h - target) ** 2, axis=-1)), np.zeros_like(W)
    for b in range(BATCH):
        slope = 1 - h[b] ** 2
        J = slope[:, None] * W.T
        c = 2 * shares[b] * (h[b] - target[b])
        z = np.linalg.solve(np.eye(N) - J.T, c)
        grad += np.outer(h[b], z * slope)
    return value, grad


@cache
def run(program):
    own = program.adjoint in OWN
    solvers = (
        {"adjoint": OWN[program.adjoint]}
        if own
        else {
            "solver": SOLVERS[program.solver],
            "adjoint": ADJOINTS[program.adjoint],
        }
    )
    rule = jax.jit(gradients.recurrent_backprop(f, square, **solvers))
    found = {}
    for name in CONDITIONS:
        (value, equilibrium), grad = rule(W, *make(name))
        found[name] = jax.device_get((value, equilibrium.h, grad))
    return found
