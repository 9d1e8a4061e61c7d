"""Scan over time with padding and resets, shared by the gradient rules through time."""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_lengths,
    check_like,
    first_step,
    step_shapes,
)
from bpvariants._dtypes import cast_like, NARROW, widen
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import as_arrays
from bpvariants._masking import blank, guarded, keep
from bpvariants._sequences import inverse_of, two_phase_sequence, whole_sequence
from bpvariants.gradients.remat._policies import check_remat, Remat
from bpvariants.gradients.remat._scan import remat_scan
from bpvariants.gradients.through_time._reversible_scan import reversible_scan
from bpvariants.gradients.through_time._two_phase import two_phase_scan
from bpvariants.types import PyTree, Step

Backward: TypeAlias = Literal["scan", "two_phase", "reversible"]


def unroll(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    mask: jax.typing.ArrayLike | None = None,
    reset: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
    remat: Remat = None,
    backward: Backward = "scan",
) -> tuple[PyTree, PyTree]:
    """Run a network along time; gradients flow to params, carry, initial and xs.

        h_t, y_t = step(θ, h_{t−1}, x_t),    t = 1 … T

    For a loss that no gradient rule accepts, call `unroll` under `jax.grad`.

    Args:
      step: one time step of the network. If it has a method unroll(params, carry, xs,
        mask, reset, initial) -> (carry, ys), such as `cells.gru.with_kernel("pallas")`
        has, the method runs the whole sequence. The method is not used with remat or
        backward="two_phase".
      params: the network's parameters θ.
      carry: state h_0 before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      mask: [T, *batch] bool, False in padding. In padding the carry does not change,
        the network gets zeros for x, and y is meaningless.
      reset: [T, *batch] bool, True if `initial` replaces the carry before the step;
        ignored in padding.
      initial: the carry after a reset, with the shapes of carry. Default: the argument
        carry.
      remat: which arrays the forward pass stores for the backward pass; derivatives do
        not depend on remat. None stores all residuals. "step" stores only the T carries
        and computes each step again, which takes the time of one more forward pass. The
        policies :func:`remat.every`, :func:`remat.slots` and :func:`remat.budget` store
        fewer arrays.
      backward: algorithm of the backward pass, which does not affect derivatives.
        "scan" is JAX's derivative of `lax.scan`. "two_phase" divides the sequence into
        blocks of steps. In each block, a backward loop computes only the error signals,
        and one matrix product then computes the weights' gradient; see :func:`bptt`.
        `cells.lstm` and `cells.gru` without mask and reset run as a single block.
        "two_phase" requires remat=None, and has no forward mode. "reversible" requires
        a method step.inverse(params, carry, x) -> old carry. The backward pass then
        recovers the carries instead of storing them; see :func:`bptt`.

    Returns:
      The carry after the last step, and the outputs, leaves [T, *batch, ...].

    Raises:
      ValueError: if lengths, shapes or dtypes of the arguments disagree, if remat or
        backward is unknown, if remat and backward cannot be combined, or if a method
        `unroll` of the step takes other arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> halve = lambda factor, h, x: (factor * h + x, h)
      >>> last, ys = gradients.unroll(halve, 0.5, jnp.array(8.0), jnp.zeros(3))
      >>> last.item(), ys.tolist()
      (1.0, [8.0, 4.0, 2.0])
    """
    mask, reset = as_arrays(mask=mask, reset=reset)
    check_lengths(xs, mask=mask, reset=reset)
    step_shapes(step, params, carry, first_step(xs))
    if initial is None:
        initial = carry
    check_arrays("initial", initial)
    check_like("initial", initial, "carry", carry)
    check_backward(remat, backward, step)
    return scan_steps(
        step, params, carry, xs, mask, reset, initial,
        remat=remat, backward=backward,
    )  # fmt: skip


def scan_steps(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
    *,
    remat: Remat = None,
    backward: Backward = "scan",
) -> tuple[PyTree, PyTree]:
    """Run a network along time, as :func:`unroll` does, but without its checks."""
    whole = whole_sequence(step)
    if whole is not None and remat is None and backward == "scan":
        return whole(params, carry, xs, mask, reset, initial)
    whole = two_phase_sequence(step)
    if whole is not None and backward == "two_phase" and mask is None and reset is None:
        check_backward(remat, backward)
        found = whole(params, carry, xs)
        if found is not None:
            return found
    body, given = step_body(step, params, carry, xs, initial)
    if backward == "reversible":
        undo = undo_body(step, params, reset)
        return reversible_scan(body, undo, given, carry, (xs, mask, reset))
    scan = _scan(params, remat, backward)
    return scan(body, given, carry, (xs, mask, reset))


def sum_steps(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
    *,
    shares: jax.Array,
    remat: Remat = None,
    backward: Backward = "scan",
) -> tuple[PyTree, jax.Array]:
    """Run a network along time; return the last carry and the mean loss Σ share · loss.

    `shares` are the normalised weights w / Σ w of the losses, [T, *batch], or a scalar
    if no weights are given. With a remat policy, or backward="reversible", the scan
    itself sums the losses, so that no loss is stored. Otherwise the T losses are small
    compared to the residuals, and it is faster to sum the losses after the scan.
    """
    if remat is None and backward != "reversible":
        last, losses = scan_steps(
            step_with_loss, params, carry, inputs, mask, reset, initial,
            backward=backward,
        )  # fmt: skip
        return last, jnp.sum(shares * losses)
    one_step, given = step_body(step_with_loss, params, carry, inputs, initial)
    x = jax.tree.map(lambda leaf: leaf[0], inputs)
    losses = jax.eval_shape(step_with_loss, params, carry, x)[1]

    def body(given, h_and_sums, inputs):
        h, sums = h_and_sums
        share, inputs = inputs
        h, losses = one_step(given, h, inputs)
        return (h, sums + (losses if share is None else share * losses)), None

    # The sums of losses start at zeros. Make these zeros from an input, so that
    # shard_map treats them as varying over devices, as it treats the losses.
    zeros = jnp.zeros_like(jax.tree.leaves(x)[0], losses.dtype)
    zeros = jnp.sum(zeros, axis=tuple(range(losses.ndim, zeros.ndim)))
    each = shares if shares.ndim else None
    inputs = each, (inputs, mask, reset)
    start = carry, zeros
    if backward == "reversible":
        undo_step = undo_body(step_with_loss, params, reset)

        def undo(given, h_and_sums, inputs):
            h, sums = h_and_sums
            return undo_step(given, h, inputs[1]), sums

        own = lambda h_and_sums: h_and_sums[0]
        scan = partial(reversible_scan, undo=undo, recovered=own)
        (last, sums), _ = scan(body, given=given, carry=start, inputs=inputs)
    else:
        scan = _scan(params, remat, backward)
        (last, sums), _ = scan(body, given, start, inputs)
    return last, jnp.sum(sums) * (1 if shares.ndim else shares)


def check_backward(
    remat: Remat, backward: Backward = "scan", step: Step | None = None
) -> None:
    """Check remat and backward, and that `step` has an inverse if it needs one."""
    check_remat(remat)
    if backward not in ("scan", "two_phase", "reversible"):
        raise ValueError(
            f"backward must be 'scan', 'two_phase' or 'reversible', got {backward!r}."
        )
    if backward == "reversible":
        _check_reversible(remat, step)
    if backward == "two_phase" and remat is not None:
        raise ValueError(
            "remat must be None with backward='two_phase', which keeps all that the "
            f"steps compute; got {remat!r}. Use backward='scan' with it."
        )


def _check_reversible(remat: Remat, step: Step | None) -> None:
    if remat is not None:
        raise ValueError(
            "remat must be None with backward='reversible', which stores no carries; "
            f"got {remat!r}. Use backward='scan' with it."
        )
    if step is not None and inverse_of(step) is None:
        raise ValueError(
            "step must have a method inverse(params, carry, x) -> old carry with "
            "backward='reversible', as cells.reversible_gru and a gradients.stack of "
            f"such cells have; got {step!r}. To save memory with any step, use "
            "remat=gradients.remat.slots(m)."
        )


def _scan(params: PyTree, remat: Remat, backward: Backward) -> Callable:
    check_backward(remat, backward)
    if backward == "scan":
        return partial(remat_scan, remat=remat)
    narrow = any(jnp.result_type(leaf) in NARROW for leaf in jax.tree.leaves(params))
    return partial(two_phase_scan, narrow=narrow)


def step_body(
    step: Step, params: PyTree, carry: PyTree, xs: PyTree, initial: PyTree
) -> tuple[Callable, PyTree]:
    """Return a scan's body, and the value of the body's argument `given`."""
    step = with_stored_operands(step, params, carry, first_step(xs))

    def body(given, h, inputs):
        wide_params, initial = given
        x, mask, reset = inputs
        narrow_params = cast_like(wide_params, params)
        return guarded(step, initial, mask, reset)(narrow_params, h, x)

    # The scan sums the gradients in the dtypes of the widened params.
    return body, (widen(params), initial)


def undo_body(step: Step, params: PyTree, reset: jax.Array | None) -> Callable:
    """Return the inverse of the body that :func:`step_body` returns.

    A reset discards the old carry, so no inverse can recover it.
    """
    inverse = inverse_of(step)
    assert inverse is not None  # check_backward has seen it
    if reset is not None:
        raise ValueError(
            "reset must be None with backward='reversible', because a reset discards "
            "the old carry, which then cannot be recovered. Run each episode as a "
            "sequence of its own, or use backward='scan' with a remat policy."
        )

    def undo(given, h, inputs):
        x, mask, _ = inputs
        old = inverse(cast_like(given[0], params), h, blank(x, h, mask))
        check_like("the carry that step.inverse returns", old, "carry", h)
        return keep(old, h, mask)

    return undo
