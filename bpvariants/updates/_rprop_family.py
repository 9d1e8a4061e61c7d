"""The members of the Rprop family as optimisers; `_rprop.py` has their equations."""

import jax
import optax

from bpvariants.updates._rprop import scale_by_rprop


def irprop_minus(
    learning_rate: float | jax.Array,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-6,
    max_step_size: float | jax.Array = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """iRprop⁻, also named `rprop`: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_t where g changed its sign.

    Consecutive gradients must be of one and the same function. Between mini-batches
    signs change by chance, and step sizes shrink to nothing: add the gradients up over
    an epoch (`optax.MultiSteps`). Weight decay belongs into the gradient, before this.
    A gradient of NaN makes an update of NaN and leaves the state as it was. The state
    is 2·p numbers, 5·p bytes for float32, time O(p).

    Args:
      learning_rate: first step size Δ_0 of each parameter, in its units; read by `init`
        only, as step sizes adapt themselves.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if factors or bounds are not in the order given above, if
        learning_rate is not positive, or a schedule, or (in `init`) if params are not
        real floating arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop(0.5)
      >>> params = jnp.array([1.0, -2.0])
      >>> update, state = optimizer.update(2 * params, optimizer.init(params))
      >>> update.tolist()
      [-0.5, 0.5]

    References:
      Igel & Hüsken, "Empirical evaluation of the improved Rprop learning algorithms",
      Neurocomputing 50, 2003, doi:10.1016/S0925-2312(01)00700-7.
    """
    return _descend(
        "irprop_minus", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    )


rprop = irprop_minus


def irprop_plus(
    learning_rate: float | jax.Array,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-6,
    max_step_size: float | jax.Array = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """iRprop⁺, which takes a step back if the loss grew: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but where g changed its sign
                  θ_{t−1} if E_t > E_{t−1}, else θ_t.

    Its `update` takes `value=` E_t, the loss at the params where the gradient was
    taken, with weight decay if the gradient has it; a loss of NaN counts as worse than
    any. A transformation that comes after it must not change its steps, which it takes
    back by their length. `optax.MultiSteps` adds up gradients, but passes the value of
    the last batch only: give it the mean over the epoch there. The cost is that
    of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.

    Returns:
      An optax.GradientTransformationExtraArgs.

    Raises:
      ValueError: as :func:`irprop_minus`; and in `update`, if there is no value.

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
    return _descend(
        "irprop_plus", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    )


def rprop_minus(
    learning_rate: float | jax.Array,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-6,
    max_step_size: float | jax.Array = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """Rprop⁻, which never takes a step back: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t).

    Errors and cost are those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.

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
    return _descend(
        "rprop_minus", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    )


def rprop_plus(
    learning_rate: float | jax.Array,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-6,
    max_step_size: float | jax.Array = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """Rprop⁺, Rprop as first published: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_{t−1} where g changed its sign.

    A transformation that comes after it must not change its steps, which it takes back
    by their length. Errors and cost are those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.

    Returns:
      An optax.GradientTransformation.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop_plus(0.5)
      >>> _, state = optimizer.update(jnp.array(3.0), optimizer.init(jnp.array(1.0)))
      >>> optimizer.update(jnp.array(-1.0), state)[0].item()
      0.5

    References:
      Riedmiller & Braun, "A direct adaptive method for faster backpropagation
      learning: the RPROP algorithm", ICNN 1993, doi:10.1109/ICNN.1993.298623.
    """
    return _descend(
        "rprop_plus", learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    )


def _descend(variant, *arguments):
    return optax.chain(scale_by_rprop(*arguments, variant=variant), optax.scale(-1.0))
