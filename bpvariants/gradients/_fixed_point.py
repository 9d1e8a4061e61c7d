"""A fixed point as a differentiable function: implicit differentiation.

Notation: h* = f(θ, x, h*), J = ∂f/∂h at h*. Differentiating both sides,

    dh* = (I − J)⁻¹ (∂f/∂θ dθ + ∂f/∂x dx),

and backwards, for a cotangent b of h*, with the adjoint z,

    z = (I − Jᵀ)⁻¹ b,    dE/dθ = (∂f/∂θ)ᵀ z,    dE/dx = (∂f/∂x)ᵀ z.

None of it depends on how h* was found, nor on the number of steps that took.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bpvariants._checks import check_floating, check_like
from bpvariants.gradients._adjoints import Adjoint, check_relaxation, relax
from bpvariants.gradients._masking import select
from bpvariants.gradients._relaxation import (
    FixedPointInfo,
    largest,
    norm,
    relax_to_fixed_point,
)
from bpvariants.types import PyTree


def fixed_point(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    x: PyTree,
    init: PyTree,
    *,
    damping: float | jax.Array = 1.0,
    tol: float | jax.Array = 1e-5,
    max_steps: int | jax.Array = 1000,
    adjoint: Adjoint | None = None,
    batch_ndim: int = 0,
) -> tuple[PyTree, FixedPointInfo]:
    """Return the h* = f(θ, x, h*) that relaxation from init finds, differentiably.

        h ← (1 − τ) h + τ f(θ, x, h)    until ‖f(θ, x, h) − h‖ ≤ tol · max(‖h‖, tol)

    In params, x, and whatever f closes over it can be differentiated forward and in
    reverse, again and again; the derivative in init is 0. Where the fixed point was not
    reached, or its adjoint not solved, the derivative is NaN rather than a wrong number
    (unless nothing depends on that example), while h* is the best iterate found.

    Time is that of one evaluation of f for each step, forward and backward; memory is
    that of a few states and of one evaluation's derivative, whatever the steps.

    Args:
      f: one evaluation (params, x, h) -> h of the map, of the structure of init.
      params: its parameters θ.
      x: its static input, leaves [*batch, ...].
      init: where relaxation begins, floating leaves [*batch, ...].
      damping: τ in 0 < τ ≤ 1. Less than 1 is slower where f is a contraction, and
        converges also where J has eigenvalues below −1, which make it oscillate.
      tol: largest relative residual that counts as converged. Float32 reaches 1e-6.
      max_steps: after how many evaluations to give up.
      adjoint: how derivatives are solved for. Default: :class:`relax` with the same
        damping, tol and max_steps; :class:`neumann` is the truncated approximation.
      batch_ndim: how many leading axes are examples, each of which converges, or does
        not, by itself. By default the whole state is one.

    Returns:
      h*, and a :class:`FixedPointInfo` of arrays [*batch].

    Raises:
      ValueError: if f returns something unlike init, init is not floating, or a
        setting is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> halve = lambda w, x, h: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(halve, w, 1.0, 0.0, tol=1e-6)
      >>> h, info = solve(0.5)
      >>> round(h.item(), 5), info.steps.item(), info.converged.item()
      (2.0, 20, True)
      >>> round(jax.grad(lambda w: solve(w)[0])(0.5).item(), 4)  # x / (1 − w)²
      4.0

    References:
      Almeida, "A learning rule for asynchronous perceptrons with feedback in a
      combinatorial environment", Proc. ICNN, San Diego 1987. Pineda, "Generalization of
      back-propagation to recurrent neural networks", Physical Review Letters 59, 1987,
      doi:10.1103/PhysRevLett.59.2229.
    """
    check_relaxation(damping, tol, max_steps)
    check_floating("init", init)
    init = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init)
    check_like("what f returns", jax.eval_shape(f, params, x, init), "init", init)
    _check_batch_ndim(batch_ndim, init)
    adjoint = check_adjoint(adjoint) or relax(damping, tol, max_steps)

    def relax_forward(_, init):
        h, info = relax_to_fixed_point(
            partial(f, params, x),
            init,
            partial(_scale, tol=tol, batch_ndim=batch_ndim),
            damping=damping,
            tol=tol,
            max_steps=max_steps,
            batch_ndim=batch_ndim,
        )
        # What comes beside a root must be floating.
        return h, jax.tree.map(lambda a: a.astype(info.residual.dtype), info)

    h, info = jax.lax.custom_root(
        lambda h: jax.tree.map(jnp.subtract, h, f(params, x, h)),
        init,
        relax_forward,
        lambda matvec, rhs: solve_adjoint(matvec, rhs, adjoint, batch_ndim)[0],
        has_aux=True,
    )
    info = info._replace(steps=jnp.int32(info.steps), converged=info.converged != 0)
    return _derivative_if(batch_ndim, info.converged, h), info


def check_adjoint(adjoint: Adjoint | None) -> Adjoint | None:
    """Check that an adjoint is given with its settings, not as a bare name."""
    if isinstance(adjoint, type):
        name = adjoint.__name__
        raise ValueError(f"adjoint must be a value, such as {name}(…), got {name}.")
    return adjoint


def _check_batch_ndim(batch_ndim: int, init: PyTree) -> None:
    shapes = [leaf.shape for leaf in jax.tree.leaves(init)]
    if not 0 <= batch_ndim <= min(map(len, shapes)):
        raise ValueError(
            "batch_ndim must be the number of leading axes of every leaf of init that "
            f"are examples; got {batch_ndim} for leaves of shapes {shapes}."
        )
    if len({shape[:batch_ndim] for shape in shapes}) > 1:
        raise ValueError(
            f"the leaves of init must share their first batch_ndim={batch_ndim} axes, "
            f"which are examples; got shapes {shapes}."
        )


def _scale(h: PyTree, tol: float | jax.Array, batch_ndim: int) -> jax.Array:
    size = norm(h, batch_ndim)
    return jnp.maximum(size, jnp.asarray(tol, size.dtype))


def solve_adjoint(
    matvec: Callable[[PyTree], PyTree], rhs: PyTree, adjoint: Adjoint, batch_ndim: int
) -> tuple[PyTree, FixedPointInfo]:
    """Return (I − J)⁻¹ rhs, NaN where it is not solved, and how it was found.

    Differentiable: its derivatives, and its transpose, are by the same solver.
    """
    # As one vector, since a linear solve wants all of its right side to be tangent.
    vector, as_tree = ravel_pytree(rhs)
    on_vectors = lambda function, vector: ravel_pytree(function(as_tree(vector)))[0]

    def solve(matvec, vector):
        on_trees = lambda tree: as_tree(matvec(ravel_pytree(tree)[0]))
        z, info = adjoint(on_trees, as_tree(vector), batch_ndim)
        solved = adjoint.approximate | info.converged
        return ravel_pytree(nan_unless(solved, z))[0], info

    solution, info = jax.lax.custom_linear_solve(
        partial(on_vectors, matvec),
        vector,
        solve,
        transpose_solve=solve,
        has_aux=True,
    )
    return as_tree(solution), info


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _derivative_if(batch_ndim: int, converged: jax.Array, h: PyTree) -> PyTree:
    """Return h, the derivative of which is NaN for examples that did not converge.

    Except, in reverse, where nothing depends on such an example.
    """
    del batch_ndim, converged
    return h


@_derivative_if.defjvp
def _derivative_if_jvp(batch_ndim, primals, tangents):
    converged, h = primals
    vector, as_tree = ravel_pytree(tangents[1])

    def forward(_, vector):
        return ravel_pytree(nan_unless(converged, as_tree(vector)))[0]

    def backward(_, vector):
        b = as_tree(vector)
        right = converged | unused(b, batch_ndim)
        return ravel_pytree(nan_unless(right, b))[0]

    # The one linear operation whose transpose may be told by a function of its own.
    h_dot = jax.lax.custom_linear_solve(
        lambda vector: vector, vector, forward, transpose_solve=backward
    )
    return _derivative_if(batch_ndim, converged, h), as_tree(h_dot)


def unused(cotangent: PyTree, batch_ndim: int) -> jax.Array:
    """Tell the examples [*batch] whose state nothing depends on."""
    return largest(cotangent, batch_ndim) == 0


def nan_unless(right: jax.Array, tree: PyTree) -> PyTree:
    """Replace the examples that are not right by NaN."""
    nan: Any = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)
    return select(right, tree, nan)
