"""Recurrent backpropagation: Almeida's and Pineda's two relaxations, written out.

Notation: h* is the state at which the forward relaxation settles, E is the mean loss,
and J = ∂f/∂h at h*:

    forward     h ← (1 − τ) h + τ f(θ, h, x)             → h* = f(θ, h*, x)
    error       b = ∂E/∂h at h*
    adjoint     z ← (1 − τ) z + τ (Jᵀ z + b)             → z = (I − Jᵀ)⁻¹ b
    gradient    dE/dθ = (∂f/∂θ)ᵀ z + ∂E/∂θ

The second relaxation is the linearised first one, run backwards through the same
connections. It settles whenever the first does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch, check_floating, check_like
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import (
    as_arrays,
    check_entries,
    check_loss_function,
    counted,
    losses_of,
    normalised,
)
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._choices import choose_adjoint, choose_solver
from bpvariants.gradients.equilibrium._fixed_point import fixed_point
from bpvariants.gradients.equilibrium._implicit_derivative import (
    check_on_failure,
    nan_unless,
    OnFailure,
    solve_adjoint,
    zero_unless,
)
from bpvariants.gradients.equilibrium._map import check_map
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.types import Loss, PyTree


class Equilibrium(NamedTuple):
    """Results of the two relaxations of :func:`recurrent_backprop`."""

    h: PyTree  # h*, leaves [*batch, ...]
    forward: FixedPointInfo  # arrays [*batch]
    adjoint: FixedPointInfo  # arrays [*batch]
    z: PyTree  # the adjoint, like h; has the factor 1 / B (or w / Σ w) of the mean


def recurrent_backprop(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    loss: Loss,
    *,
    readout: Callable[[PyTree, PyTree], PyTree] | None = None,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_failure: OnFailure = "nan",
    damping: float | jax.Array | None = None,
    tol: float | jax.Array | None = None,
    max_steps: int | jax.Array | None = None,
    atol: float | jax.Array | None = None,
) -> Callable[..., tuple[tuple[jax.Array, Equilibrium], PyTree]]:
    """Recurrent backpropagation (Almeida–Pineda), the exact gradient at a fixed point.

    Exact if both relaxations converge. If they do not for an example, gradients that
    depend on it are NaN by default. Memory is that of a few states, whatever the number
    of steps. The gradient is that of :func:`fixed_point` under `jax.grad`; this rule
    also reports whether the adjoint converged. If params change little at a time, both
    relaxations can start from the last results: pass them as init and start_adjoint.

    Args:
      f: one evaluation (params, h, x) -> h of the network, as for :func:`fixed_point`.
      loss: one loss for each example, of the readout's output and the target.
      readout: (params, h) -> y. Default: y is h itself.
      solver: solver for h*, from `gradients.solvers`. Default: `relaxation()`.
      adjoint: solver for z, from `gradients.adjoints`. Default: the method and the
        settings of the solver; with "nan" also conjugate gradients for examples where
        that fails, in up to max_steps more steps. `adjoint.krylov` of the result says
        for which.
      on_failure: what to do if an example does not converge, forward or backward, as in
        :func:`fixed_point`. "nan": its z, and all gradients that depend on it, are NaN,
        unless its loss does not count. "truncate": z and gradients are finite, as far
        as they were solved. "ignore": h* is the last iterate, and z is taken as the
        adjoint solver returns it.
      damping: τ of both relaxations, 0 < τ ≤ 1; 1 is undamped, the default. This, tol,
        max_steps and atol are short for
        solver=gradients.solvers.relaxation(damping=…, tol=…, max_steps=…, atol=…).
      tol: largest relative residual that counts as converged, for both relaxations.
      max_steps: maximum number of evaluations of f, or of its derivative, in each.
      atol: largest ‖f(h) − h‖ that counts as converged too, as in :func:`fixed_point`.

    Returns:
      A function (params, init, x, target, weights=None, start_adjoint=None) ->
      ((value, equilibrium), grads). init, x and target have leaves [*batch, ...];
      weights is [*batch]. start_adjoint is like init, such as an earlier equilibrium.z;
      for examples where it is not finite, z starts at b. value is the weighted mean
      loss, and equilibrium an :class:`Equilibrium`.

    Raises:
      ValueError: if a setting is out of its range, or is given besides a solver; when
        the function is called, if shapes or dtypes disagree, or if start_adjoint is
        given to an adjoint that takes no start.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: w * h + x  # h* = x / (1 − w)
      >>> square = lambda h, target: (h - target) ** 2
      >>> rule = gradients.recurrent_backprop(f, square, tol=1e-6)
      >>> (value, equilibrium), grad = rule(0.5, 0.0, 1.0, 0.0)
      >>> round(value.item(), 4), round(grad.item(), 3)  # h*², 2 h* · x / (1 − w)²
      (4.0, 16.0)
      >>> equilibrium.forward.converged.item(), equilibrium.adjoint.converged.item()
      (True, True)

    References:
      Almeida, "A learning rule for asynchronous perceptrons with feedback in a
      combinatorial environment", Proc. ICNN, San Diego 1987. Pineda, "Generalization of
      back-propagation to recurrent neural networks", Physical Review Letters 59, 1987,
      doi:10.1103/PhysRevLett.59.2229.
    """
    solver = choose_solver(solver, damping, tol, max_steps, atol)
    check_on_failure(on_failure)
    check_loss_function(loss)
    adjoint = choose_adjoint(adjoint, solver, on_failure)
    f = with_precise_products(f)
    read = (lambda params, h: h) if readout is None else readout

    def rule(params, init, x, target, weights=None, start_adjoint=None):
        (weights,) = as_arrays(weights=weights)
        check_floating("params", params)
        at = lambda target: lambda params, h: losses_of(loss, read(params, h), target)
        try:
            losses = jax.eval_shape(at(target), params, init)
        except Exception:
            check_map(f, params, init, x, "init")  # init may be what does not fit
            raise
        for name, tree in {"init": init, "x": x}.items():
            check_batch(name, tree, losses.shape, "[*batch]")
        check_entries(losses.shape, "[*batch]", weights=weights)
        shares = normalised(weights, losses.shape, losses.dtype)
        if start_adjoint is not None:
            check_like("start_adjoint", start_adjoint, "init", init)
            start_adjoint = jax.lax.stop_gradient(start_adjoint)

        options = {"batch_ndim": losses.ndim, "on_failure": on_failure}
        h, forward = fixed_point(f, params, init, x, solver=solver, **options)
        weighed = with_stored_operands(at(counted(target, weights)), params, h)
        mean_loss = lambda params, h: jnp.sum(shares * weighed(params, h))
        value, (direct, b) = jax.value_and_grad(mean_loss, (0, 1))(params, h)
        found = jnp.isfinite(forward.residual)
        if on_failure != "ignore":
            x = zero_unless(found, x)
        if on_failure == "truncate":
            b = select(found, b, jax.tree.map(jnp.zeros_like, b))
        if on_failure == "nan":  # no adjoint steps for these examples
            b = nan_unless(forward.converged | (shares == 0), b)
        safe_f = with_stored_operands(f, params, h, x)
        _, pull = jax.vjp(lambda params, h: safe_f(params, h, x), params, h)
        matvec = lambda z: jax.tree.map(jnp.subtract, z, pull(z)[1])
        z, backward = solve_adjoint(
            matvec, b, adjoint, **options, forward=forward, start=start_adjoint
        )
        grads = jax.tree.map(jnp.add, pull(z)[0], direct)
        return (value, Equilibrium(h, forward, backward, z)), grads

    return rule
