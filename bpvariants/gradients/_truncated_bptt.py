"""Truncated backpropagation through time, BPTT(h; h′): every loss injected once.

Notation: h is the lookback, h′ ≤ h how often errors are sent back. At each of the ends
e = h′, 2h′, … and T, only the losses since the last end travel back, through the
window that begins at s = max(0, e − h), whose first carry is taken as a constant:

    g = Σ_e ∇_θ Σ_{t = last end + 1 … e} ℓ_t    along h_s → h_{s+1} → … → h_e.

A loss so looks back between h − h′ + 1 and h steps. The windows are an outer scan that
takes the gradient of one window at a time, so that what is kept is that of h steps. (To
`stop_gradient` every h′ steps of one scan gives the gradient of h = h′, and keeps T.)
"""

from functools import partial
from itertools import pairwise
from numbers import Integral

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, widen
from bpvariants.gradients._losses import (
    as_arrays,
    check_sequence,
    effective_weights,
    normalised,
    with_loss,
)
from bpvariants.gradients._masking import keep
from bpvariants.gradients._unroll import scan_steps
from bpvariants.types import GradientRule, Loss, PyTree, Step


def truncated_bptt(
    step: Step, loss: Loss, *, every: int, lookback: int
) -> GradientRule:
    """BPTT(h; h′), an approximation of BPTT: errors travel back `lookback` steps.

    Biased, and exact for every sequence of T ≤ lookback, whatever `every` is. The value
    and the carry are exact. Memory is that of `lookback` steps, whatever T is, and if
    lookback > every that of a copy of xs and targets; time is that of BPTT, lookback /
    every times. What frameworks call a window of k steps is every = lookback = k, in
    which the first loss looks back one step only; lookback = 2·every is the common
    recommendation.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      every: h′, after how many steps errors are sent back, 1 ≤ h′ ≤ h.
      lookback: h, how many steps back they travel from there.

    Returns:
      A :class:`~bpvariants.types.GradientRule`.

    Raises:
      ValueError: if `every` and `lookback` are not integers with 1 ≤ every ≤ lookback;
        when the rule is called, if lengths, shapes or dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.truncated_bptt(integrate, loss, every=1, lookback=1))
      >>> (value, h), grad = rule(2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), grad.item()  # of w + 4w, the second 4w lost 2w
      (10.0, 4.0, 6.0)

    References:
      Williams & Peng, "An efficient gradient-based algorithm for on-line training of
      recurrent network trajectories", Neural Computation 2(4), 1990,
      doi:10.1162/neco.1990.2.4.490.
    """
    for name, value in {"every": every, "lookback": lookback}.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    if lookback < every:
        raise ValueError(
            "lookback must be at least every, so that no loss is left out; got "
            f"lookback={lookback} and every={every}."
        )
    advance = with_loss(step, loss)

    def rule(
        params, carry, xs, targets, weights=None, mask=None, reset=None, initial=None
    ):
        weights, mask, reset = as_arrays(weights, mask, reset)
        losses = check_sequence(
            advance, params, carry, xs, targets, weights, mask, reset, initial
        )
        length = jax.tree.leaves(xs)[0].shape[0]
        h, num_losses = min(lookback, length), min(every, length)
        ahead = h - num_losses  # steps of a window before the first of its losses
        weights = effective_weights(weights, mask)
        shares = normalised(weights, (length, *losses.shape), losses.dtype)
        shares = jnp.broadcast_to(shares, (length, *losses.shape))
        # The first windows begin before the sequence does, and idle until then, on
        # the inputs of the first step: any others might be none that a step can take.
        began = jnp.arange(-ahead, length) >= 0 if ahead else None
        xs, mask, reset, shares = _repeat_first(
            ((xs, targets), mask, reset, shares), ahead
        )
        inputs = (xs, began), mask, reset, shares
        initial = carry if initial is None else initial
        advance_once_begun = _idle_until_begun(advance)
        window = partial(_window, advance_once_begun, params, initial)

        def body(state, index):
            start, _, _, totals = state
            part = _part(inputs, index * num_losses, h)
            end, following, gradient = window(start, part, ahead, num_losses)
            totals = jax.tree.map(jnp.add, totals, gradient)
            return (following, start, end, totals), None

        zeros = jax.tree.map(jnp.zeros_like, widen(params))
        totals = jnp.zeros((), losses.dtype), zeros
        state = carry, carry, carry, totals  # where windows begin, began, and ended
        num_windows, remainder = divmod(length, num_losses)
        state, _ = jax.lax.scan(body, state, jnp.arange(num_windows))
        _, start, end, totals = state
        if remainder:  # the last window begins so many steps after the one before
            first = (num_windows - 1) * num_losses
            x, mask, reset, _ = _part(inputs, first, remainder)
            step = advance_once_begun
            start, _ = scan_steps(step, params, start, x, mask, reset, initial)
            part = _part(inputs, first + remainder, h)
            end, _, gradient = window(start, part, h - remainder, h)
            totals = jax.tree.map(jnp.add, totals, gradient)
        value, grads = totals
        return (value, end), cast_like(grads, params)

    return rule


def _window(
    advance: Step,
    params: PyTree,
    initial: PyTree,
    start: PyTree,
    inputs: PyTree,
    ahead: int,
    following: int,
) -> tuple[PyTree, PyTree, tuple[jax.Array, PyTree]]:
    """Run one window and take its gradient, of the losses after `ahead` steps.

    Returns the carry at its end, that after `following` steps, and (value, grads).
    """
    length = inputs[-1].shape[0]

    def objective(params):
        value, carry, carries = 0.0, start, {}
        for begin, end in pairwise(sorted({0, ahead, following, length})):
            x, mask, reset, shares = _part(inputs, begin, end - begin)
            step = advance if begin >= ahead else _without_output(advance)
            carry, losses = scan_steps(step, params, carry, x, mask, reset, initial)
            carries[end] = carry
            if losses is not None:
                value += jnp.sum(shares * losses)
        return value, (carry, carries[following])

    wide_params = widen(params)
    as_given = lambda wide: objective(cast_like(wide, params))
    (value, (end, following_start)), grads = jax.value_and_grad(as_given, has_aux=True)(
        wide_params
    )
    return end, following_start, (value, grads)


def _without_output(step: Step) -> Step:
    return lambda params, carry, x: (step(params, carry, x)[0], None)


def _idle_until_begun(step: Step) -> Step:
    """Return the step that takes (x, begun), begun being None where it always has."""

    def step_once_begun(params, carry, x_and_begun):
        x, begun = x_and_begun
        new_carry, y = step(params, carry, x)
        return keep(new_carry, carry, begun), y

    return step_once_begun


def _repeat_first(tree: PyTree, times: int) -> PyTree:
    """Put the first step so many more times before each sequence."""

    def repeat(leaf):
        first = jnp.broadcast_to(leaf[:1], (times, *leaf.shape[1:]))
        return jnp.concatenate([first, leaf])

    return jax.tree.map(repeat, tree) if times else tree


def _part(tree: PyTree, begin: int | jax.Array, steps: int) -> PyTree:
    """Return so many steps of each sequence, from `begin`."""
    cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, steps)
    return jax.tree.map(cut, tree)
