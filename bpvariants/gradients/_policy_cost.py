"""What a checkpoint policy costs, for the equations see `_checkpoint.py`."""

import math
from typing import NamedTuple

from bpvariants.gradients._checkpoint import Budget, Checkpoint, Every, Slots
from bpvariants.gradients._slots import count_evaluations
from bpvariants.gradients._step_bytes import StepBytes


class Cost(NamedTuple):
    """What a policy costs, as :func:`predicted_cost` returns it."""

    policy: Every | Slots  # what is run: every(T) for None
    evaluations: int  # of the step, in one gradient
    bytes: int | None  # that the steps keep; None if it is not known how large they are


def policy_cost(length: int, checkpoint: Checkpoint, size: StepBytes | None) -> Cost:
    """Return what a policy is for so many steps, and costs."""
    if isinstance(checkpoint, Budget):
        return _within(length, checkpoint.num_bytes, size)
    if checkpoint is None:
        checkpoint = Every((length,))
    elif isinstance(checkpoint, str) and checkpoint == "step":
        checkpoint = Every((1,))
    if isinstance(checkpoint, Slots):
        slots = min(checkpoint.number, length)
        memory = size and (slots + 1) * size.carry + size.kept
        return Cost(Slots(slots), count_evaluations(length, slots), memory)
    if not isinstance(checkpoint, Every):
        raise ValueError(
            "checkpoint must be None, 'step', gradients.every(k), gradients.slots(m) "
            f"or gradients.budget(num_bytes); got {checkpoint!r}."
        )
    evaluations = _evaluations(length, checkpoint.lengths)
    memory = size and _bytes(length, checkpoint.lengths, size)
    return Cost(checkpoint, evaluations, memory)


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
    # The steps left over come first on the way back, and are gone when a stretch comes.
    most = max(_bytes(n, tuple(rest), size) for n in (k, left))
    return stretches * size.carry + most + copy


def _within(length: int, num_bytes: int, size: StepBytes | None) -> Cost:
    """Return the policy with the fewest evaluations that fits."""
    if size is None:
        raise ValueError(
            "checkpoint is a budget, for which size must be given: what step_bytes "
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
