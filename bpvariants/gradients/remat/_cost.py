"""Predicted cost of a remat policy: evaluations of the step, and bytes stored."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_floating, step_shapes
from bpvariants._losses import with_loss
from bpvariants.gradients.remat._policies import (
    Budget,
    check_remat,
    Every,
    Offload,
    Remat,
    Slots,
)
from bpvariants.gradients.remat._slots_scan import count_evaluations
from bpvariants.gradients.remat._step_bytes import measure, StepBytes
from bpvariants.types import Loss, PyTree, Step


class Cost(NamedTuple):
    """Cost of a remat policy for one gradient, returned by :func:`predicted_cost`."""

    # Policy that is run; None is run as every(number of steps).
    policy: Every | Offload | Slots
    evaluations: int  # number of times that one gradient evaluates the step
    # Bytes that the policy stores on the device; None if no `size` is given.
    bytes: int | None
    # Bytes that the policy stores in the host's memory, and copies there and back.
    host_bytes: int | None = 0


def predicted_cost(num_steps: int, remat: Remat, size: StepBytes | None = None) -> Cost:
    """Predict how often a gradient evaluates the step, and how many bytes it stores.

    The predicted bytes include only the carries and residuals that the policy stores.
    Inputs, outputs, params and the gradient need additional memory. XLA may need
    somewhat more memory than predicted. XLA may also need less memory, if it does not
    store an array that it can compute from another stored array.

    Args:
      num_steps: T, the number of time steps.
      remat: a remat policy, as for :func:`bptt` and :func:`unroll`.
      size: memory that one step needs, in bytes, as returned by :func:`step_bytes`. The
        size is required for a :func:`budget`, and to predict bytes.

    Returns:
      A NamedTuple: `policy`, the policy to run, which for a budget is the chosen
      policy; `evaluations`, the number of times that the forward and backward pass
      together evaluate the step; `bytes`, the bytes that the policy stores on the
      device; `host_bytes`, the bytes that :func:`offload` stores in the host's memory,
      which are copied there and back. Bytes are None if no size is given.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, or if remat or size has
        the wrong type. Also if a budget is given without a size, or if every policy
        stores more bytes than the budget allows.

    Example:
      >>> from bpvariants import gradients
      >>> size = gradients.remat.StepBytes(carry=8, kept=48, inputs=4)
      >>> cost = gradients.remat.predicted_cost(1000, gradients.remat.every(10), size)
      >>> cost.evaluations, cost.bytes  # bytes of 100 carries and of 10 steps
      (2000, 1280)
    """
    check_count("num_steps", num_steps)
    if size is not None and not isinstance(size, StepBytes):
        raise ValueError(
            f"size must be what gradients.remat.step_bytes returns, got {size!r}."
        )
    return policy_cost(int(num_steps), remat, size)


def step_bytes(
    step: Step,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    loss: Loss | None = None,
    target: PyTree = None,
) -> StepBytes:
    """Return how many bytes of memory a step of a network needs; the step is not run.

    With a mask or resets, a step needs a little more memory than this function returns:
    for the mask and resets of the step, and for a second copy of the inputs.

    Args:
      step: one time step of the network.
      params: parameters of the network. Params, carry, x and target may be arrays or
        `jax.ShapeDtypeStruct`s.
      carry: the carry of the network, leaves [*batch, ...].
      x: inputs of one step, leaves [*batch, ...].
      loss: one loss for each example, as for :func:`bptt`; None for :func:`unroll`.
      target: the target of the loss, leaves [*batch, ...].

    Returns:
      A NamedTuple of sizes in bytes, for the whole batch: `carry`, the size of a carry;
      `kept`, the size of all arrays that a step stores for its backward pass with
      remat=None; `inputs`, the size of the inputs of a step.

    Raises:
      ValueError: if shapes or dtypes of the arguments disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> tanh_cell = lambda w, h, x: (jnp.tanh(h @ w + x),) * 2
      >>> w, h = jnp.eye(4), jnp.zeros((2, 4))
      >>> gradients.remat.step_bytes(tanh_cell, w, h, h)  # keeps h and two factors
      StepBytes(carry=32, kept=96, inputs=32)
    """
    check_floating("params", params)
    inputs = x if loss is None else (x, target)
    advance = step if loss is None else with_loss(step, loss)
    step_shapes(advance, params, carry, inputs)
    spec = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
    params, carry, inputs = jax.tree.map(spec, (params, carry, inputs))
    return measure(advance, params, carry, inputs)


def policy_cost(length: int, remat: Remat, size: StepBytes | None) -> Cost:
    check_remat(remat)
    if isinstance(remat, Budget):
        return _within(length, remat.num_bytes, size)
    if remat is None:
        remat = Every((length,))
    elif isinstance(remat, str) and remat == "step":
        remat = Every((1,))
    if isinstance(remat, Slots):
        slots = min(remat.number, length)
        memory = size and (slots + 1) * size.carry + size.kept
        return Cost(Slots(slots), count_evaluations(length, slots), memory)
    if isinstance(remat, Offload):
        return _offloaded(length, remat, size)
    evaluations = _evaluations(length, remat.lengths)
    memory = size and _bytes(length, remat.lengths, size)
    return Cost(remat, evaluations, memory)


def _offloaded(length: int, policy: Offload, size: StepBytes | None) -> Cost:
    on_device = policy_cost(length, Every((policy.every,)), size)
    number = 0 if policy.every >= length else length // policy.every
    host = size and number * size.carry
    memory = size and (on_device.bytes or 0) - (host or 0)
    return on_device._replace(policy=policy, bytes=memory, host_bytes=host)


def _evaluations(length: int, lengths: tuple[int, ...]) -> int:
    inside = tuple(k for k in lengths if k < length)
    if not inside:
        return length
    k, *rest = inside
    stretches, left = divmod(length, k)
    again = k + _evaluations(k, tuple(rest))
    return stretches * again + _evaluations(left, tuple(rest))


def _bytes(length: int, lengths: tuple[int, ...], size: StepBytes) -> int:
    inside = tuple(k for k in lengths if k < length)
    if not inside:
        return length * size.kept
    k, *rest = inside
    stretches, left = divmod(length, k)
    copy = length * size.inputs if left else 0
    # The backward pass begins with the last `left` steps, which are too few for a
    # stretch of k steps. The memory of these steps is freed before a stretch is
    # recomputed.
    most = max(_bytes(n, tuple(rest), size) for n in (k, left))
    return stretches * size.carry + most + copy


def _within(length: int, num_bytes: int, size: StepBytes | None) -> Cost:
    """Return the cost of the policy that `budget(num_bytes)` chooses."""
    if size is None:
        raise ValueError(
            "size must be given with a budget; get it from gradients.remat.step_bytes."
        )
    cost = lambda policy: policy_cost(length, policy, size)
    least = lambda costs: [min(costs, key=lambda cost: cost.bytes)] if costs else []
    ks = _divisors(length)
    # Besides the divisors of the length, try the k near √(length · carry / kept), at
    # which `every(k)` stores few bytes.
    best = round(math.sqrt(length * size.carry / max(size.kept, 1)))
    ks = sorted({*ks, min(max(best, 1), length)})
    single = [cost(Every((k,))) for k in ks]
    double = [cost(Every((k, j))) for k in ks for j in _divisors(k) if j < k]
    room = (num_bytes - size.kept) // max(size.carry, 1) - 1
    slower = [*least(double), cost(Slots(max(room, 1)))]
    slower.sort(key=lambda cost: cost.evaluations)
    tried = [cost(None), *least(single), *slower]
    for candidate in tried:
        if candidate.bytes <= num_bytes:
            return candidate
    smallest = min(tried, key=lambda cost: cost.bytes)
    raise ValueError(
        f"budget must be at least {smallest.bytes} bytes for {length} steps, which "
        f"{smallest.policy} needs; got {num_bytes}."
    )


def _divisors(number: int) -> list[int]:
    small = [k for k in range(1, math.isqrt(number) + 1) if number % k == 0]
    return sorted({*small, *(number // k for k in small)})
