"""A fixed point as a differentiable function: implicit differentiation.

Notation: h* = f(θ, h*, x) is the fixed point, J is ∂f/∂h at h*, and E is the loss.
Differentiating both sides of the equation for h* gives

    dh* = (I − J)⁻¹ (∂f/∂θ dθ + ∂f/∂x dx),

and in reverse mode, where b = ∂E/∂h* is the cotangent of h* and z is the adjoint,

    z = (I − Jᵀ)⁻¹ b,    dE/dθ = (∂f/∂θ)ᵀ z,    dE/dx = (∂f/∂x)ᵀ z.

The derivatives depend neither on the solver that found h* nor on the number of its
steps. The documentation of :class:`relaxation` describes Pineda's networks in
continuous time, and their stability.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch_ndim, check_floating
from bpvariants._examples import quick_norm
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
from bpvariants.gradients.equilibrium._map import check_map, check_map_function
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.gradients.equilibrium._reversible_derivative import (
    check_alone,
    reversible_fixed_point,
)
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import FixedPoint
from bpvariants.gradients.equilibrium.adjoints import reversible, unrolled
from bpvariants.types import PyTree


def fixed_point(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    init: PyTree,
    x: PyTree,
    *,
    solver: Solver | Literal["auto"] | None = None,
    adjoint: Adjoint | None = None,
    on_failure: OnFailure = "nan",
    batch_ndim: int = 0,
    damping: float | jax.Array | None = None,
    tol: float | jax.Array | None = None,
    max_steps: int | jax.Array | None = None,
    atol: float | jax.Array | None = None,
) -> FixedPoint:
    """Solve h* = f(θ, h*, x) for h*, starting from init; h* is differentiable.

    The default solver is a relaxation with damping τ:

        h ← (1 − τ) h + τ f(θ, h, x)    until ‖f(θ, h, x) − h‖ ≤ max(tol · ‖h‖, atol)

    If no damping is given, τ is 1 at first. The solver halves τ of an example if h
    oscillates and the residual falls too slowly for max_steps steps. `info.damping` is
    the last τ of each example.

    h* can be differentiated with respect to params, x, and the values that f closes
    over, in forward and reverse mode, any number of times. The derivative with respect
    to init is 0. To save steps, init may be the fixed point of a similar problem. Only
    :class:`reversible` differs: it has reverse mode only, and a derivative in init. A
    failure to converge raises no error, but is reported in the returned `info`.
    `on_failure` selects what h* and its derivative are for an example that does not
    converge:

    - "nan": h* is the iterate with the lowest residual. The derivative of h* is NaN,
      instead of a wrong value, if h* did not converge, or if an exact adjoint solver
      did not converge. Exception: in reverse mode, the derivative is 0 if the cotangent
      of the example is exactly 0. The cotangent is 0 if the example is masked out of
      the loss, but also if the loss happens to be stationary at the returned h*. So a
      derivative of 0 can hide a failure; check `info` too.
    - "truncate": h* is the iterate with the lowest residual, as with "nan". The
      derivative of h* is always finite. It is computed from the result of the adjoint
      solver, even if the adjoint did not converge. If an adjoint relaxation diverged,
      the derivative is that of one evaluation of f, as with :func:`jfb`. With an exact
      adjoint solver, the derivative is also that of one evaluation of f if the
      iteration for h* neither converged nor contracted. If no evaluation of f was
      finite, h* is init, and its derivative is 0. With the adjoint solvers
      `relaxation`, `neumann` and `unrolled`, forward mode is the exact transpose of
      reverse mode. With other adjoint solvers, it is the transpose to within the
      tolerance.
    - "ignore": h* is the last iterate, however large its residual is, and the adjoint
      is whatever the adjoint solver returns. With :class:`unrolled`, a NaN of one
      example reaches the gradient with respect to params.

    An example has converged if its residual is small. Let ρ < 1 be the spectral radius
    of ∂f/∂h at h*. The error of h* and of its derivatives is up to 1 / (1 − ρ) times as
    large as the residual. Rounding errors of f can keep the residual above the
    tolerance. If the residual has not fallen for 20 steps, the solver evaluates f 60
    more times to measure the rounding errors of f. If these explain the residual, the
    example counts as converged, with an `info.residual` above tol, but at most 1/32.
    The relative residual can fall to about 1e-7 in float32, 0.008 in bfloat16 and 0.001
    in float16; for bfloat16 and float16, a smaller tol is raised to these values.
    Products of float32 arrays in f are computed in full precision ("highest"), also on
    accelerators, unless f or `jax.default_matmul_precision` asks for another precision.

    The derivatives of h* exist if I − J is invertible, where J = ∂f/∂h is the Jacobian
    of f at h*. The map f need not be a contraction. By default, the method of `solver`
    also solves for the adjoint. With on_failure="nan", conjugate gradients take over
    for the examples where this method fails. The solver `relaxation` finds h* only if
    f, or its damped iteration, contracts near h*; the solvers `anderson` and `broyden`
    need no contraction. The solver `auto` starts as a relaxation, and accelerates the
    examples that would take many steps.

    Each step of the solver takes the time of one evaluation of f. Each step of an
    adjoint relaxation takes the time of one backward pass through f. The memory does
    not depend on the number of steps: it holds a few states, and the values that one
    backward pass through f needs.

    Args:
      f: one evaluation of the map, (params, h, x) -> h, with the structure of init. The
        state h comes before the input x, as in the step of a recurrent network.
      params: parameters θ of f.
      init: state at which the solver starts, floating leaves [*batch, ...].
      x: constant input of f, leaves [*batch, ...].
      solver: solver for the fixed point h*, from `gradients.solvers`: `relaxation(…)`
        (the default), `anderson(…)`, `broyden(…)` or `auto(…)`. The text "auto" is
        short for `auto(…)` with the given tol, max_steps and atol.
      adjoint: solver for the adjoint, from `gradients.adjoints`. Default: the method
        and the settings of `solver`; with on_failure="nan", conjugate gradients then
        also solve the examples where this method fails, in up to max_steps more steps.
        Exact: `relaxation(…)`, `anderson(…)`, `broyden(…)`, `cg(…)`,
        `linear_solver(…)`; approximate: `neumann(…)`, `jfb()`, `unrolled(…)`. Exact
        for a finite number of steps: `reversible(…)`, which is its own solver, so
        solver, damping, tol, max_steps and atol must be left out.
      on_failure: "nan", "truncate" or "ignore"; selects h* and its derivative for an
        example that does not converge.
      batch_ndim: number of leading axes that are batch axes. Each example converges by
        itself. By default the whole state is one example.
      damping: damping τ, 0 < τ ≤ 1; 1 is an undamped iteration. A given damping never
        changes. Default: 1 at first, and halved for examples that oscillate without
        converging. `damping`, `tol`, `max_steps` and `atol` are shorthand for
        solver=gradients.solvers.relaxation(damping=…, tol=…, …).
      tol: largest residual ‖f(params, h, x) − h‖ / ‖h‖ that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: absolute tolerance. An example has also converged if ‖f(params, h, x) − h‖
        is at most atol. Default: tol². If the fixed point may be near 0, give atol,
        because the relative residual stays large there.

    Returns:
      The pair (h, info): the fixed point h*, and its convergence report, a
      :class:`FixedPointInfo` of arrays [*batch].

    Raises:
      ValueError: if f is not a function or cannot take init, if the result of f has
        other shapes or dtypes than init, if init is not floating, if a setting is out
        of its range or is given together with a solver, if `solver` is no solver for
        h*, or if `adjoint` is no adjoint solver.

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
    settings = {"damping": damping, "tol": tol, "max_steps": max_steps, "atol": atol}
    check_alone(adjoint, solver=solver, **settings)
    solver = choose_solver(solver, **settings)
    check_on_failure(on_failure)
    adjoint = choose_adjoint(adjoint, solver, on_failure)
    check_map_function(f)
    check_floating("init", init)
    init = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init)
    f = with_precise_products(f)
    check_map(f, params, init, x, "init")
    f = with_stored_operands(f, params, init, x)
    check_batch_ndim("init", batch_ndim, init)
    if isinstance(adjoint, reversible):
        return reversible_fixed_point(
            f, params, init, x, adjoint, on_failure, batch_ndim
        )
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
    """Solve h = g(h); return the iterate h that `which` names, and its report."""

    def solve(_, init):
        scale = partial(_scale, solver=solver, batch_ndim=batch_ndim)
        gap = lambda h: jax.tree.map(jnp.subtract, g(h), h)
        outcome = solver.solve(gap, init, scale, batch_ndim)
        h, info = getattr(outcome, which)
        # custom_root needs floating auxiliary outputs.
        return h, jax.tree.map(partial(jnp.asarray, dtype=info.residual.dtype), info)

    # The derivative of this custom_root is 0, also in the values that g closes over.
    # If stop_gradient were used instead, JAX would differentiate the solver's loop.
    h, info = jax.lax.custom_root(
        lambda h: h, init, solve, lambda _, rhs: rhs, has_aux=True
    )
    names = "converged", "krylov", "accelerated"
    flags = {name: getattr(info, name) != 0 for name in names}
    return h, info._replace(steps=jnp.int32(info.steps), **flags)


def _scale(h: PyTree, solver: Solver, batch_ndim: int) -> jax.Array:
    """Return the scale of residuals, max(‖h‖, atol / tol), for each example."""
    size = quick_norm(h, batch_ndim)
    least = jnp.asarray(solver.tol, size.dtype)
    atol = getattr(solver, "atol", None)  # a user's own solver may have no atol
    if atol is not None:
        least = jnp.asarray(atol, size.dtype) / reachable(least, h, size.dtype)
    return jnp.maximum(size, least)
