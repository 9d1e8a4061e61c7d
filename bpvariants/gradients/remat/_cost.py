"""Predicted cost of a remat policy: evaluations of the step, and bytes kept."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_floating, step_shapes
from bpvariants._losses import with_loss
from bpvariants.gradients.remat._policies import (
    Budget,
    Every,
    Remat,
    Slots,
)
from bpvariants.gradients.remat._slots_scan import count_evaluations
from bpvariants.gradients.remat._step_bytes import measure, StepBytes
from bpvariants.types import Loss, PyTree, Step


class Cost(NamedTuple):
    """What a policy costs, as :func:`predicted_cost` returns it."""

    policy: Every | Slots  # what is run: every(T) for None
    evaluations: int  # of the step, in one gradient
    bytes: int | None  # kept by the steps; None if the size of a step is not given


def predicted_cost(num_steps: int, remat: Remat, size: StepBytes | None = None) -> Cost:
    """Return how often a gradient evaluates the step, and how many bytes it keeps.

    Besides these bytes, which hold the carries and what the steps compute, a program
    needs room for its inputs and outputs, and for params and their gradient. XLA may
    need somewhat more, or less where it finds that one array can be had from another.

    Args:
      num_steps: T.
      remat: a policy, as :func:`bptt` and :func:`unroll` take it.
      size: how large a step is, as :func:`step_bytes` tells; needed for bytes, and for
        a :func:`budget`.

    Returns:
      A NamedTuple: `policy`, what is run, which for a budget is the policy chosen;
      `evaluations` of the step, in the forward and the backward pass; `bytes` kept, or
      None without a size.

    Raises:
      ValueError: if num_steps is no integer of at least 1, remat or size is of another
        kind, a budget comes without a size, or no policy fits the budget.

    Example:
      >>> from bpvariants import gradients
      >>> size = gradients.remat.StepBytes(carry=8, kept=48, inputs=4)
      >>> cost = gradients.remat.predicted_cost(1000, gradients.remat.every(10), size)
      >>> cost.evaluations, cost.bytes  # 100 carries, and 10 steps
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
    """Return how many bytes a step of a network takes, without running it.

    With a mask or resets a step takes a little more: the flags of each example, and the
    inputs once more.

    Args:
      step: one time step of the network.
      params: its parameters; arrays, or only their shapes (`jax.ShapeDtypeStruct`), as
        all that follow.
      carry: a state, leaves [*batch, ...].
      x: inputs of one step, leaves [*batch, ...].
      loss: one loss for each example, as :func:`bptt` takes it; None for
        :func:`unroll`.
      target: what the loss compares with, leaves [*batch, ...].

    Returns:
      A NamedTuple of bytes, for the whole batch: `carry`; `kept` by the step for its
      backward pass with remat=None; `inputs`.

    Raises:
      ValueError: if shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> tanh_cell = lambda w, h, x: (jnp.tanh(h @ w + x),) * 2
      >>> w, h = jnp.eye(4), jnp.zeros((2, 4))
      >>> gradients.remat.step_bytes(tanh_cell, w, h, h)  # h, and two factors
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
    """Return what a policy runs for so many steps, and its cost."""
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
    if not isinstance(remat, Every):
        raise ValueError(
            "remat must be None, 'step', gradients.remat.every(k), "
            "gradients.remat.slots(m) or gradients.remat.budget(num_bytes); got "
            f"{remat!r}."
        )
    evaluations = _evaluations(length, remat.lengths)
    memory = size and _bytes(length, remat.lengths, size)
    return Cost(remat, evaluations, memory)


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
    # The remainder is differentiated first and freed before the first stretch.
    most = max(_bytes(n, tuple(rest), size) for n in (k, left))
    return stretches * size.carry + most + copy


def _within(length: int, num_bytes: int, size: StepBytes | None) -> Cost:
    """Return the policy with the fewest evaluations that fits."""
    if size is None:
        raise ValueError(
            "size must be given with a budget: it is what gradients.remat.step_bytes "
            "returns."
        )
    cost = lambda policy: policy_cost(length, policy, size)
    least = lambda costs: [min(costs, key=lambda cost: cost.bytes)] if costs else []
    ks = _divisors(length)
    # Where no divisor is near, the best k of all leaves some steps over.
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
        f"budget must be at least {smallest.bytes} bytes for {length} steps, for "
        f"{smallest.policy}; got {num_bytes}."
    )


def _divisors(number: int) -> list[int]:
    small = [k for k in range(1, math.isqrt(number) + 1) if number % k == 0]
    return sorted({*small, *(number // k for k in small)})
