"""Truncated backpropagation through time, BPTT(h; h′): each loss counts exactly once.

Notation: ℓ_t is the loss of step t, h_t the carry, h (without index) the lookback.
After every h′ ≤ h steps, a backward pass goes through one window of steps. A window
ends at each step e = h′, 2h′, … and at T. The window begins at s = max(0, e − h), and
its first carry h_s is a constant. From each window, the gradient g counts only the
losses after the end of the previous window:

    g = Σ_e ∇_θ Σ_{t = previous end + 1 … e} ℓ_t    along h_s → h_{s+1} → … → h_e.

With lookback h and a backward pass every h′ steps, the error signal of a loss travels
back between h − h′ + 1 and h steps. An outer scan computes the gradient of one window
at a time, so that the residuals of only h steps are stored. (One scan with
`stop_gradient` every h′ steps gives the gradient for h = h′, but stores the residuals
of all T steps.)

Each window hands on the carry from which the next window starts. Each window also hands
on the inputs, masks and resets of the steps that the next window runs again. In a
stream, a call hands on this carry and these inputs, masks and resets to the next call.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_no_key
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    counted,
    effective_weights,
    with_loss,
)
from bpvariants.gradients._learning import check_pair, check_update, cut
from bpvariants.gradients.through_time._truncated_consumers import (
    add_up,
    Consumer,
    learn,
)
from bpvariants.gradients.through_time._truncated_stream import (
    leave,
    resume,
    stream as begin_stream,
    TruncatedStream,
)
from bpvariants.gradients.through_time._truncated_windows import (
    Block,
    Held,
    num_steps,
    Steps,
    window,
)
from bpvariants.types import GradientRule, Loss, PyTree, Step


class Call(NamedTuple):
    """Arguments that are equal for all windows of a call."""

    step: Step
    advance: Step  # (params, carry, (x, target)) -> (new carry, loss)
    initial: PyTree
    consumer: Consumer  # sums gradients of windows, or updates params
    block: Block  # new steps of the call and their targets


class Reached(NamedTuple):
    """State of a call at the end of a window."""

    end: PyTree  # carry at the end of the window
    held: Held
    state: PyTree


def truncated_bptt(
    step: Step,
    loss: Loss,
    *,
    every: int,
    lookback: int | None = None,
    update: Any = None,
) -> GradientRule:
    """BPTT(h; h′), biased BPTT whose error signals go back at most `lookback` steps.

    In general the gradient is biased. For a sequence of T ≤ lookback steps it is exact,
    whatever the value of `every`. The value and the carry are exact. For any T, the
    rule needs the memory that BPTT needs for `lookback` steps. The rule takes lookback
    / every times the time of BPTT. Other frameworks use windows of k steps, which is
    every = lookback = k. With windows of this kind, the error signal of a window's
    first loss travels back only one step. The default, lookback = 2·every, is a common
    recommendation.

    To continue a sequence, pass the returned carry to the next call. In this case,
    error signals stop at the start of each call. To let error signals travel back into
    earlier calls, pass a :func:`stream` instead of the carry. The rule then returns the
    next stream instead of the carry.

    With an `update`, the rule updates the parameters after each window, which is the
    part of the sequence that one backward pass goes through. With an update, the rule
    has the form

        learn((params, opt_state), carry, …) -> ((value, carry), (params, opt_state)).

    The new pair (params, opt_state) is returned instead of the gradients. The update
    gets the gradient of the window's mean loss Σ w·ℓ / Σ w, with losses ℓ and weights
    w. An update that accepts `value` also gets the window's mean loss. A window whose
    weights sum to 0 does not change the pair.

    The value of a call with an update is the mean of all losses, each computed with the
    params of its window. The losses, and the gradients that the update gets, therefore
    belong to different values of params.

    Other frameworks detach the carry and update after every k steps. An update with
    every = lookback = k gives the results of other frameworks if k divides the number
    of steps T. If k does not divide T, the results for the last r = T mod k steps
    differ. In other frameworks, error signals of these r steps travel back to the first
    of the r steps. In this rule, the error signals travel back k steps, into the
    previous window, so that the last update differs. To get the same update as in other
    frameworks, make a separate call for the last r steps.

    If lookback > every, each window begins with steps that the previous window has
    already run. The window runs these steps again with the new params, but from a carry
    computed with older params. The returned carry comes from the last window. If a call
    of a stream ends within a block of `every` steps, the rule also updates at the end
    of the call. With an update, the results therefore depend on how the stream is
    divided into calls, unless each call ends at a multiple of `every`.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      every: h′, number of steps between two backward passes, 1 ≤ h′ ≤ h.
      lookback: h, number of steps through which a backward pass goes. Default: 2·every.
      update: None, or an optax.GradientTransformation to apply after each window.

    Returns:
      A :class:`~bpvariants.types.GradientRule`.

    Raises:
      ValueError: if `every` and `lookback` are not integers with 1 ≤ every ≤ lookback,
        or if `update` is not a gradient transformation. The returned rule raises a
        ValueError if lengths, shapes or dtypes of the arguments disagree, or if a key
        is given. The rule also raises a ValueError if a stream comes from a rule with
        another every or lookback, or if there is an update but params is not a pair.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.truncated_bptt(integrate, loss, every=1, lookback=1))
      >>> (value, h), grad = rule(2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), grad.item()  # of w + 4w, the second 4w lost 2w
      (10.0, 4.0, 6.0)
      >>> sgd = optax.sgd(0.25)
      >>> learn = gradients.truncated_bptt(
      ...     integrate, loss, every=1, lookback=1, update=sgd
      ... )
      >>> pair, h = (2.0, sgd.init(2.0)), jnp.array(0.0)
      >>> (value, h), (w, _) = learn(pair, h, jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), w.item()  # w = 2, 1: (2² + (2 + 1)²) / 2; 1 − 6 / 4
      (6.5, 3.0, -0.5)

    References:
      Williams & Peng, "An efficient gradient-based algorithm for on-line training of
      recurrent network trajectories", Neural Computation 2(4), 1990,
      doi:10.1162/neco.1990.2.4.490.
    """
    lookback = _checked_lookback(every, lookback)
    if update is not None:
        check_update(update)
    advance = with_loss(step, loss)

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
        check_no_key("truncated_bptt", key)
        weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
        given = carry if isinstance(carry, TruncatedStream) else None
        state = carry if given is None else given.carry
        theta = params if update is None else check_pair(update, params)
        losses = check_sequence(
            advance, theta, state, xs, targets, weights, mask, reset, initial
        )
        length = jax.tree.leaves(xs)[0].shape[0]
        h, num_losses = int(lookback), int(every)
        if given is None:
            h, num_losses = min(h, length), min(num_losses, length)
        stream = begin_stream(carry) if given is None else given
        if initial is not None:
            stream = dataclasses.replace(stream, initial=initial)
        steps = Steps(xs, mask, reset, jnp.ones(length, bool))
        held, steps = resume(stream, steps, num_losses, h)
        block = Block(steps, counted(targets, weights, mask))
        weights = effective_weights(weights, mask)
        if update is None:
            consumer = add_up(params, weights, length, losses)
        else:
            consumer = learn(update, params, weights, losses)
        call = Call(step, advance, stream.initial, consumer, block)
        reached = Reached(stream.carry, held, consumer.state)
        reached = _run_windows(call, reached, stream.phase, num_losses, given is None)
        value, grads = consumer.result(reached.state)
        if given is None:
            return (value, reached.end), grads
        left = leave(stream, reached.end, reached.held, length, num_losses, h)
        return (value, left), grads

    return rule


def _checked_lookback(every: int, lookback: int | None) -> int:
    check_count("every", every)
    if lookback is None:
        return 2 * every
    check_count("lookback", lookback)
    if lookback < every:
        raise ValueError(
            "lookback must be at least every, so that no loss is left out; got "
            f"lookback={lookback} and every={every}."
        )
    return lookback


def _run_windows(
    call: Call, reached: Reached, phase: int, every: int, to_end: bool
) -> Reached:
    """Run the windows of a call that begins `phase` steps after the start of a block.

    A block is `every` steps. If the call ends within a block, the lookback of its last
    window is measured from the step at which the whole block would end. But with
    `to_end`, the lookback of the last window is measured from the end of the call.
    """
    length = num_steps(call.block.steps)
    first = min(every - phase, length) if phase else 0
    whole, rest = divmod(length - first, every)
    if first:
        ends = phase + first == every
        reached = _take(call, reached, 0, first, every if ends else 0)
    # `apart` is 1 if the last window starts only `rest` steps after the start of the
    # window before it. In this case, the earlier window runs outside of the scan.
    apart = int(to_end and rest > 0)

    # The scan's carry contains `begin`, the index of a window's first new step. An
    # array of these indices for all windows would take memory that grows with T.
    def body(reached_and_begin, _):
        reached, begin = reached_and_begin
        return (_take(call, reached, begin, every, every), begin + every), None

    if whole > apart:
        (reached, _), _ = jax.lax.scan(
            body, (reached, jnp.array(first)), length=whole - apart
        )
    if apart:
        reached = _take(call, reached, length - rest - every, every, rest)
    return _take(call, reached, length - rest, rest, 0) if rest else reached


def _take(
    call: Call, reached: Reached, begin: int | jax.Array, size: int, drop: int
) -> Reached:
    """Run a window whose new steps are `size` steps of the call, from step `begin` on.

    The next window begins `drop` steps after the beginning of this window.
    """
    block, weights = cut((call.block, call.consumer.weights), begin, size)
    gradient_at = window(
        call.step, call.advance, call.initial, reached.held, block, drop
    )
    state, (end, held) = call.consumer.take(reached.state, gradient_at, weights, size)
    return Reached(end, held, state)
