"""Optimisers of the Rprop family except iRprop⁻, whose file is `_irprop_minus.py`."""

import jax
import optax

from bpvariants.updates._foreign_names import refuses, TORCH_RPROP
from bpvariants.updates._params import PerLeaf
from bpvariants.updates.resilient._rprop_optimizer import descend


@refuses(**TORCH_RPROP)
def irprop_plus(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
    after: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """iRprop⁺, which reverts a step if the loss grew: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but where the gradient g changed its sign
                  θ_{t−1} if E_t > E_{t−1}, else θ_t.

    Here g is the gradient, Δ_t is the step size of a parameter, and E_t is the loss.
    The optimizer's `update` needs the argument `value`, the loss at the params at which
    the gradient was taken. A NaN loss counts as larger than any other loss. With
    `weight_decay` λ, `value` must include ½ λ ‖θ‖², because the optimizer adds λ θ to
    the gradient. `optax.MultiSteps` accumulates gradients over an epoch, but passes on
    only the `value` of the last batch. Therefore, give the mean loss of the epoch as
    the `value` of the last batch. To transform the steps further, pass a transformation
    as `after`, instead of chaining it, because a reverted step must not be transformed.
    Memory and time are as in :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number or a pytree.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      state: name of the state's format in the table of :func:`irprop_minus`.
      after: an optax transformation of all steps, except steps that are reverted.

    Returns:
      An optax.GradientTransformationExtraArgs.

    Raises:
      ValueError: as in :func:`irprop_minus`; in `update`, if value is missing or is not
        a scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer, params = updates.irprop_plus(0.5), jnp.array([1.0, -2.0])
      >>> value, grads = jax.value_and_grad(lambda w: jnp.sum(w**2))(params)
      >>> state = optimizer.init(params)
      >>> update, state = optimizer.update(grads, state, params, value=value)
      >>> update.tolist()
      [-0.5, 0.5]

    References:
      Igel & Hüsken, "Empirical evaluation of the improved Rprop learning algorithms",
      Neurocomputing 50, 2003, doi:10.1016/S0925-2312(01)00700-7.
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("irprop_plus", "irprop_plus", numbers, weight_decay, state, after)


@refuses(**TORCH_RPROP)
def rprop_minus(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """Rprop⁻, which never reverts a step: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), with gradient g_t and step size Δ_t.

    Exceptions, memory and time are as in :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number or a pytree.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      state: name of the state's format in the table of :func:`irprop_minus`.

    Returns:
      An optax.GradientTransformation.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop_minus(0.5)
      >>> _, state = optimizer.update(jnp.array(3.0), optimizer.init(jnp.array(1.0)))
      >>> optimizer.update(jnp.array(-1.0), state)[0].item()
      0.25

    References:
      Riedmiller, "Advanced supervised learning in multi-layer perceptrons: from
      backpropagation to adaptive learning algorithms", Computer Standards & Interfaces
      16, 1994, doi:10.1016/0920-5489(94)90017-5.
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("rprop_minus", "rprop_minus", numbers, weight_decay, state)


@refuses(**TORCH_RPROP)
def rprop_plus(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
    after: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Rprop⁺, Rprop as first published: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_{t−1} where gradient g changed its sign.

    To revert a step, Rprop⁺ takes a step in the opposite direction. The length of this
    step is the stored step size Δ of the last step. Therefore, later transformations in
    an optax chain must not change the steps; pass a transformation that changes steps
    as `after`. With `after`, the state also stores the previous params θ_{t−1}, and a
    reverted step returns to θ_{t−1}. The result is bit-identical to θ_{t−1} if θ_{t−1}
    and θ_t have the same sign and differ by less than a factor of two. Otherwise, the
    rounding error is at most half of the last bit of θ_{t−1} − θ_t. Exceptions, time
    and all other memory are as in :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number or a pytree.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      state: name of the state's format in the table of :func:`irprop_minus`.
      after: an optax transformation of all steps, except steps that are reverted.

    Returns:
      An optax.GradientTransformation.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop_plus(0.5, after=optax.scale(0.5))
      >>> start = jnp.array(1.0)
      >>> step, state = optimizer.update(start, optimizer.init(start), start)
      >>> there = start + step
      >>> step, state = optimizer.update(-there, state, there)
      >>> there.item(), (there + step).item()
      (0.75, 1.0)

    References:
      Riedmiller & Braun, "A direct adaptive method for faster backpropagation
      learning: the RPROP algorithm", ICNN 1993, doi:10.1109/ICNN.1993.298623.
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("rprop_plus", "rprop_plus", numbers, weight_decay, state, after)


@refuses(**TORCH_RPROP)
def half_back(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """Rprop that turns back at a sign change: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), and Δ_{t+1} = Δ_t where g_t changed its sign.

    Where the gradient g_t of a parameter changes its sign, the step size Δ_t shrinks by
    the factor η⁻, and then stays constant for one step. With η⁻ = ½, a parameter whose
    gradient changes its sign goes back by half of its last step. Several libraries call
    this update iRprop⁻, wrongly. Exceptions, memory and time are as in
    :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number or a pytree.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      state: name of the state's format in the table of :func:`irprop_minus`.

    Returns:
      An optax.GradientTransformation.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer, state = updates.half_back(0.5), updates.half_back(0.5).init(1.0)
      >>> for grad in (3.0, -1.0, -1.0, -1.0):
      ...     step, state = optimizer.update(jnp.array(grad), state)
      ...     print(round(step.item(), 3))
      -0.5
      0.25
      0.25
      0.3
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("half_back", "half_back", numbers, weight_decay, state)
