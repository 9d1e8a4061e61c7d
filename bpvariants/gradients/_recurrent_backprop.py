"""Recurrent backpropagation: Almeida's and Pineda's two relaxations, written out.

Notation: h* is where the forward relaxation settles, E the mean loss, J = ∂f/∂h at h*:

    forward     h ← (1 − τ) h + τ f(θ, x, h)             → h* = f(θ, x, h*)
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

from bpvariants._checks import check_batch, check_floating
from bpvariants._dtypes import widen
from bpvariants.gradients._adjoints import Adjoint, relax
from bpvariants.gradients._fixed_point import (
    check_adjoint,
    fixed_point,
    nan_unless,
    solve_adjoint,
    unused,
)
from bpvariants.gradients._losses import (
    as_arrays,
    check_entries,
    check_losses,
    normalised,
)
from bpvariants.gradients._relaxation import FixedPointInfo
from bpvariants.types import Loss, PyTree


class Equilibrium(NamedTuple):
    """Where the two relaxations of :func:`recurrent_backprop` settled."""

    h: PyTree  # h*, leaves [*batch, ...]
    forward: FixedPointInfo  # arrays [*batch]
    adjoint: FixedPointInfo  # arrays [*batch]


def recurrent_backprop(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    loss: Loss,
    *,
    readout: Callable[[PyTree, PyTree], PyTree] | None = None,
    damping: float | jax.Array = 1.0,
    tol: float | jax.Array = 1e-5,
    max_steps: int | jax.Array = 1000,
    adjoint: Adjoint | None = None,
) -> Callable[..., tuple[tuple[jax.Array, Equilibrium], PyTree]]:
    """Recurrent backpropagation (Almeida–Pineda), the exact gradient at a fixed point.

    Exact where both relaxations converge, and NaN in what depends on an example where
    they do not. Memory is that of a few states, no matter how many steps were taken.
    The gradient is that of :func:`fixed_point` under `jax.grad`, which cannot tell how
    the adjoint went; this rule returns it.

    Args:
      f: one evaluation (params, x, h) -> h of the network.
      loss: one loss for each example, of the readout's output and the target.
      readout: (params, h) -> y. Default: y is h itself.
      damping: τ of both relaxations, 0 < τ ≤ 1.
      tol: largest relative residual of both that counts as converged.
      max_steps: after how many evaluations of f, or of its derivative, to give up.
      adjoint: how z is found. Default: :class:`relax`, as given above.

    Returns:
      A function (params, init, x, target, weights=None) -> ((value, equilibrium),
      grads), with init, x and target of leaves [*batch, ...], weights [*batch], value
      the weighted mean loss and equilibrium an :class:`Equilibrium`.

    Raises:
      ValueError: if a number is out of its range; when the function is called, if
        shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> f = lambda w, x, h: w * h + x  # h* = x / (1 − w)
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
    adjoint = check_adjoint(adjoint) or relax(damping, tol, max_steps)
    read = (lambda params, h: h) if readout is None else readout

    def rule(params, init, x, target, weights=None):
        (weights,) = as_arrays(weights)
        check_floating("params", params)
        losses_of = lambda params, h: loss(read(params, h), target)
        losses = jax.eval_shape(losses_of, params, init)
        check_losses(losses, target)
        for name, tree in {"init": init, "x": x}.items():
            check_batch(name, tree, losses.shape, "[*batch]")
        check_entries(losses.shape, "[*batch]", weights=weights)
        dtype = jax.eval_shape(widen, losses).dtype
        shares = normalised(weights, losses.shape, dtype)

        h, forward = fixed_point(
            f,
            params,
            x,
            init,
            damping=damping,
            tol=tol,
            max_steps=max_steps,
            batch_ndim=losses.ndim,
        )
        mean_loss = lambda params, h: jnp.sum(shares * widen(losses_of(params, h)))
        value, (direct, b) = jax.value_and_grad(mean_loss, (0, 1))(params, h)
        _, pull = jax.vjp(lambda params, h: f(params, x, h), params, h)
        matvec = lambda z: jax.tree.map(jnp.subtract, z, pull(z)[1])
        z, backward = solve_adjoint(matvec, b, adjoint, losses.ndim)
        z = nan_unless(forward.converged | unused(b, losses.ndim), z)
        grads = jax.tree.map(jnp.add, pull(z)[0], direct)
        return (value, Equilibrium(h, forward, backward)), grads

    return rule
