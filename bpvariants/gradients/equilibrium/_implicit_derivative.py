"""Linear solve for the derivative of a fixed point, and its results if it fails.

For the fixed point h = f(θ, h) with the Jacobian J = ∂f/∂h, a cotangent b of h and the
adjoint z, the linear equations are

    (I − J) dh = ∂f/∂θ dθ    in forward mode,      (I − Jᵀ) z = b    in reverse mode.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bpvariants._dtypes import is_floating
from bpvariants._examples import largest, norm
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._protocols import Adjoint
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.gradients.equilibrium._with_derivative_of import with_derivative_of
from bpvariants.types import PyTree

# An iteration contracts if info.spectral_radius is below this threshold. The threshold
# is less than 1, because an iteration that repeats a cycle of states has an estimated
# spectral radius of about 1.
CONTRACTS = 0.9999
OnFailure = Literal["nan", "truncate", "ignore"]


def check_on_failure(on_failure: str) -> None:
    """Check that `on_failure` is "nan", "truncate" or "ignore"."""
    if on_failure not in get_args(OnFailure):
        raise ValueError(
            "on_failure must be 'nan', 'truncate' or 'ignore', got "
            f"{on_failure!r}; 'nan' makes gradients NaN for examples that did not "
            "converge."
        )


def solve_adjoint(
    matvec: Callable[[PyTree], PyTree],
    rhs: PyTree,
    adjoint: Adjoint,
    batch_ndim: int,
    on_failure: OnFailure = "nan",
    forward: FixedPointInfo | None = None,
    start: PyTree | None = None,
) -> tuple[PyTree, FixedPointInfo]:
    """Solve matvec(z) = rhs by an adjoint solver; return z and its convergence report.

    `on_failure` selects what z is for an example whose equation the adjoint solver did
    not solve. The derivatives of z are solutions of further linear equations, which the
    same adjoint solver solves.
    """
    # custom_linear_solve needs a tangent of every leaf, so rhs is raveled into one.
    vector, as_tree = ravel_pytree(rhs)
    on_vectors = lambda function, vector: ravel_pytree(function(as_tree(vector)))[0]

    def solve(matvec, vector):
        on_trees = lambda tree: as_tree(matvec(ravel_pytree(tree)[0]))
        b = as_tree(vector)
        if on_failure == "truncate" and forward is not None:
            z, info = _truncated(adjoint, on_trees, b, batch_ndim, forward, start)
        else:
            z, info = _call(adjoint, on_trees, b, batch_ndim, start)
        if on_failure == "nan" and not adjoint.approximate:
            z = nan_unless(info.converged, z)
        return ravel_pytree(z)[0], info

    solution, info = jax.lax.custom_linear_solve(
        partial(on_vectors, matvec),
        vector,
        solve,
        transpose_solve=solve,
        has_aux=True,
    )
    return as_tree(solution), info


def _call(adjoint: Adjoint, matvec: Any, b: PyTree, batch_ndim: int, start: Any):
    options = {} if start is None else {"start": start}
    return adjoint(matvec, b, batch_ndim, **options)


def _truncated(
    adjoint: Adjoint,
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    batch_ndim: int,
    forward: FixedPointInfo,
    start: PyTree | None,
) -> tuple[PyTree, FixedPointInfo]:
    """Return a z that is always finite and linear in b, and its convergence report.

    With an exact adjoint solver, z is b for the examples whose fixed-point iteration
    neither converged nor contracted. The choice of these examples does not depend on b.
    So forward and reverse mode choose the same examples, and are transposes of each
    other.
    """
    if adjoint.approximate:
        z, info = _call(adjoint, matvec, b, batch_ndim, start)
    else:
        contracts = forward.spectral_radius < CONTRACTS  # False if the radius is NaN
        solvable = forward.converged | contracts
        zeros = jax.tree.map(jnp.zeros_like, b)
        to_solve = select(solvable, b, zeros)
        z, info = _call(adjoint, matvec, to_solve, batch_ndim, start)
        z = select(solvable, z, b)
        left = jnp.where(solvable, info.residual, jnp.inf)
        info = info._replace(residual=left, converged=info.converged & solvable)
    return select(jnp.isfinite(norm(z, batch_ndim)), z, b), info


def zero_unless(found: jax.Array, x: PyTree) -> PyTree:
    """Replace x by zeros for the examples where no evaluation of the map was finite.

    With zeros, the derivatives of arrays that all examples share, such as weights, do
    not become NaN by a product 0 · NaN. The derivative of the result with respect to x
    is the identity, as if x had not been changed.
    """

    def clean(leaf):
        shared = jnp.shape(leaf)[: found.ndim] != found.shape
        if shared or not is_floating(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        return with_derivative_of(leaf, select(found, leaf, jnp.zeros_like(leaf)))

    return jax.tree.map(clean, x)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def derivative_if(batch_ndim: int, converged: jax.Array, h: PyTree) -> PyTree:
    """Return h, with a derivative of NaN for examples that did not converge.

    In reverse mode, an example whose cotangent is 0 keeps a derivative of 0.
    """
    del batch_ndim, converged
    return h


@derivative_if.defjvp
def _derivative_if_jvp(batch_ndim, primals, tangents):
    converged, h = primals
    vector, as_tree = ravel_pytree(tangents[1])

    def forward(_, vector):
        return ravel_pytree(nan_unless(converged, as_tree(vector)))[0]

    def backward(_, vector):
        b = as_tree(vector)
        right = converged | unused(b, batch_ndim)
        return ravel_pytree(nan_unless(right, b))[0]

    # custom_linear_solve takes its transpose as an argument, here `backward`.
    h_dot = jax.lax.custom_linear_solve(
        lambda vector: vector, vector, forward, transpose_solve=backward
    )
    return derivative_if(batch_ndim, converged, h), as_tree(h_dot)


def unused(cotangent: PyTree, batch_ndim: int) -> jax.Array:
    """Return a mask [*batch] of the examples whose cotangent is exactly 0."""
    return largest(cotangent, batch_ndim) == 0


def nan_unless(right: jax.Array, tree: PyTree) -> PyTree:
    """Replace all values of an example by NaN, unless `right` is True for it."""
    nan: Any = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)
    return select(right, tree, nan)
