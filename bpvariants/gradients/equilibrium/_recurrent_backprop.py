"""Recurrent backpropagation by the two relaxations of Almeida and Pineda.

Notation: f is one evaluation of the network, τ is the damping, and h* is the state at
which the forward relaxation settles. E is the mean loss, J is ∂f/∂h at h*, and z is the
adjoint:

    forward     h ← (1 − τ) h + τ f(θ, h, x)             → h* = f(θ, h*, x)
    error       b = ∂E/∂h at h*
    adjoint     z ← (1 − τ) z + τ (Jᵀ z + b)             → z = (I − Jᵀ)⁻¹ b
    gradient    dE/dθ = (∂f/∂θ)ᵀ z + ∂E/∂θ

The adjoint relaxation is the linearised forward relaxation, run backwards through the
same connections. Near h*, both relaxations converge under the same condition.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch, check_floating, check_function, check_like
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
from bpvariants._tables import in_short
from bpvariants.gradients.equilibrium._choices import choose_adjoint, choose_solver
from bpvariants.gradients.equilibrium._fixed_point import fixed_point
from bpvariants.gradients.equilibrium._implicit_derivative import (
    check_on_failure,
    nan_unless,
    OnFailure,
    solve_adjoint,
    zero_unless,
)
from bpvariants.gradients.equilibrium._map import check_map, check_map_function
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._protocols import (
    Adjoint,
    check_no_start,
    Solver,
)
from bpvariants.gradients.equilibrium._reversible_derivative import (
    check_alone,
    reversible_equilibrium,
)
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.gradients.equilibrium.adjoints import reversible
from bpvariants.types import Loss, PyTree


class Equilibrium(NamedTuple):
    """Results of the two relaxations of :func:`recurrent_backprop`."""

    h: PyTree  # the fixed point h*, leaves [*batch, ...]
    forward: FixedPointInfo  # convergence of h, arrays [*batch]
    adjoint: FixedPointInfo  # convergence of z, arrays [*batch]
    z: PyTree  # adjoint z of the weighted mean loss, with the shapes of h

    def __repr__(self) -> str:
        return in_short(self, lambda: f"forward={self.forward}, adjoint={self.adjoint}")


class RecurrentBackpropRule(Protocol):
    """Type of the function that :func:`recurrent_backprop` returns."""

    def __call__(
        self,
        params: PyTree,
        init: PyTree,
        x: PyTree,
        target: PyTree,
        weights: jax.typing.ArrayLike | None = None,
        start_adjoint: PyTree | None = None,
    ) -> tuple[tuple[jax.Array, Equilibrium], PyTree]:
        """Return ((value, equilibrium), grads); `value` is the weighted mean loss.

        Args:
          params: any pytree of floating arrays.
          init: first state h of the forward relaxation, leaves [*batch, ...].
          x: inputs, leaves [*batch, ...].
          target: values with which the loss compares the output, leaves [*batch, ...].
          weights: [*batch] real, weight of each loss in the mean. Default: 1.
          start_adjoint: z at which the adjoint relaxation starts, shapes of init.
        """
        ...


def recurrent_backprop(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    loss: Loss,
    *,
    readout: Callable[[PyTree, PyTree], PyTree] | None = None,
    solver: Solver | Literal["auto"] | None = None,
    adjoint: Adjoint | None = None,
    on_failure: OnFailure = "nan",
    damping: float | jax.Array | None = None,
    tol: float | jax.Array | None = None,
    max_steps: int | jax.Array | None = None,
    atol: float | jax.Array | None = None,
) -> RecurrentBackpropRule:
    """Recurrent backpropagation (Almeida–Pineda), the exact gradient at a fixed point.

    One relaxation finds the fixed point h*. A second relaxation finds the adjoint z,
    from which the gradient follows. The gradient is exact if both relaxations converge.
    If one of them does not converge for an example, gradients that depend on this
    example are NaN by default. The memory holds a few states, however many steps are
    taken. `jax.grad` of :func:`fixed_point` gives the same gradient, but does not
    report whether the adjoint converged. If params change little from call to call,
    both relaxations can start from the results of the previous call: pass them as init
    and start_adjoint.

    Args:
      f: one evaluation of the network, (params, h, x) -> h, with state h and input x.
      loss: function (y, target) -> losses, with one loss for each example.
      readout: function (params, h) -> y, from the state to the output. Default: y is h.
      solver: solver for h*, from `gradients.solvers`, or "auto", which is short for
        `auto(…)` with the given tol, max_steps and atol. Default: `relaxation()`.
      adjoint: solver for the adjoint z, from `gradients.adjoints`. Default: the method
        and the settings of `solver`. With on_failure="nan", conjugate gradients then
        also solve the examples where this method fails, in up to max_steps more steps;
        `adjoint.krylov` of the result says which examples these are.
      on_failure: what to do if h* or z of an example does not converge, as in
        :func:`fixed_point`. "nan": z of this example, and all gradients that depend on
        it, are NaN, unless the weight of the example is 0. "truncate": z and gradients
        are finite, but may be inexact. "ignore": h* is the last iterate, and z is
        whatever the adjoint solver returns.
      damping: damping τ of both relaxations, 0 < τ ≤ 1; 1 is an undamped iteration.
        Default: 1 at first; the relaxation of h halves τ for examples that oscillate
        without converging, see `gradients.solvers.relaxation`. `damping`, `tol`,
        `max_steps` and `atol` are shorthand for
        solver=gradients.solvers.relaxation(damping=…, tol=…, max_steps=…, atol=…).
      tol: largest relative residual that counts as converged, for both relaxations.
      max_steps: maximum number of steps of each relaxation. A step evaluates f once, or
        takes one backward pass through f.
      atol: absolute tolerance. An example has also converged if ‖f(params, h, x) − h‖
        is at most atol. Default: tol².

    Returns:
      A function (params, init, x, target, weights=None, start_adjoint=None) ->
      ((value, equilibrium), grads). init, x and target have leaves [*batch, ...];
      weights is [*batch]. `value` is the weighted mean loss, and `equilibrium` an
      :class:`Equilibrium`. The relaxation of z starts at start_adjoint, which has the
      shapes of init and may be `equilibrium.z` of an earlier call. For examples where
      start_adjoint is not finite, z starts at ∂E/∂h*, the derivative of the mean loss.

    Raises:
      ValueError: if f, loss or readout is not a function; if a setting is out of its
        range, or is given together with a solver;
        when the returned function is called, if shapes or dtypes disagree, or if
        start_adjoint is given to an adjoint solver that takes no start.

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
    settings = {"damping": damping, "tol": tol, "max_steps": max_steps, "atol": atol}
    check_alone(adjoint, solver=solver, **settings)
    solver = choose_solver(solver, **settings)
    check_on_failure(on_failure)
    _check_functions(f, loss, readout)
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
            check_map(f, params, init, x, "init")  # a clearer error if init is wrong
            raise
        for name, tree in {"init": init, "x": x}.items():
            check_batch(name, tree, losses.shape, "[*batch]")
        check_entries(losses.shape, "[*batch]", weights=weights)
        shares = normalised(weights, losses.shape, losses.dtype)
        if start_adjoint is not None:
            check_like("start_adjoint", start_adjoint, "init", init)
            start_adjoint = jax.lax.stop_gradient(start_adjoint)

        options = {"batch_ndim": losses.ndim, "on_failure": on_failure}
        given = f, params, init, x
        if isinstance(adjoint, reversible):
            check_no_start(adjoint, start_adjoint)
            h, forward, go_back = reversible_equilibrium(*given, adjoint, **options)
        else:
            h, forward = fixed_point(*given, solver=solver, **options)
            go_back = _implicit(*given[:2], h, x, adjoint, options, forward)
        weighed = with_stored_operands(at(counted(target, weights)), params, h)
        mean_loss = lambda params, h: jnp.sum(shares * weighed(params, h))
        value, (direct, b) = jax.value_and_grad(mean_loss, (0, 1))(params, h)
        if on_failure == "truncate":
            found = jnp.isfinite(forward.residual)
            b = select(found, b, jax.tree.map(jnp.zeros_like, b))
        z, backward, grads = go_back(b, shares == 0, start_adjoint)
        grads = jax.tree.map(jnp.add, grads, direct)
        return (value, Equilibrium(h, forward, backward, z)), grads

    return rule


def _implicit(
    f: Callable,
    params: PyTree,
    h: PyTree,
    x: PyTree,
    adjoint: Adjoint,
    options: dict[str, Any],
    forward: FixedPointInfo,
) -> Callable[[PyTree, jax.Array, PyTree], tuple[PyTree, FixedPointInfo, PyTree]]:
    """Return a function that solves for z, and returns its report and ∂E/∂θ."""
    on_failure = options["on_failure"]
    if on_failure != "ignore":
        x = zero_unless(jnp.isfinite(forward.residual), x)

    def go_back(b, unweighted, start):
        if on_failure == "nan":  # with b = NaN, the adjoint solver takes no steps
            b = nan_unless(forward.converged | unweighted, b)
        safe_f = with_stored_operands(f, params, h, x)
        _, pull = jax.vjp(lambda params, h: safe_f(params, h, x), params, h)
        matvec = lambda z: jax.tree.map(jnp.subtract, z, pull(z)[1])
        z, backward = solve_adjoint(
            matvec, b, adjoint, **options, forward=forward, start=start
        )
        return z, backward, pull(z)[0]

    return go_back


def _check_functions(f: object, loss: object, readout: object) -> None:
    check_map_function(f)
    check_loss_function(loss)
    if readout is not None:
        check_function("readout", readout, "(params, h) -> y")
