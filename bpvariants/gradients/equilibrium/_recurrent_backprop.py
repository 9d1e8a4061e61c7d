"""Recurrent backpropagation: Almeida's and Pineda's two relaxations, written out.

Notation: h* is where the forward relaxation settles, E the mean loss, J = ∂f/∂h at h*:

    forward     h ← (1 − τ) h + τ f(θ, h, x)             → h* = f(θ, h*, x)
    error       b = ∂E/∂h at h*
    adjoint     z ← (1 − τ) z + τ (Jᵀ z + b)             → z = (I − Jᵀ)⁻¹ b
    gradient    dE/dθ = (∂f/∂θ)ᵀ z + ∂E/∂θ

The second relaxation is the first's linearisation run backwards through the same
connections, and settles wherever the first does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch, check_floating, check_like
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
from bpvariants.gradients.equilibrium._iteration import FixedPointInfo
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.types import Loss, PyTree


class Equilibrium(NamedTuple):
    """Where the two relaxations of :func:`recurrent_backprop` settled."""

    h: PyTree  # h*, leaves [*batch, ...]
    forward: FixedPointInfo  # arrays [*batch]
    adjoint: FixedPointInfo  # arrays [*batch]
    z: PyTree  # the adjoint z, like h; 1 / B of an example's own, as E is the mean


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
) -> Callable[..., tuple[tuple[jax.Array, Equilibrium], PyTree]]:
    """Recurrent backpropagation (Almeida–Pineda), the exact gradient at a fixed point.

    Exact where both relaxations converge, and NaN in what depends on an example where
    they do not. Memory is that of a few states, no matter how many steps were taken.
    The gradient is that of :func:`fixed_point` under `jax.grad`, which cannot tell how
    the adjoint went; this rule returns it. Where training changes little at a time,
    both relaxations can begin where they last settled: at init and start_adjoint.

    Args:
      f: one evaluation (params, h, x) -> h of the network, as for :func:`fixed_point`.
      loss: one loss for each example, of the readout's output and the target.
      readout: (params, h) -> y. Default: y is h itself.
      solver: how h* is found, of `gradients.solvers`. Default: `relaxation()`.
      adjoint: how z is found, of `gradients.adjoints`. Default: as the solver finds h*,
        with its settings.
      on_failure: what becomes of an example that did not converge, forward or back, as
        for :func:`fixed_point`. "nan": its z, and all gradients it enters, are NaN,
        unless its loss does not count; "truncate": both are as far as they came, and
        finite; "ignore": the last iterates, whatever they are.
      damping: τ of both relaxations, 0 < τ ≤ 1; 1 is undamped, the default. This, tol
        and max_steps are short for
        solver=gradients.solvers.relaxation(damping=…, tol=…, max_steps=…).
      tol: largest relative residual of both that counts as converged.
      max_steps: after how many evaluations of f, or of its derivative, to give up.

    Returns:
      A function (params, init, x, target, weights=None, start_adjoint=None) ->
      ((value, equilibrium), grads), with init, x and target of leaves [*batch, ...],
      weights [*batch], start_adjoint like init (an earlier equilibrium.z; where it is
      not finite z begins at b), value the weighted mean loss and equilibrium an
      :class:`Equilibrium`.

    Raises:
      ValueError: if a number is out of its range, or a solver is given and one of its
        settings besides; when the function is called, if shapes or dtypes disagree, or
        the adjoint cannot begin at start_adjoint.

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
    solver = choose_solver(solver, damping, tol, max_steps)
    adjoint = choose_adjoint(adjoint, solver)
    check_on_failure(on_failure)
    check_loss_function(loss)
    read = (lambda params, h: h) if readout is None else readout

    def rule(params, init, x, target, weights=None, start_adjoint=None):
        (weights,) = as_arrays(weights=weights)
        check_floating("params", params)
        at = lambda target: lambda params, h: losses_of(loss, read(params, h), target)
        losses = jax.eval_shape(at(target), params, init)
        for name, tree in {"init": init, "x": x}.items():
            check_batch(name, tree, losses.shape, "[*batch]")
        check_entries(losses.shape, "[*batch]", weights=weights)
        shares = normalised(weights, losses.shape, losses.dtype)
        if start_adjoint is not None:
            check_like("start_adjoint", start_adjoint, "init", init)
            start_adjoint = jax.lax.stop_gradient(start_adjoint)

        options = {"batch_ndim": losses.ndim, "on_failure": on_failure}
        h, forward = fixed_point(f, params, init, x, solver=solver, **options)
        weighed = at(counted(target, weights))
        mean_loss = lambda params, h: jnp.sum(shares * weighed(params, h))
        value, (direct, b) = jax.value_and_grad(mean_loss, (0, 1))(params, h)
        found = jnp.isfinite(forward.residual)
        if on_failure != "ignore":
            x = zero_unless(found, x)
        if on_failure == "truncate":
            b = select(found, b, jax.tree.map(jnp.zeros_like, b))
        _, pull = jax.vjp(lambda params, h: f(params, h, x), params, h)
        matvec = lambda z: jax.tree.map(jnp.subtract, z, pull(z)[1])
        z, backward = solve_adjoint(
            matvec, b, adjoint, **options, forward=forward, start=start_adjoint
        )
        if on_failure == "nan":
            z = nan_unless(forward.converged | (shares == 0), z)
        grads = jax.tree.map(jnp.add, pull(z)[0], direct)
        return (value, Equilibrium(h, forward, backward, z)), grads

    return rule
