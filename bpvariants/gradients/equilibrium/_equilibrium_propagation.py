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

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_like
from bpvariants._losses import as_arrays, check_entries, counted, losses_of, normalised
from bpvariants._settings import check_flag
from bpvariants.gradients.equilibrium._nudging import derivative, pushed
from bpvariants.gradients.equilibrium._nudging_checks import (
    check_settings,
    check_strength,
    checked_losses,
    checked_state,
    Kind,
)
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._two_phases import (
    compare_phases,
    EquilibriumPropagationRule,
)
from bpvariants.types import Loss, PyTree


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
    check_strength("beta", beta)
    check_flag("symmetric", symmetric)
    check_count("free_steps", free_steps)
    check_count("nudged_steps", nudged_steps)
    function = with_precise_products(function)
    read = (lambda params, h: h) if readout is None else readout
    drive = function if kind == "map" else derivative(function)
    act = activation

    def rule(params, init, x, target, weights=None):
        (weights,) = as_arrays(weights=weights)
        init = checked_state(params, init)
        at = lambda target: lambda params, h: losses_of(loss, read(params, h), target)
        losses = checked_losses(at(target), function, kind, params, init, x)
        check_entries(losses.shape, "[*batch]", weights=weights)
        shares = normalised(weights, losses.shape, losses.dtype)
        losses_at = at(counted(target, weights))
        force = jax.grad(lambda h: jnp.sum(losses_at(params, h)))

        activated = lambda new: new if act is None else jax.tree.map(act, new)
        step = lambda h: activated(drive(params, h, x))
        nudged = lambda h, beta: activated(pushed(drive(params, h, x), beta, force(h)))
        check_like("the next state", jax.eval_shape(step, init), "init", init)
        phases, grads = compare_phases(
            function, kind, params, init, x, shares, step,
            lambda free: lambda beta: lambda h: nudged(h, beta),
            strength=beta, symmetric=symmetric, free_steps=free_steps,
            nudged_steps=nudged_steps, batch_ndim=losses.ndim,
        )  # fmt: skip
        mean_loss = lambda params: jnp.sum(shares * losses_at(params, phases.h))
        value, direct = jax.value_and_grad(mean_loss)(params)
        return (value, phases), jax.tree.map(jnp.add, grads, direct)

    return rule
