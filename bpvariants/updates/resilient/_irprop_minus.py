"""iRprop⁻ as an optimiser, by two names; `_rprop.py` has its equations."""

import jax
import optax

from bpvariants.updates._foreign_names import refuses, TORCH_RPROP
from bpvariants.updates._params import PerLeaf
from bpvariants.updates.resilient._rprop_optimizer import descend


@refuses(**TORCH_RPROP)
def irprop_minus(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """iRprop⁻, also named `rprop`: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_t where g changed its sign.

    Consecutive gradients must be gradients of the same function. Between mini-batches
    signs change by chance, so step sizes shrink towards Δ_min. Accumulate the gradients
    of an epoch (`optax.MultiSteps`), or use :func:`probabilistic_rprop` with
    move="expected"; `python -m experiments rprop_minibatch` compares these. A NaN
    gradient makes a NaN update and leaves the state as it was. Time is O(p); memory is
    that of the state:

        state        bytes a float32   step sizes
        float32      8                 float32 (float64 if params are)
        int8_sign    5                 the same
        packed       4                 without the last bit of the mantissa
        bfloat16     2                 with 6 bits of mantissa, in bfloat16

    In a test of 1,000 steps on random gradients, some of them 0, the steps are those of
    "float32": exactly with "int8_sign", up to a relative error of 1e-5 with "packed",
    and of 0.1 with "bfloat16".

    Args:
      learning_rate: first step size Δ_0 of each parameter, in its units, clipped to the
        bounds. Only `init` reads it, because step sizes adapt themselves. A number, or
        a pytree like params of numbers and arrays: each weight may have its own.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: λ ≥ 0; λ θ is added to the gradient before its sign is taken. A
        decay that must not change the sign goes later in the chain.
      state: how Δ and s are stored, a name from the table above.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if a factor or bound is out of its range, if learning_rate is not
        positive or is a schedule, or if state is unknown; in `init`, if params are not
        real floating arrays, or a pytree of settings does not fit them; in `update`, if
        gradients are not like the params of `init`, or state is of another optimizer.
      TypeError: for PyTorch's names lr, etas and step_sizes.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop({"w": 0.5, "b": jnp.array([0.1, 0.2])})
      >>> params = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(2)}
      >>> update, state = optimizer.update(params, optimizer.init(params))
      >>> update["w"].tolist(), [round(b, 3) for b in update["b"].tolist()]
      ([-0.5, 0.5], [-0.1, -0.2])

    References:
      Igel & Hüsken, "Empirical evaluation of the improved Rprop learning algorithms",
      Neurocomputing 50, 2003, doi:10.1016/S0925-2312(01)00700-7.
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("irprop_minus", "irprop_minus", numbers, weight_decay, state)


@refuses(**TORCH_RPROP)
def rprop(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """The usual name of :func:`irprop_minus`, iRprop⁻: for FULL-BATCH gradients only.

    It is the same rule, with the same errors and cost.

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree.
      max_step_size: greatest step size Δ_max; a number, or a pytree.
      weight_decay: λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      state: how Δ and s are stored; :func:`irprop_minus` lists the names.

    Returns:
      An optax.GradientTransformation.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer, params = updates.rprop(), jnp.array([1.0, -2.0])
      >>> update, state = optimizer.update(2 * params, optimizer.init(params))
      >>> [round(each, 3) for each in update.tolist()]
      [-0.01, 0.01]
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("rprop", "irprop_minus", numbers, weight_decay, state)
