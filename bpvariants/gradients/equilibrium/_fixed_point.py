"""A fixed point as a differentiable function: implicit differentiation.

Notation: h* = f(θ, h*, x), J = ∂f/∂h at h*. Differentiating both sides,

    dh* = (I − J)⁻¹ (∂f/∂θ dθ + ∂f/∂x dx),

and in reverse mode, for a cotangent b of h*, with the adjoint z,

    z = (I − Jᵀ)⁻¹ b,    dE/dθ = (∂f/∂θ)ᵀ z,    dE/dx = (∂f/∂x)ᵀ z.

These derivatives depend neither on how h* was found nor on the number of steps. For
Pineda's networks in continuous time, and their stability, see the solver
:class:`relaxation`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch_ndim, check_floating
from bpvariants._examples import norm
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._choices import choose_adjoint, choose_solver
from bpvariants.gradients.equilibrium._implicit_derivative import (
    check_on_failure,
    derivative_if,
    OnFailure,
    solve_adjoint,
    zero_unless,
)
from bpvariants.gradients.equilibrium._map import check_map
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import FixedPoint
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
    atol: float | jax.Array | None = None,
) -> FixedPoint:
    """Solve h* = f(θ, h*, x), starting from init; h* is differentiable.

        h ← (1 − τ) h + τ f(θ, h, x)    until ‖f(θ, h, x) − h‖ ≤ max(tol · ‖h‖, atol)

    h* can be differentiated in params, x, and the values that f closes over, in forward
    and reverse mode, any number of times. The derivative in init is 0, so init may be
    the last h* of a similar problem. A failure to converge raises no error, but is
    reported in the info. `on_failure` selects what happens then:

    - "nan": h* is the iterate with the lowest residual. Its derivative is NaN, instead
      of a wrong value, for an example that did not converge, or whose exact adjoint did
      not. In reverse mode the derivative stays 0 if the example's cotangent is exactly
      0. This is so for an example that is masked out of the loss, but also if its loss
      happens to be stationary at the returned h*, so look at the info too.
    - "truncate": h* is the same, and its derivative is finite. It is that of the
      adjoint as far as it was solved. If the forward steps did not contract, or the
      adjoint grew, it is that of one evaluation of f (:func:`jfb`). If no evaluation
      was finite, it is 0, because h* is init. Both modes are transposes of each other
      with the adjoints `relaxation`, `neumann` and `unrolled`; with others they are so
      to within their tolerance.
    - "ignore": h* is the last iterate, whatever it is, and the adjoint is taken as its
      solver returns it. With :class:`unrolled`, a NaN of one example reaches the
      gradient in params.

    Converged means that the residual is small. The error of h* and of derivatives is up
    to 1 / (1 − spectral_radius) times as large. If the rounding errors of f do not
    allow the tolerance, an example has converged if its residual has not fallen for 20
    steps and rounding explains it, which 60 more evaluations of f show. `info.residual`
    is then above tol. A residual of more than 0.03 never counts. Float32 reaches about
    1e-7, bfloat16 and float16 reach 0.008 and 0.001, and a smaller tol is raised to the
    last two. Products of float32 arrays in f are computed in full precision
    ("highest"), also on accelerators, unless f or `jax.default_matmul_precision` asks
    for another precision.

    The gradient exists if I − J is invertible; f need not contract. By default, the
    adjoint has the method of the solver. With "nan", conjugate gradients take over for
    the examples where this method fails. But `relaxation` finds h* itself only if f
    contracts there, or with damping; `anderson` and `broyden` need no contraction.

    Each step, forward or backward, takes the time of one evaluation of f. Memory is
    that of a few states and of one evaluation's derivative, whatever the number of
    steps.

    Args:
      f: one evaluation of the map, (params, h, x) -> h, with the structure of init. The
        state comes before the input, as in a step.
      params: parameters θ of f.
      init: state at which the solver starts, floating leaves [*batch, ...].
      x: constant input of f, leaves [*batch, ...].
      solver: solver for h*, from `gradients.solvers`: `relaxation(…)` (above, the
        default), `anderson(…)` or `broyden(…)`.
      adjoint: solver for derivatives, from `gradients.adjoints`. Default: the method
        and the settings of the solver; with "nan" also conjugate gradients for examples
        where that fails, in up to max_steps more steps. Exact: `relaxation(…)`,
        `anderson(…)`, `broyden(…)`, `cg(…)`, `linear_solver(…)`; approximate:
        `neumann(…)`, `jfb()`, `unrolled(…)`.
      on_failure: "nan", "truncate" or "ignore".
      batch_ndim: number of leading axes that are batch axes. Each example converges by
        itself. By default the whole state is one example.
      damping: τ, 0 < τ ≤ 1; 1 is undamped, the default. This, tol, max_steps and atol
        are short for solver=gradients.solvers.relaxation(damping=…, tol=…, …).
      tol: largest relative residual that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: largest ‖f(h) − h‖ that counts as converged too. Default: tol². Near h* = 0
        the relative residual stays large, so give atol there.

    Returns:
      The pair (h, info): h*, and a :class:`FixedPointInfo` of arrays [*batch].

    Raises:
      ValueError: if f cannot take init, the result of f is unlike init, init is not
        floating, a setting is out of its range or is given besides a solver, or a
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
    solver = choose_solver(solver, damping, tol, max_steps, atol)
    check_on_failure(on_failure)
    adjoint = choose_adjoint(adjoint, solver, on_failure)
    check_floating("init", init)
    init = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init)
    f = with_precise_products(f)
    check_map(f, params, init, x, "init")
    f = with_stored_operands(f, params, init, x)
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
    return FixedPoint(h, info)


def _solve(g: Callable, init: PyTree, solver: Solver, batch_ndim: int, which: str):
    """Solve, without derivatives; return the iterate and its info."""

    def solve(_, init):
        scale = partial(_scale, solver=solver, batch_ndim=batch_ndim)
        gap = lambda h: jax.tree.map(jnp.subtract, g(h), h)
        outcome = solver.solve(gap, init, scale, batch_ndim)
        h, info = getattr(outcome, which)
        # custom_root needs floating auxiliary outputs.
        return h, jax.tree.map(lambda a: a.astype(info.residual.dtype), info)

    # A custom_root with a derivative of 0, also in the values that g closes over. With
    # stop_gradient JAX would still differentiate the loop first.
    h, info = jax.lax.custom_root(
        lambda h: h, init, solve, lambda _, rhs: rhs, has_aux=True
    )
    flags = {"converged": info.converged != 0, "krylov": info.krylov != 0}
    return h, info._replace(steps=jnp.int32(info.steps), **flags)


def _scale(h: PyTree, solver: Solver, batch_ndim: int) -> jax.Array:
    """Return the size of h that residuals are compared with, [*batch]."""
    size = norm(h, batch_ndim)
    least = jnp.asarray(solver.tol, size.dtype)
    atol = getattr(solver, "atol", None)  # solvers of others may not have it
    if atol is not None:
        least = jnp.asarray(atol, size.dtype) / reachable(least, h, size.dtype)
    return jnp.maximum(size, least)
