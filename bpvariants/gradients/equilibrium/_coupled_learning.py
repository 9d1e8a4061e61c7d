"""Coupled learning: an update from a free and a clamped state of a physical network.

Notation: Φ(θ, h, x) is the primitive function of the network, one number for each
example; σ is an increasing element-wise activation (by default the identity); y(h) are
the elements of the state h that are outputs, ŷ is the target, and η is the step by
which the outputs are moved towards the target.

    free phase      h ← σ(∂Φ/∂h)                        T steps from init    → h*
    clamped phase   h ← σ(∂Φ/∂h),  y(h) ← y* + η (ŷ − y*)    K steps from h*  → h^η
    one-sided       update = −(∂Φ/∂θ(h^η) − ∂Φ/∂θ(h*)) / η           as published
    symmetric       update = −(∂Φ/∂θ(h^η) − ∂Φ/∂θ(h^−η)) / 2η

Let C be the response of the free outputs to small forces on them, δy = C · force, for
one example. To move the outputs by η (ŷ − y*), the clamps exert the forces
η C⁻¹ (ŷ − y*). For η → 0, the update is therefore that of equilibrium propagation with
∂ℓ/∂y = C⁻¹ (y − ŷ) in place of y − ŷ: the gradient of ½ (y − ŷ)ᵀ C⁻¹ (y − ŷ), in which
C is held constant.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_function, check_like, UsageError
from bpvariants._examples import squared_norm
from bpvariants._losses import (
    as_arrays,
    check_entries,
    counted,
    losses_of,
    normalised,
    seen,
)
from bpvariants._settings import check_flag
from bpvariants.gradients.equilibrium._clamping import clamp_at
from bpvariants.gradients.equilibrium._nudging import derivative, minus, pushed
from bpvariants.gradients.equilibrium._nudging_checks import (
    check_activation,
    check_strength,
    checked_state,
    primitive_shape,
)
from bpvariants.gradients.equilibrium._precision import with_precise_products
from bpvariants.gradients.equilibrium._two_phases import (
    compare_phases,
    EquilibriumPropagationRule,
)
from bpvariants.types import PyTree


def coupled_learning(
    function: Callable[[PyTree, PyTree, PyTree], jax.Array],
    outputs: Callable[[PyTree], PyTree],
    *,
    activation: Callable[[jax.Array], jax.Array] | None = None,
    eta: float | jax.Array = 0.1,
    symmetric: bool = True,
    free_steps: int = 100,
    clamped_steps: int = 50,
) -> EquilibriumPropagationRule:
    """Coupled learning, an update from clamped outputs; a biased gradient.

    The rule is for simulations of physical networks, such as networks of resistors or
    springs, whose outputs can be held at a value while the rest settles. For η → 0 and
    one output, the update of each example is the gradient of its squared error
    ½ (y − target)², divided by the response of the output to a force. With several
    outputs, it is the gradient of another distance to the target, and not of the
    squared error. To descend a loss of your choice, use
    :func:`equilibrium_propagation`; to train on a computer, use
    :func:`recurrent_backprop`, which is exact. The cost is free_steps +
    2 clamped_steps evaluations of ∂Φ/∂h, or free_steps + clamped_steps with
    symmetric=False; the memory holds a few states.

    Args:
      function: the primitive function Φ, a function of (params, h, x) with state h and
        input x, one number for each example, [*batch]; ∂Φ/∂h is the next state, before
        activation. For a network that minimises an energy E by steps of size τ, give
        Φ = ‖h‖² / 2 − τ E; the update is then τ times that of E.
      outputs: function h -> y that selects the elements of the state that are outputs,
        such as lambda h: h["out"]. They are compared with the target and clamped.
      activation: increasing function that is applied to each element of the next state,
        such as jax.nn.sigmoid; not part of Φ. Default: none.
      eta: η > 0, the part of the way from the free output to the target at which
        outputs are clamped. The difference of the phases is divided by η, which
        magnifies rounding errors: in float32, take η ≥ 0.01.
      symmetric: whether there are two clamped phases, with η and −η, instead of one.
        The published rule has one; the difference to the limit η → 0 is then O(η)
        instead of O(η²).
      free_steps: number T of steps of the free phase.
      clamped_steps: number K of steps of each clamped phase.

    Returns:
      A function (params, init, x, target, weights=None) -> ((value, phases), grads).
      init and x have leaves [*batch, ...]; if there is a batch, a state of one number
      must be given as [*batch, 1]. target is like outputs(init); weights is [*batch].
      `value` is the weighted mean of ‖y − target‖² / 2 after the free phase,
      and `phases` a :class:`Phases`. The update descends: subtract it from params.

    Raises:
      ValueError: if function, outputs or activation is not a function, or a setting is
        out of its range; when the returned function is called, if outputs does not
        select elements of the state, or if shapes or dtypes disagree.

    Example:
      >>> from bpvariants import gradients
      >>> phi = lambda w, h, x: w * h**2 / 2 + x * h  # h* = x / (1 − w) = 2
      >>> rule = gradients.coupled_learning(phi, lambda h: h, eta=0.01)
      >>> (value, phases), grad = rule(0.5, 0.0, 1.0, 0.0)
      >>> round(value.item(), 4), round(grad.item(), 2)  # gradient 8, response 2
      (2.0, 4.0)

    References:
      Stern, Hexner, Rocks & Liu, "Supervised learning in physical networks: from
      machine learning to learning machines", Physical Review X 11, 021045, 2021,
      doi:10.1103/PhysRevX.11.021045.
    """
    check_function("function", function, "(params, h, x) -> Φ [*batch]")
    check_function("outputs", outputs, "h -> y")
    check_activation(activation)
    check_strength("eta", eta)
    check_flag("symmetric", symmetric)
    check_count("free_steps", free_steps)
    check_count("clamped_steps", clamped_steps)
    function = with_precise_products(function)
    drive = derivative(function)

    def rule(params, init, x, target, weights=None):
        (weights,) = as_arrays(weights=weights)
        init = checked_state(params, init)
        remedy = "Sum Φ over the elements of the state."
        phi = primitive_shape(function, params, init, x, remedy)
        batch = phi.shape
        clamp = clamp_at(outputs, init)
        _check_sum(batch, init)
        _check_examples(batch, init=init, x=x, outputs=outputs(init))
        check_like("target", target, "outputs(init)", outputs(init))
        check_entries(batch, "[*batch]", weights=weights)
        flagged = counted(target, weights)
        half_square = lambda y, target: squared_norm(minus(y, target), len(batch)) / 2

        def step(h):
            new = drive(params, h, x)
            return new if activation is None else jax.tree.map(activation, new)

        def clamped(free):
            y = outputs(free)
            apart = minus(y, seen(flagged))

            def step_at(eta):
                held = pushed(y, eta, apart)
                return lambda h: clamp(step(h), held)

            return step_at

        check_like("the next state", jax.eval_shape(step, init), "init", init)
        losses = jax.eval_shape(half_square, outputs(init), target)
        shares = normalised(weights, batch, losses.dtype)
        phases, grads = compare_phases(
            function, "primitive", params, init, x, shares, step, clamped,
            strength=eta, symmetric=symmetric, free_steps=free_steps,
            nudged_steps=clamped_steps, batch_ndim=len(batch),
        )  # fmt: skip
        losses = losses_of(half_square, outputs(phases.h), flagged)
        return (jnp.sum(shares * losses), phases), grads

    return rule


def _check_sum(batch: tuple[int, ...], init: PyTree) -> None:
    if batch and all(jnp.shape(leaf) == batch for leaf in jax.tree.leaves(init)):
        raise UsageError(
            "function must return Φ, one number for each example, [*batch], got the "
            f"shape of the state, {batch}. Sum Φ over the elements of the state; or, "
            "if the state of each example is a single number, give init the shape "
            "[*batch, 1]."
        )


def _check_examples(batch: tuple[int, ...], **trees: PyTree) -> None:
    for name, tree in trees.items():
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        if any(shape[: len(batch)] != batch for shape in shapes):
            raise UsageError(
                f"function gives Φ of shape [*batch] = {batch}, but {name} has leaves "
                f"of shapes {shapes}, which do not begin with it. Φ must be one number "
                "for each example: sum it over the elements of the state."
            )
