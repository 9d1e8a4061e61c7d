"""The scan over time under every rule, with padding and resets."""

from typing import Literal

import jax

from bpvariants._checks import check_lengths, check_like, first_step, step_shapes
from bpvariants._dtypes import cast_like, widen
from bpvariants.gradients._losses import as_arrays
from bpvariants.gradients._masking import guarded
from bpvariants.types import PyTree, Step


def unroll(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: PyTree | None = None,
    checkpoint: Literal["step"] | None = None,
) -> tuple[PyTree, PyTree]:
    """Run a network along time, differentiably in params, carry, initial and xs.

        h_t, y_t = step(θ, h_{t−1}, x_t),    t = 1 … T

    For a loss that no gradient rule covers, call this under `jax.grad`.

    Args:
      step: one time step of the network.
      params: its parameters θ.
      carry: state h_0 before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      mask: [T, *batch] bool, False in padding. There the carry passes through
        unchanged, the network is shown zeros for x, and y means nothing.
      reset: [T, *batch] bool, True puts `initial` back before this step, unless the
        step is padding.
      initial: what a reset puts back, like carry, which is the default.
      checkpoint: None keeps all that the steps compute for a backward pass; "step"
        keeps the T carries only and computes each step again, for the time of one more
        forward pass. The derivatives are the same.

    Returns:
      The carry after the last step, and the outputs, leaves [T, *batch, ...].

    Raises:
      ValueError: if lengths, shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> halve = lambda factor, h, x: (factor * h + x, h)
      >>> last, ys = gradients.unroll(halve, 0.5, jnp.array(8.0), jnp.zeros(3))
      >>> last.item(), ys.tolist()
      (1.0, [8.0, 4.0, 2.0])
    """
    mask, reset = as_arrays(mask, reset)
    check_lengths(xs, mask=mask, reset=reset)
    step_shapes(step, params, carry, first_step(xs))
    if initial is None:
        initial = carry
    check_like("initial", initial, "carry", carry)
    return scan_steps(
        checkpointed(step, checkpoint), params, carry, xs, mask, reset, initial
    )


def scan_steps(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
) -> tuple[PyTree, PyTree]:
    """Run a network along time; :func:`unroll` without its checks."""
    wide_params = widen(params)  # what enters wide has its gradients added up wide

    def body(h, inputs):
        x, mask, reset = inputs
        narrow_params = cast_like(wide_params, params)
        return guarded(step, initial, mask, reset)(narrow_params, h, x)

    return jax.lax.scan(body, carry, (xs, mask, reset))


def checkpointed(step: Step, checkpoint: Literal["step"] | None) -> Step:
    """Return the step, made to be computed again in a backward pass if asked for."""
    if checkpoint is None:
        return step
    if checkpoint != "step":
        raise ValueError(f"checkpoint must be None or 'step', got {checkpoint!r}.")
    return jax.checkpoint(step, prevent_cse=False)  # a scan prevents it already
