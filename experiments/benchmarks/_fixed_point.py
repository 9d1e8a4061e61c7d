"""Benchmark of the gradient of a fixed point, against jaxopt and optimistix.

The solvers of the libraries stop by different criteria, so equal tolerances would not
give equally good gradients. Each solver therefore gets the loosest tolerance with which
its gradient has a relative error of at most `TARGET`, for the fixed point and for the
adjoint. Errors are relative to the implicit gradient, computed in float64 by a dense
linear solve for each example; the notes of the table show them. Each library
differentiates the fixed point by its default method. optimistix is also timed with
GMRES, because its default method forms a dense Jacobian of the whole state.

The row "one evaluation" is the gradient of one evaluation of the map. The notes of our
rows say how many evaluations the fixed point and the adjoint took. The floor is the
time of the products of these evaluations.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments.benchmarks._equal_error import tune
from experiments.benchmarks._groups import Groups
from experiments.harness.timing import Measured, race, Work

# Each shape is (B, number of units n, spectral radius of W). The recurrent matrix
# W [n, n] is drawn from a normal distribution, and scaled to this spectral radius.
SHAPES = [(rows, rows, size) for rows in (64, 256) for size in (0.5, 0.9, 0.99)]
STEPS = 2000
TARGET = 1e-4  # relative error of each gradient
# Largest number of elements of a state whose dense Jacobian is formed: none of SHAPES,
# for which a call takes seconds, and 33 to 880 times as long as ours.
DENSE = 1000


OURS: dict[str, Callable[[float], Any]] = {  # {name: function tol -> solver}
    "fixed_point": lambda tol: gradients.solvers.relaxation(tol=tol, max_steps=STEPS),
    "fixed_point, auto": lambda tol: gradients.solvers.auto(tol=tol, max_steps=STEPS),
    "fixed_point, anderson": lambda tol: gradients.solvers.anderson(
        tol=tol, max_steps=STEPS
    ),
}


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
    taken: dict[str, tuple[int, int]] = {}

    def error_of(grad, *settings):
        got = np.asarray(grad(w, x, *settings))
        return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))

    for name, solver_at in _solvers(x.size).items():
        if name in OURS:  # the tolerance may be traced, so compile only once
            grad = jax.jit(
                lambda w, x, tol, at=solver_at: jax.grad(_value(at(tol)))(w, x)
            )
            error_at = partial(error_of, grad)
        else:
            error_at = lambda tol, at=solver_at: error_of(
                jax.jit(jax.grad(_value(at(tol))))
            )
        tuned = tune(error_at, TARGET)
        entrants[name] = jax.value_and_grad(_value(solver_at(tuned.tol))), (w, x)
        notes[name] = tuned.note(TARGET)
        if name in OURS:
            taken[name] = _steps(OURS[name](tuned.tol), w, x)
            notes[name] += "; {} + {} evaluations".format(*taken[name])
    missing = [n for n in ("jaxopt", "optimistix") if not _installed(n)]
    if missing:
        first = next(iter(notes))
        notes[first] += f"; not installed: {', '.join(missing)}"
    unrolled = lambda w, x: _repeated(w, x, x, 150)
    entrants["150 steps of bptt"] = jax.value_and_grad(_value(unrolled)), (w, x)
    notes["150 steps of bptt"] = f"error {error_of(jax.grad(_value(unrolled))):.1e}"
    once = lambda w, x: _settle(w, x, x)
    entrants["one evaluation"] = jax.value_and_grad(_value(once)), (w, x)
    entrants["100 evaluations"] = partial(_repeated, length=100), (w, x, x)
    work = {}
    for name, (forward, backward) in taken.items():
        # Each evaluation multiplies by W, and the gradient of W is one more product.
        flops = 2 * batch * units**2 * (forward + backward + 1)
        work[name] = Work(flops, 4 * (units + 2 * batch) * units)
    return race(group, entrants, repeats=repeats, notes=notes, work=work)


def _value(solve: Callable) -> Callable:
    return lambda w, x: jnp.mean(solve(w, x) ** 2)


def _repeated(w, h, x, length):
    body = lambda h, _: (_settle(w, h, x), None)
    return jax.lax.scan(body, h, length=length)[0]


def _steps(solver, w, x) -> tuple[int, int]:
    """Return how many evaluations the fixed point and the adjoint took."""
    rule = gradients.recurrent_backprop(
        _settle, lambda h, target: jnp.mean(h**2), solver=solver
    )
    (_, found), _ = jax.jit(rule)(w, jnp.zeros_like(x), x, x)
    return int(found.forward.steps), int(found.adjoint.steps)


def _settle(w, h, x):
    return jnp.tanh(h @ w + x)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _ours(solver: Callable) -> Callable:
    """Return a function tol -> (function (w, x) -> h) that solves by a solver of us."""

    def at(tol):
        options = {"solver": solver(tol)}
        return lambda w, x: gradients.fixed_point(
            _settle, w, jnp.zeros_like(x), x, **options
        )[0]

    return at


def _solvers(size: int) -> dict[str, Callable]:
    """Return {name: function tol -> (function (w, x) -> h)}."""
    solvers: dict[str, Callable] = {name: _ours(make) for name, make in OURS.items()}
    if _installed("jaxopt"):
        solvers["jaxopt"] = _by_jaxopt
    if _installed("optimistix"):
        lineax = importlib.import_module("lineax")
        solvers["optimistix, GMRES"] = lambda tol: _by_optimistix(
            tol, lineax.GMRES(rtol=tol, atol=0.1 * tol)
        )
        if size <= DENSE:
            solvers["optimistix"] = lambda tol: _by_optimistix(tol, None)
    return solvers


def _by_jaxopt(tol):
    jaxopt = importlib.import_module("jaxopt")
    linear = importlib.import_module("jaxopt.linear_solve")

    def solve(w, x):
        # jaxopt's tolerance for the fixed point is absolute; h is about as long as x.
        absolute = tol * float(np.sqrt(x.size)) / 10
        solver = jaxopt.FixedPointIteration(
            lambda h, w, x: _settle(w, h, x),
            maxiter=STEPS,
            tol=absolute,
            implicit_diff_solve=partial(linear.solve_normal_cg, tol=tol),
        )
        return solver.run(jnp.zeros_like(x), w, x).params

    return solve


def _by_optimistix(tol, linear_solver):
    optimistix = importlib.import_module("optimistix")
    adjoint = optimistix.ImplicitAdjoint(linear_solver)
    options = {} if linear_solver is None else {"adjoint": adjoint}

    def solve(w, x):
        solver = optimistix.FixedPointIteration(rtol=tol, atol=0.1 * tol)
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
