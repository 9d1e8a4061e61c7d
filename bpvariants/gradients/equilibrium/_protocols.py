"""Protocols for fixed-point solvers and adjoint solvers."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from bpvariants._examples import norm, normalised, times
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._solution import FixedPointInfo, Outcome
from bpvariants.types import PyTree


class Solver(Protocol):
    """A solver that finds a root of gap(h) = g(h) − h, a fixed point of the map g.

    A solver is a pytree, so its settings may be tracers.
    """

    @property
    def tol(self) -> float | jax.Array:
        """Largest relative residual that counts as converged."""
        ...

    def solve(
        self,
        gap: Callable[[PyTree], PyTree],
        start: PyTree,
        scale: Callable[[PyTree], jax.Array],
        batch_ndim: int,
    ) -> Outcome:
        """Iterate from start until ‖g(h) − h‖ ≤ tol · scale(h), or until a failure."""
        ...


class Adjoint(Protocol):
    """A solver of the linear equation matvec(z) = b for z; the solver is a pytree.

    With the Jacobian J of the map, matvec(z) is (I − Jᵀ) z in reverse mode and
    (I − J) z in forward mode. If `approximate` is True, a z whose residual is above the
    tolerance does not count as a failure.
    """

    approximate: ClassVar[bool]

    def __call__(
        self,
        matvec: Callable[[PyTree], PyTree],
        b: PyTree,
        batch_ndim: int,
        start: PyTree | None = None,
    ) -> tuple[PyTree, FixedPointInfo]:
        """Return z and its convergence report; iterative solvers begin at `start`."""
        ...


def solve_linear(
    solver: Solver,
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    batch_ndim: int,
    start: PyTree | None,
    krylov: bool = False,
) -> tuple[jax.Array, Outcome]:
    """Solve matvec(z) = b / s for each example, s = max |b|; return s and the outcome.

    If `krylov` is True, conjugate gradients solve the examples on which the solver
    fails.
    """
    size, b = normalised(b, batch_ndim)
    begin = b if start is None else begin_at(times(1 / size, start), b, batch_ndim)
    options = {}
    if krylov:
        conjugate = lambda tree: jax.tree.map(jnp.conj, tree)
        transpose = jax.linear_transpose(matvec, b)
        options["pull"] = lambda r: conjugate(*transpose(conjugate(r)))
    length = norm(b, batch_ndim)
    outcome = solver.solve(
        lambda z: jax.tree.map(jnp.subtract, b, matvec(z)),
        begin,
        lambda z: length,
        batch_ndim,
        **options,
    )
    return size, outcome


def begin_at(start: PyTree, otherwise: PyTree, batch_ndim: int) -> PyTree:
    """Return `start`, but `otherwise` for examples whose start is not finite."""
    return select(jnp.isfinite(norm(start, batch_ndim)), start, otherwise)


def check_no_start(adjoint: object, start: Any) -> None:
    """Check that no start is given to an adjoint solver that takes none."""
    if start is not None:
        raise ValueError(
            f"start_adjoint must be left out with {type(adjoint).__name__}, which "
            "takes no start; of gradients.adjoints, relaxation, anderson, broyden and "
            "cg take one."
        )
