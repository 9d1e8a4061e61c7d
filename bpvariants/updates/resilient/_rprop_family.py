"""The members of the Rprop family as optimisers; `_rprop.py` has their equations."""

import jax
import optax

from bpvariants.updates._params import PerLeaf
from bpvariants.updates.resilient._rprop import scale_by_rprop
from bpvariants.updates.resilient._rprop_layouts import RpropLayout
from bpvariants.updates.resilient._rprop_restore import restoring


def irprop_minus(
    learning_rate: PerLeaf,
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

    Consecutive gradients must be of one and the same function. Between mini-batches
    signs change by chance, and step sizes shrink to nothing: add the gradients up over
    an epoch (`optax.MultiSteps`), or use :func:`probabilistic_rprop` with its move
    "expected"; `python -m experiments rprop_minibatch` shows all that. A gradient of
    NaN makes an update of NaN and leaves the state as it was. Time is O(p), memory that
    of the state:

        state        bytes a float32   step sizes
        float32      8                 float32 (float64 where params are)
        int8_sign    5                 the same
        packed       4                 have lost the last bit of the mantissa
        bfloat16     2                 have 6 bits of mantissa, in bfloat16

    Of 1,000 random steps, zeros among them, each reproduces those of "float32":
    "int8_sign" exactly, "packed" to 1e-5 of their size, "bfloat16" to a tenth.

    Args:
      learning_rate: first step size Δ_0 of each parameter, in its units, read by `init`
        only, as step sizes adapt themselves. It is clipped to the bounds. A number, or
        a pytree like params of numbers and arrays: each weight may have its own.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: λ ≥ 0, where λ θ is added to the gradient before its sign is taken.
        Decay that is not to be seen by Rprop comes after it, in the chain.
      state: how Δ and s are kept, as above.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if factors or bounds are not in the order given above, if
        learning_rate is not positive, or a schedule, or state unknown; in `init`, if
        params are not real floating arrays, or a pytree of settings does not fit them.

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
    return _descend("irprop_minus", numbers, weight_decay, state)


rprop = irprop_minus


def irprop_plus(
    learning_rate: PerLeaf,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
    after: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """iRprop⁺, which takes a step back if the loss grew: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), but where g changed its sign
                  θ_{t−1} if E_t > E_{t−1}, else θ_t.

    Its `update` takes `value=` E_t, the loss at the params where the gradient was
    taken; a loss of NaN counts as worse than any. With `weight_decay` λ it must include
    ½ λ ‖θ‖², as the gradient then does. `optax.MultiSteps` adds up gradients, but
    passes the value of the last batch only: give it the mean over the epoch there. What
    else is to be done with the steps is said in `after`, not in a chain, as
    :func:`rprop_plus` explains. The cost is that of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree.
      max_step_size: greatest step size Δ_max; a number, or a pytree.
      weight_decay: λ of λ θ, which is added to the gradient.
      state: how Δ and s are kept, as :func:`irprop_minus` says.
      after: a transformation of the steps, of which those that are taken back are not.

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
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    return _descend("irprop_plus", numbers, weight_decay, state, after)


def rprop_minus(
    learning_rate: PerLeaf,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """Rprop⁻, which never takes a step back: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t).

    Errors and cost are those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree.
      max_step_size: greatest step size Δ_max; a number, or a pytree.
      weight_decay: λ of λ θ, which is added to the gradient.
      state: how Δ and s are kept, as :func:`irprop_minus` says.

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
    return _descend("rprop_minus", numbers, weight_decay, state)


def rprop_plus(
    learning_rate: PerLeaf,
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

        θ_{t+1} = θ_t − Δ_t sign(g_t), but θ_{t−1} where g changed its sign.

    A transformation that comes later in a chain must not change the steps, which are
    taken back by their length. Give it as `after`: then θ_{t−1} is kept, which costs as
    much memory again as params, and put back as exactly as an update that is added can:
    to the last bit where the two have one sign and are within a factor of two of each
    other, and elsewhere to half of the last bit of what lies between them. Errors and
    cost are otherwise those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree.
      max_step_size: greatest step size Δ_max; a number, or a pytree.
      weight_decay: λ of λ θ, which is added to the gradient.
      state: how Δ and s are kept, as :func:`irprop_minus` says.
      after: a transformation of the steps, of which those that are taken back are not.

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
    return _descend("rprop_plus", numbers, weight_decay, state, after)


def half_back(
    learning_rate: PerLeaf,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """Rprop that turns round and then pauses: for FULL-BATCH gradients only.

        θ_{t+1} = θ_t − Δ_t sign(g_t), and Δ_{t+1} = Δ_t where g_t changed its sign.

    With η⁻ = ½ it goes half of the last step back. Several programs call it iRprop⁻,
    which it is not. Errors and cost are those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min; a number, or a pytree.
      max_step_size: greatest step size Δ_max; a number, or a pytree.
      weight_decay: λ of λ θ, which is added to the gradient.
      state: how Δ and s are kept, as :func:`irprop_minus` says.

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
    return _descend("half_back", numbers, weight_decay, state)


def _descend(variant, numbers, weight_decay, state, after=None):
    rule = scale_by_rprop(
        *numbers, weight_decay=weight_decay, variant=variant, state=state
    )
    if after is not None:
        return restoring(rule, RpropLayout(state, variant), after)
    return optax.chain(rule, optax.scale(-1.0))
