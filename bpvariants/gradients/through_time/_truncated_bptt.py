"""Truncated backpropagation through time, BPTT(h; h′): every loss injected once.

Notation: h is the lookback; errors are sent back every h′ ≤ h steps. A window ends at
each e = h′, 2h′, … and at T. It begins at s = max(0, e − h), and its first carry h_s is
taken as a constant. Only the losses since the previous end travel back through it:

    g = Σ_e ∇_θ Σ_{t = previous end + 1 … e} ℓ_t    along h_s → h_{s+1} → … → h_e.

So a loss looks back between h − h′ + 1 and h steps. An outer scan takes the gradient of
one window at a time, so memory is that of h steps. (One scan with `stop_gradient` every
h′ steps gives the gradient of h = h′, but keeps the residuals of all T steps.)

A window passes on to the next one its first carry h_s, and the inputs, masks and resets
of the h − h′ steps since then. A call of a stream passes the same on to the next call.
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
    """Arguments that are the same for all windows of a call."""

    step: Step
    advance: Step  # with the loss as output
    initial: PyTree
    consumer: Consumer
    block: Block  # all steps of the call


class Reached(NamedTuple):
    """State of a call at the end of a window."""

    end: PyTree  # the carry at the end of the window
    held: Held
    state: PyTree  # of the consumer


def truncated_bptt(
    step: Step,
    loss: Loss,
    *,
    every: int,
    lookback: int | None = None,
    update: Any = None,
) -> GradientRule:
    """BPTT(h; h′), an approximation of BPTT: errors travel back `lookback` steps.

    Biased, but exact for every sequence of T ≤ lookback, whatever `every` is. The value
    and the carry are exact. Memory is that of `lookback` steps, whatever T is. Time is
    lookback / every times that of BPTT. A window of k steps, as frameworks call it, is
    every = lookback = k; its first loss looks back only one step. The default is the
    common recommendation, lookback = 2·every.

    Pass the returned carry to the next call to continue a sequence; errors then stop at
    the start of each call. In a :func:`stream` they travel back into earlier calls:
    pass it in place of the carry, and the rule returns it in place of the carry.

    With an `update` the rule learns on the way, after each window, and is

        learn((params, opt_state), carry, …) -> ((value, carry), (params, opt_state)).

    The new pair takes the place of the gradients. The update gets the gradient of the
    mean loss Σ w·ℓ / Σ w, taken over the window's own losses. It also gets that loss
    as `value`, if it accepts one. A window with Σ w = 0 leaves the pair unchanged.

    The value of the call is the mean of all losses, each computed with the θ of its
    window. So the value is not the loss of one θ, and the gradients used are not those
    of one θ.

    With every = lookback = k and an update, this is the loop of other frameworks that
    detaches the carry and updates after every k steps, if k divides T. If it does not,
    r = T mod k steps are left. In that loop their losses look back to the start of
    these r steps. Here they look back k steps, into the window before, so that the
    last update differs. For the same update, make a call of the last r steps alone.

    If lookback > every, each window runs its first steps again, with the new
    θ, but from an h_s computed with older θ. The carry returned is that of the last
    window. A call of a stream that ends within a block updates there too. So with an
    update, only cuts at multiples of `every` leave the results unchanged.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      every: h′, after how many steps errors are sent back, 1 ≤ h′ ≤ h.
      lookback: h, how many steps they travel back from there. Default: 2·every.
      update: None, or an optax.GradientTransformation that learns after each window.

    Returns:
      A :class:`~bpvariants.types.GradientRule`.

    Raises:
      ValueError: if `every` and `lookback` are not integers with 1 ≤ every ≤ lookback,
        or `update` is not a gradient transformation; when the rule is called, if
        lengths, shapes or dtypes disagree, if a stream comes from a rule with another
        every or lookback, if params is not a pair though there is an update, or if a
        key is given.

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
        block = Block(steps, counted(targets, weights))
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
    """Check the settings; return the lookback."""
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
    """Run the window of each block of a call that begins `phase` steps into a block.

    If the call ends within a block, the losses of this block look back from where the
    block would end. With `to_end` they look back from the end of the call.
    """
    length = num_steps(call.block.steps)
    first = min(every - phase, length) if phase else 0
    whole, rest = divmod(length - first, every)
    if first:
        ends = phase + first == every
        reached = _take(call, reached, 0, first, every if ends else 0)
    apart = int(to_end and rest > 0)  # if 1, the window before the last drops less

    def body(reached_and_begin, _):  # `begin` is a carry: an arange would grow with T
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
    """Run one window of `size` new steps; the next begins `drop` steps after it."""
    block, weights = cut((call.block, call.consumer.weights), begin, size)
    gradient_at = window(
        call.step, call.advance, call.initial, reached.held, block, drop
    )
    state, (end, held) = call.consumer.take(reached.state, gradient_at, weights, size)
    return Reached(end, held, state)
