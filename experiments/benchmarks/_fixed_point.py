"""Benchmark of the gradient of a fixed point, against jaxopt and optimistix.

The solvers of the libraries stop when a norm of the residual is below a tolerance, but
they use different norms. The tolerances are chosen so that all libraries find the fixed
point with about the same error. Each library differentiates the fixed point by its
default method. optimistix is also timed with GMRES, because the default method of
optimistix forms a dense Jacobian of the whole state. The notes of the table show the
relative error of each gradient. The error is relative to the implicit gradient,
computed by a dense linear solve in float64.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments.benchmarks._groups import Groups
from experiments.harness.timing import Measured, race

# Each shape is (B, number of units n, spectral radius of W). The recurrent matrix
# W [n, n] is drawn from a normal distribution, and scaled to this spectral radius.
SHAPES = [(rows, rows, size) for rows in (64, 256) for size in (0.5, 0.9, 0.99)]
STEPS, TOL = 1000, 1e-5
DENSE = 5000  # largest number of elements of a state whose dense Jacobian is formed


def fixed_point() -> Groups:
    """Return one group of timings for each shape of the fixed point h = tanh(h W + x).

    Each timed call computes the mean of h², and its gradient with respect to W.
    """
    groups: Groups = {}
    for shape in SHAPES:
        group = "fixed point, h {}×{}, ρ(W) {}".format(*shape)
        groups[group] = partial(_race, group, *shape)
    return groups


def _race(
    group: str, batch: int, units: int, size: float, repeats: int
) -> list[Measured]:
    keys = jax.random.split(jax.random.key(0))
    w = np.array(jax.random.normal(keys[0], (units, units)))
    w = jnp.asarray(w * size / np.abs(np.linalg.eigvals(w)).max())
    x = 0.1 * jax.random.normal(keys[1], (batch, units))
    exact, entrants, notes = _exact(np.asarray(w), np.asarray(x)), {}, {}
    for name, solve in _solvers(x.size).items():
        value = lambda w, x, solve=solve: jnp.mean(solve(w, x) ** 2)
        entrants[name] = jax.value_and_grad(value), (w, x)
        got = np.asarray(jax.jit(jax.grad(value))(w, x))
        error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        notes[name] = f"error {error:.0e}"
    missing = [n for n in ("jaxopt", "optimistix") if not _installed(n)]
    if missing:
        first = next(iter(notes))
        notes[first] += f"; not installed: {', '.join(missing)}"
    once = lambda w, x: jnp.mean(_settle(w, x, x) ** 2)
    entrants["one evaluation"] = jax.value_and_grad(once), (w, x)
    return race(group, entrants, repeats=repeats, notes=notes)


def _settle(w, h, x):
    return jnp.tanh(h @ w + x)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _solvers(size: int) -> dict[str, Callable]:
    def ours(solver):
        start = jnp.zeros_like
        solve = gradients.fixed_point
        return lambda w, x: solve(_settle, w, start(x), x, solver=solver)[0]

    settings = {"tol": TOL, "max_steps": STEPS}
    relaxation = ours(gradients.solvers.relaxation(**settings))
    anderson = ours(gradients.solvers.anderson(**settings))

    def unrolled(w, x):
        body = lambda h, _: (_settle(w, h, x), None)
        return jax.lax.scan(body, jnp.zeros_like(x), length=150)[0]

    solvers: dict[str, Callable] = {"fixed_point": relaxation}
    solvers |= {"fixed_point, anderson": anderson, "150 steps of bptt": unrolled}
    if _installed("jaxopt"):
        jaxopt = importlib.import_module("jaxopt")

        def by_jaxopt(w, x):
            solver = jaxopt.FixedPointIteration(
                lambda h, w, x: _settle(w, h, x), maxiter=STEPS, tol=10 * TOL
            )
            return solver.run(jnp.zeros_like(x), w, x).params

        solvers["jaxopt"] = by_jaxopt
    if _installed("optimistix"):
        lineax = importlib.import_module("lineax")
        gmres = lineax.GMRES(rtol=TOL, atol=TOL / 10)
        solvers["optimistix, GMRES"] = _by_optimistix(gmres)
        if size <= DENSE:
            solvers["optimistix"] = _by_optimistix(None)
    return solvers


def _by_optimistix(linear_solver):
    optimistix = importlib.import_module("optimistix")
    adjoint = optimistix.ImplicitAdjoint(linear_solver)
    options = {} if linear_solver is None else {"adjoint": adjoint}

    def solve(w, x):
        solver = optimistix.FixedPointIteration(rtol=TOL, atol=TOL / 10)
        return optimistix.fixed_point(
            lambda h, args: _settle(args[0], h, args[1]),
            solver,
            jnp.zeros_like(x),
            (w, x),
            max_steps=STEPS,
            **options,
        ).value

    return solve


def _exact(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute the implicit gradient in float64, by a linear solve for each example."""
    w, x = w.astype(float), x.astype(float)
    h = np.zeros_like(x)
    for _ in range(2000):
        h = np.tanh(h @ w + x)
    grad = np.zeros_like(w)
    for row in h:
        slope = 1 - row**2
        jacobian = slope[:, None] * w.T  # ∂h_new/∂h
        z = np.linalg.solve(np.eye(len(w)) - jacobian.T, 2 * row / h.size)
        grad += np.outer(row, slope * z)
    return grad
