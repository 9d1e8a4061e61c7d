"""Equilibrium propagation: a gradient from two relaxations, without a backward pass.

Notation: Φ(θ, h, x) is the primitive function of the network, one number for each
example; σ is an increasing element-wise activation (by default the identity); ℓ is the
loss of one example, and β is the strength of the nudging.

    free phase      h ← σ(∂Φ/∂h)              T steps from init    → h*
    nudged phase    h ← σ(∂Φ/∂h − β ∂ℓ/∂h)    K steps from h*      → h^β
    one-sided       dℓ/dθ ≈ −(∂Φ/∂θ(h^β) − ∂Φ/∂θ(h*)) / β          error O(β)
    symmetric       dℓ/dθ ≈ −(∂Φ/∂θ(h^β) − ∂Φ/∂θ(h^−β)) / 2β       error O(β²)

For β → 0, the change of the update between steps t and t + 1 of the nudged phase is the
contribution of lag t to backpropagation through time at h*. K steps therefore give the
gradient truncated to K lags. The proof needs that the Jacobian of ∂Φ/∂h is symmetric.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_like
from bpvariants._losses import as_arrays, check_entries, counted, losses_of, normalised
from bpvariants._settings import check_flag
from bpvariants._tables import in_short, short
from bpvariants.gradients.equilibrium._asymmetry import asymmetry_of, warn_if_asymmetric
from bpvariants.gradients.equilibrium._nudging import (
    contrast,
    derivative,
    finite,
    minus,
    pushed,
    ratio,
)
from bpvariants.gradients.equilibrium._nudging_checks import (
    check_beta,
    check_settings,
    checked_losses,
    checked_state,
    Kind,
)
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.types import Loss, PyTree


class Phases(NamedTuple):
    """States and convergence of the two phases of :func:`equilibrium_propagation`.

    Attributes:
      h: state after the free phase, leaves [*batch, ...].
      nudged: state h^β after the nudged phase, with the shapes of h.
      opposite: state h^−β after the phase with nudging −β; None if one-sided.
      residual: [*batch], ‖f(h) − h‖ / ‖h‖ after the free phase, where f is one step. If
        it is not small compared with β, give more free_steps.
      nudged_residual: [*batch], the change of h^β in one more step, divided by
        ‖h^β − h‖. If it is not small, lags above nudged_steps are missing.
      asymmetry: ‖J − Jᵀ‖ / ‖J‖ of the Jacobian J of a map, estimated with 4 random
        vectors; None for a primitive function, whose Jacobian is always symmetric.
    """

    h: PyTree
    nudged: PyTree
    opposite: PyTree | None
    residual: jax.Array
    nudged_residual: jax.Array
    asymmetry: jax.Array | None

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def _words(self) -> str:
        largest = lambda values: short(jnp.max(values)) if values.size else "0"
        text = f"residual={largest(self.residual)}"
        text += f", nudged_residual={largest(self.nudged_residual)}"
        if self.asymmetry is not None:
            text += f", asymmetry={short(self.asymmetry)}"
        return text


class EquilibriumPropagationRule(Protocol):
    """Type of the function that :func:`equilibrium_propagation` returns."""

    def __call__(
        self,
        params: PyTree,
        init: PyTree,
        x: PyTree,
        target: PyTree,
        weights: jax.typing.ArrayLike | None = None,
    ) -> tuple[tuple[jax.Array, Phases], PyTree]:
        """Return ((value, phases), grads); `value` is the weighted mean loss.

        Args:
          params: any pytree of floating arrays.
          init: first state h of the free phase, leaves [*batch, ...].
          x: inputs, leaves [*batch, ...].
          target: values with which the loss compares the output, leaves [*batch, ...].
          weights: [*batch] real, weight of each loss in the mean. Default: 1.
        """
        ...


def equilibrium_propagation(
    function: Callable[[PyTree, PyTree, PyTree], PyTree],
    loss: Loss,
    *,
    kind: Kind = "primitive",
    activation: Callable[[jax.Array], jax.Array] | None = None,
    readout: Callable[[PyTree, PyTree], PyTree] | None = None,
    beta: float | jax.Array = 0.1,
    symmetric: bool = True,
    free_steps: int = 100,
    nudged_steps: int = 50,
) -> EquilibriumPropagationRule:
    """Equilibrium propagation, an estimate of the gradient at a fixed point; biased.

    The rule is for networks with symmetric weights that learn without a backward pass,
    such as models of physical or biological networks: it only compares two states. The
    bias falls as β² (symmetric nudging) or β (one-sided). To train on a computer, use
    :func:`recurrent_backprop`, which is exact, needs no symmetry and reports failures.
    Too few steps bias the gradient too; see `residual` and `nudged_residual` of the
    result. The cost is free_steps + nudged_steps (twice with symmetric nudging)
    evaluations of ∂Φ/∂h; the memory holds a few states.

    Args:
      function: Φ or f, as `kind` says, a function of (params, h, x) with state h and
        input x.
      loss: function (y, target) -> losses, with one loss for each example.
      kind: "primitive" if function returns the primitive function Φ, one number for
        each example, [*batch]; ∂Φ/∂h is the next state, before activation. "map" if
        function returns this next state f(params, h, x) itself, like h. The Jacobian J
        of f must then be symmetric. ‖J − Jᵀ‖ / ‖J‖ is measured at each call, and stored
        in the result. A call outside of `jit` and `vmap` warns if it is not zero.
      activation: increasing function that is applied to each element of the next state,
        such as jax.nn.sigmoid. It is not part of Φ or of f. The gradient includes its
        derivative. Default: none.
      readout: function (params, h) -> y, from the state to the output. Default: y is h.
      beta: strength β > 0 of the nudging. The difference of the phases is divided by β,
        which magnifies rounding errors: in float32, take β ≥ 0.01.
      symmetric: whether there are two nudged phases, with β and −β, instead of one.
      free_steps: number T of steps of the free phase.
      nudged_steps: number K of steps of each nudged phase.

    Returns:
      A function (params, init, x, target, weights=None) -> ((value, phases), grads).
      init, x and target have leaves [*batch, ...]; weights is [*batch]. `value` is the
      weighted mean loss after the free phase, and `phases` a :class:`Phases`. The
      derivative of readout with respect to params is taken after the free phase.

    Raises:
      ValueError: if function, loss, activation or readout is not a function, or a
        setting is out of its range; when the returned function is called, if shapes or
        dtypes disagree.

    Example:
      >>> from bpvariants import gradients
      >>> phi = lambda w, h, x: w * h**2 / 2 + x * h  # h* = x / (1 − w)
      >>> square = lambda h, target: (h - target) ** 2
      >>> rule = gradients.equilibrium_propagation(phi, square, beta=0.01)
      >>> (value, phases), grad = rule(0.5, 0.0, 1.0, 0.0)
      >>> round(value.item(), 4), round(grad.item())  # the gradient is 16
      (4.0, 16)

    References:
      Scellier & Bengio, "Equilibrium propagation", 2017, doi:10.3389/fncom.2017.00024.
      Ernoult, Grollier, Querlioz, Bengio & Scellier, "Updates of equilibrium prop match
      gradients of backprop through time in an RNN with static input", 2019,
      arXiv:1905.13633. Symmetric nudging: Laborieux et al., "Scaling equilibrium
      propagation to deep ConvNets by drastically reducing its gradient estimator bias",
      2021, doi:10.3389/fnins.2021.633674.
    """
    check_settings(function, loss, kind, activation, readout)
    check_beta(beta)
    check_flag("symmetric", symmetric)
    check_count("free_steps", free_steps)
    check_count("nudged_steps", nudged_steps)
    function = with_precise_products(function)
    read = (lambda params, h: h) if readout is None else readout
    drive = function if kind == "map" else derivative(function)

    def rule(params, init, x, target, weights=None):
        (weights,) = as_arrays(weights=weights)
        init = checked_state(params, init)
        at = lambda target: lambda params, h: losses_of(loss, read(params, h), target)
        losses = checked_losses(at(target), function, kind, params, init, x)
        check_entries(losses.shape, "[*batch]", weights=weights)
        shares = normalised(weights, losses.shape, losses.dtype)
        losses_at = at(counted(target, weights))
        force = jax.grad(lambda h: jnp.sum(losses_at(params, h)))

        def step(h, beta=None):
            new = drive(params, h, x)
            new = new if beta is None else pushed(new, beta, force(h))
            return new if activation is None else jax.tree.map(activation, new)

        def relax(steps, h, beta=None):
            return jax.lax.fori_loop(0, steps, lambda _, h: step(h, beta), h)

        check_like("the next state", jax.eval_shape(step, init), "init", init)
        h = relax(free_steps, init)
        nudged = relax(nudged_steps, h, beta)
        opposite = relax(nudged_steps, h, -beta) if symmetric else None
        mean_loss = lambda params: jnp.sum(shares * losses_at(params, h))
        value, direct = jax.value_and_grad(mean_loss)(params)
        start, width = (opposite, 2 * beta) if symmetric else (h, beta)
        x, states = finite(shares, x, (h, start, nudged), losses.ndim)
        grads = contrast(function, kind, params, x, shares, *states)
        scaled = lambda leaf: leaf / jnp.asarray(width, leaf.dtype)
        grads = jax.tree.map(lambda a, b: scaled(a) + b, grads, direct)
        asymmetry = None
        if kind == "map":
            asymmetry = asymmetry_of(lambda h: function(params, h, x), states[0])
            warn_if_asymmetric(asymmetry, h)
        residual = ratio(minus(step(h), h), h, losses.ndim)
        late = minus(step(nudged, beta), nudged)
        late = ratio(late, minus(nudged, h), losses.ndim)
        return (value, Phases(h, nudged, opposite, residual, late, asymmetry)), grads

    return rule
