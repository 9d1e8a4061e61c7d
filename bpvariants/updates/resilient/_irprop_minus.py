"""The optimiser iRprop⁻, also named rprop; its equations are in `_rprop.py`."""

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

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_t where the gradient g changed its sign.

    Here g_t is the gradient and Δ_t is the step size, one per parameter. Consecutive
    gradients must be gradients of the same loss function. From one mini-batch to the
    next, signs of gradients change by chance, so the step sizes shrink towards their
    lower bound Δ_min. For mini-batches, accumulate the gradients of an epoch
    (`optax.MultiSteps`), or use :func:`probabilistic_rprop` with move="expected";
    `python -m experiments rprop_minibatch` compares these two ways. Where the gradient
    is NaN, the update is NaN and the state does not change. An update of p parameters
    takes time O(p). For each value of the argument `state`, the optimizer's state takes
    the following memory, in bytes per float32 parameter:

        state        bytes             step sizes
        float32      8                 float32 (float64 for float64 params)
        int8_sign    5                 float32 (float64 for float64 params)
        packed       4                 float32 without the last bit of the mantissa
        bfloat16     2                 with 6 bits of mantissa, in bfloat16

    For each value of `state`, a test takes 1,000 steps on random gradients. Some of
    these gradients are 0. Relative to the steps with "float32", each step differs by 0
    with "int8_sign", by at most 1e-5 with "packed", and by at most 0.1 with "bfloat16".

    Args:
      learning_rate: first step size Δ_0 of each parameter, in the parameter's units,
        clipped to the bounds Δ_min and Δ_max. Only `init` reads the learning rate;
        later, the step sizes adapt. Give a number, or a pytree like params whose leaves
        are numbers or arrays; with arrays, each weight has its own first step size.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
        For weight decay that does not affect the sign, add −λ θ to the update by a
        later transformation in the optax chain.
      state: name of the format in which step sizes and signs are stored, from the table
        above.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if a factor or bound is out of its range, if learning_rate is not
        positive or is a schedule, or if state is unknown; in `init`, if params are not
        real floating arrays, or a pytree of settings does not fit them; in `update`, if
        the gradients' shapes are not those of the params given to `init`, or if the
        state belongs to another optimizer.
      TypeError: for PyTorch's argument names lr, etas and step_sizes.

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

    `rprop` and `irprop_minus` are the same update, with the same exceptions, memory and
    time.

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
      >>> optimizer, params = updates.rprop(), jnp.array([1.0, -2.0])
      >>> update, state = optimizer.update(2 * params, optimizer.init(params))
      >>> [round(each, 3) for each in update.tolist()]
      [-0.01, 0.01]
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return descend("rprop", "irprop_minus", numbers, weight_decay, state)
