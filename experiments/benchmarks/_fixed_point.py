"""The gradient of a fixed point, against jaxopt and optimistix as they come.

Tolerances, which each of them measures in its own norm, are set so that the forward
passes end at about the same error; how to differentiate is left to their defaults. The
error told is that of the gradient, relative to the implicit gradient that a dense solve
gives in float64.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments.benchmarks._timing import Measured, race

SHAPES = [(64, 64, 0.5), (64, 64, 0.9), (16, 256, 0.9)]  # B, n, spectral norm of W
STEPS, TOL = 500, 1e-5


def fixed_point(repeats: int) -> Iterator[Measured]:
    """Time value and gradient of mean h² in the recurrent weights."""
    for batch, units, size in SHAPES:
        keys = jax.random.split(jax.random.key(0))
        w = jax.random.orthogonal(keys[0], units) * size
        x = 0.1 * jax.random.normal(keys[1], (batch, units))
        exact, entrants, notes = _exact(np.asarray(w), np.asarray(x)), {}, {}
        for name, solve in _solvers().items():
            value = lambda w, x, solve=solve: jnp.mean(solve(w, x) ** 2)
            entrants[name] = jax.value_and_grad(value), (w, x)
            got = np.asarray(jax.jit(jax.grad(value))(w, x))
            error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
            notes[name] = f"error {error:.0e}"
        missing = [n for n in ("jaxopt", "optimistix") if not _installed(n)]
        if missing:
            first = next(iter(notes))
            notes[first] += f"; not installed: {', '.join(missing)}"
        group = f"fixed point, h {batch}×{units}, ‖W‖ {size}"
        yield from race(group, entrants, repeats=repeats, notes=notes)


def _settle(w, x, h):
    return jnp.tanh(h @ w + x)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _solvers() -> dict[str, Callable]:
    def ours(w, x):
        options = {"tol": TOL, "max_steps": STEPS, "batch_ndim": 0}
        return gradients.fixed_point(_settle, w, x, jnp.zeros_like(x), **options)[0]

    def unrolled(w, x):
        body = lambda h, _: (_settle(w, x, h), None)
        return jax.lax.scan(body, jnp.zeros_like(x), length=150)[0]

    solvers: dict[str, Callable] = {"fixed_point": ours, "150 steps of bptt": unrolled}
    if _installed("jaxopt"):
        jaxopt = importlib.import_module("jaxopt")

        def by_jaxopt(w, x):
            solver = jaxopt.FixedPointIteration(
                lambda h, w, x: _settle(w, x, h), maxiter=STEPS, tol=10 * TOL
            )
            return solver.run(jnp.zeros_like(x), w, x).params

        solvers["jaxopt"] = by_jaxopt
    if _installed("optimistix"):
        optimistix = importlib.import_module("optimistix")

        def by_optimistix(w, x):
            solver = optimistix.FixedPointIteration(rtol=TOL, atol=TOL / 10)
            return optimistix.fixed_point(
                lambda h, args: _settle(args[0], args[1], h),
                solver,
                jnp.zeros_like(x),
                (w, x),
                max_steps=STEPS,
            ).value

        solvers["optimistix"] = by_optimistix
    return solvers


def _exact(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the implicit gradient in float64, an example at a time."""
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
