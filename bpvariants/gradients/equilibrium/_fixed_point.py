"""A fixed point as a differentiable function: implicit differentiation.

Notation: h* = f(θ, h*, x), J = ∂f/∂h at h*. Differentiating both sides,

    dh* = (I − J)⁻¹ (∂f/∂θ dθ + ∂f/∂x dx),

and backwards, for a cotangent b of h*, with the adjoint z,

    z = (I − Jᵀ)⁻¹ b,    dE/dθ = (∂f/∂θ)ᵀ z,    dE/dx = (∂f/∂x)ᵀ z.

None of it depends on how h* was found, nor on the number of steps that took. For
Pineda's networks in continuous time, and when they are stable, see the solver
:class:`relaxation`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch_ndim, check_floating
from bpvariants._examples import norm
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._choices import choose_adjoint, choose_solver
from bpvariants.gradients.equilibrium._implicit_derivative import (
    check_on_failure,
    derivative_if,
    OnFailure,
    solve_adjoint,
    zero_unless,
)
from bpvariants.gradients.equilibrium._iteration import FixedPointInfo
from bpvariants.gradients.equilibrium._map import check_map
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.gradients.equilibrium.adjoints import unrolled
from bpvariants.types import PyTree


def fixed_point(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    init: PyTree,
    x: PyTree,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_failure: OnFailure = "nan",
    batch_ndim: int = 0,
    damping: float | jax.Array | None = None,
    tol: float | jax.Array | None = None,
    max_steps: int | jax.Array | None = None,
) -> tuple[PyTree, FixedPointInfo]:
    """Return the h* = f(θ, h*, x) that a solver finds from init, differentiably.

        h ← (1 − τ) h + τ f(θ, h, x)    until ‖f(θ, h, x) − h‖ ≤ tol · max(‖h‖, tol)

    In params, x, and whatever f closes over it can be differentiated forward and in
    reverse, again and again; the derivative in init is 0, so init may be the last h*
    of a similar problem. What cannot be raised is in the info. What on_failure does:

    - "nan": h* is the iterate of the lowest residual; of an example that did not
      converge, or of which the adjoint did not, the derivative is NaN, rather than a
      wrong number. In reverse, that is, unless its cotangent is 0 exactly: such is that
      of an example which is masked out of the loss, but also of one whose loss happens
      to be stationary at the h* returned, so look at the info too.
    - "truncate": h* is the same and its derivative finite: that of the adjoint as far
      as it came, or of one evaluation of f (:func:`jfb`) where the forward steps did
      not contract, or the adjoint grew; 0 where no evaluation was finite, for then h*
      is init. Both modes are transposes of each other with the adjoints `relaxation`,
      `neumann` and `unrolled`; with others to within their tolerance.
    - "ignore": h* is the last iterate, whatever it is, and so is the adjoint; with
      :class:`unrolled`, NaN of one example reaches the gradient in params.

    To converge is to have a small residual; the error of h* and of derivatives is up to
    1 / (1 − spectral_radius) times as large. In bfloat16 and float16 what can be
    reached, 0.008 and 0.001, counts as converged where tol is less.

    Time is that of one evaluation of f for each step, forward and backward; memory is
    that of a few states and of one evaluation's derivative, whatever the steps.

    Args:
      f: one evaluation (params, h, x) -> h of the map, of the structure of init: the
        state before the input, as in a step.
      params: its parameters θ.
      init: where the solver begins, floating leaves [*batch, ...].
      x: its static input, leaves [*batch, ...].
      solver: how h* is found, of `gradients.solvers`: `relaxation(…)` (above, the
        default), `anderson(…)` or `broyden(…)`.
      adjoint: how derivatives are solved for, of `gradients.adjoints`. Default: as the
        solver does, with its settings. Exact: `relaxation(…)`, `anderson(…)`,
        `broyden(…)`, `cg(…)`, `linear_solver(…)`; approximate: `neumann(…)`, `jfb()`,
        `unrolled(…)`.
      on_failure: "nan", "truncate" or "ignore".
      batch_ndim: how many leading axes are batch axes. Each example converges by
        itself. By default the whole state is one example.
      damping: τ, 0 < τ ≤ 1; 1 is undamped, the default. This, tol and max_steps are
        short for solver=gradients.solvers.relaxation(damping=…, tol=…, max_steps=…).
      tol: largest relative residual that counts as converged.
      max_steps: after how many evaluations of f to give up.

    Returns:
      h*, and a :class:`FixedPointInfo` of arrays [*batch].

    Raises:
      ValueError: if f returns something unlike init, init is not floating, a setting
        is out of its range, a solver is given and one of its settings besides, or a
        solver is given as adjoint or an adjoint as solver.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> halve = lambda w, h, x: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(halve, w, 0.0, 1.0, tol=1e-6)
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
    solver = choose_solver(solver, damping, tol, max_steps)
    adjoint = choose_adjoint(adjoint, solver)
    check_on_failure(on_failure)
    check_floating("init", init)
    init = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init)
    check_map(f, params, init, x, "init")
    check_batch_ndim("init", batch_ndim, init)
    which = "last" if on_failure == "ignore" else "best"
    map_at = lambda x: lambda h: f(params, h, x)
    h, info = _solve(map_at(x), init, solver, batch_ndim, which)
    found = jnp.isfinite(info.residual)
    if on_failure != "ignore":
        x = zero_unless(found, x)

    if isinstance(adjoint, unrolled):
        h = adjoint.through(map_at(x), h)
    else:
        h = jax.lax.custom_root(
            lambda h: jax.tree.map(jnp.subtract, h, f(params, h, x)),
            h,
            lambda _, h: h,
            lambda matvec, rhs: solve_adjoint(
                matvec, rhs, adjoint, batch_ndim, on_failure, info
            )[0],
        )
    if on_failure == "nan":
        h = derivative_if(batch_ndim, info.converged, h)
    if on_failure == "truncate":
        h = select(found, h, jax.lax.stop_gradient(h))
    return h, info


def _solve(g: Callable, init: PyTree, solver: Solver, batch_ndim: int, which: str):
    """Solve, without derivatives; return the iterate and its info."""

    def solve(_, init):
        scale = partial(_scale, tol=solver.tol, batch_ndim=batch_ndim)
        gap = lambda h: jax.tree.map(jnp.subtract, g(h), h)
        outcome = solver.solve(gap, init, scale, batch_ndim)
        h, info = getattr(outcome, which)
        # What comes beside a root must be floating.
        return h, jax.tree.map(lambda a: a.astype(info.residual.dtype), info)

    # A root that depends on nothing. Unlike stop_gradient, which would let the loop be
    # differentiated first, it also holds for what g closes over.
    h, info = jax.lax.custom_root(
        lambda h: h, init, solve, lambda _, rhs: rhs, has_aux=True
    )
    return h, info._replace(steps=jnp.int32(info.steps), converged=info.converged != 0)


def _scale(h: PyTree, tol: float | jax.Array, batch_ndim: int) -> jax.Array:
    size = norm(h, batch_ndim)
    return jnp.maximum(size, jnp.asarray(tol, size.dtype))
