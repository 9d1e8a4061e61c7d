"""Backpropagation through time: the exact gradient, computed backwards in time.

Notation: h_t is the carry, θ the parameters, ℓ_t the loss of step t, L = Σ_t ℓ_t.
With J_t = ∂h_t/∂h_{t−1}, I_t = ∂h_t/∂θ and the adjoint δ_t = dL/dh_t,

    δ_t = ∂ℓ_t/∂h_t + δ_{t+1} J_{t+1},    dL/dθ = Σ_t δ_t I_t + ∂ℓ_t/∂θ,

Reverse-mode differentiation of `jax.lax.scan` computes exactly these two equations.
"""

import jax

from bpvariants._checks import check_no_key
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    counted,
    effective_weights,
    normalised,
    with_loss,
)
from bpvariants.gradients.remat._policies import Remat
from bpvariants.gradients.through_time._unroll import (
    Backward,
    check_backward,
    sum_steps,
)
from bpvariants.types import GradientRule, Loss, Step


def bptt(
    step: Step,
    loss: Loss,
    *,
    remat: Remat = None,
    backward: Backward = "scan",
) -> GradientRule:
    """Backpropagation through time, the exact gradient of a sequence's mean loss.

    A call takes the time of about three forward passes. Memory is T times the residuals
    of one step, where T is the length of the sequence.

    Args:
      step: one time step of the network, such as the `apply` of a Linen cell.
      loss: one loss for each example, such as optax's softmax cross entropies.
      remat: which arrays the forward pass stores for the backward pass. Policies that
        need less memory take more time. None stores all residuals. "step" stores only
        the T carries and computes each step again, which takes the time of one more
        forward pass. The policies :func:`remat.every`, :func:`remat.slots` and
        :func:`remat.budget` store fewer arrays.
      backward: algorithm of the backward pass, which does not affect the results.
        "scan" goes back one step at a time, and computes the weights' gradient at each
        step by matrix products. "two_phase" divides the sequence into blocks of steps
        and goes through each block twice. The first pass through a block computes only
        the error signals. The second pass computes the weights' gradient by one matrix
        product for all steps and examples of the block. `cells.lstm` and `cells.gru`
        without mask and reset run as a single block, and multiply all inputs by W in
        one product. "two_phase" requires remat=None. Measure how long "scan" and
        "two_phase" take with your network: on a CPU, "two_phase" took 0.6 to 1.2 of
        the time of "scan" with these cells, least with 512 units and most with a batch
        of 64, and 0.5 to 1.3 of that time with other steps. "reversible" stores no
        carries: the backward pass recovers each carry from the next one by the method
        step.inverse(params, carry, x) -> old carry, which `cells.reversible_gru` and a
        :func:`stack` of such cells have. Memory does not depend on T, apart from the
        arguments, and the time is that of about one more forward pass. An inverse step
        of a network that forgets magnifies rounding errors. If recovered carries differ
        from those of the forward pass by more than √ε, relative to the largest value of
        the same array and for its machine epsilon ε, all gradients are NaN. Then use
        shorter sequences, float64, or a remat policy. A sequence of more than 64 steps
        is checked in 64 parts, so an error that lasts for few steps must be larger to
        be noticed. "reversible" requires remat=None and accepts no resets.

    Returns:
      A :class:`~bpvariants.types.GradientRule`.

    Raises:
      ValueError: if step or loss is not a function, if remat or backward is unknown,
        if remat and backward cannot be combined, or if step has no inverse with
        backward="reversible". When the rule is called, if lengths, shapes or dtypes of
        the arguments disagree, if a key is given, or if there are resets with
        backward="reversible".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.bptt(integrate, loss))
      >>> (value, h), grad = rule(2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), grad.item()  # (w² + (2w)²) / 2, 2w, w + 4w
      (10.0, 4.0, 10.0)

    References:
      Werbos, "Backpropagation through time: what it does and how to do it",
      Proceedings of the IEEE 78(10), 1990, doi:10.1109/5.58337.
    """
    advance = with_loss(step, loss)
    check_backward(remat, backward, step)

    def rule(
        params,
        carry,
        xs,
        targets,
        weights=None,
        mask=None,
        reset=None,
        initial=None,
        *,
        key=None,
    ):
        check_no_key("bptt", key)
        weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
        losses = check_sequence(
            advance, params, carry, xs, targets, weights, mask, reset, initial
        )
        initial = carry if initial is None else initial
        shape = (jax.tree.leaves(xs)[0].shape[0], *losses.shape)
        shares = normalised(effective_weights(weights, mask), shape, losses.dtype)

        inputs = xs, counted(targets, weights, mask)

        def objective(params):
            last, value = sum_steps(
                advance, params, carry, inputs, mask, reset, initial,
                shares=shares, remat=remat, backward=backward,
            )  # fmt: skip
            return value, last

        return jax.value_and_grad(objective, has_aux=True)(params)

    return rule
