"""Remat policies: what a scan of T steps keeps for its backward pass.

Notation: c bytes in a carry, d bytes in the inputs of a step, r bytes of residuals that
a step keeps for its backward pass; S evaluations of the step for one gradient, in both
passes. If k divides T and l divides k, bytes and evaluations are

    None           r T                                     S = T
    "step"         c T + r                                 S = 2 T
    every(k)       c T/k + r k                             S = 2 T
    every(k, l)    c (T/k + k/l) + r l                     S = 3 T
    slots(m)       c (m + 1) + r                           S = T + ρT − C(m+ρ, m+1) + 1

with binomial coefficients C, and ρ the smallest integer such that C(m+ρ, m) ≥ T. If k
does not divide T, the remaining steps run last, and k does not apply to them. A copy of
the inputs then needs d T more bytes. All policies give the same gradient.
"""

from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from bpvariants._checks import check_count


class Every(NamedTuple):
    """The policy that :func:`every` returns; its docstring is there."""

    lengths: tuple[int, ...]


class Slots(NamedTuple):
    """The policy that :func:`slots` returns; its docstring is there."""

    number: int


class Budget(NamedTuple):
    """The policy that :func:`budget` returns; its docstring is there."""

    num_bytes: int


Remat: TypeAlias = Literal["step"] | Every | Slots | Budget | None


def every(*lengths: int) -> Every:
    """Keep the carry every k steps, and compute the steps in between again.

    Memory is that of T/k carries and of the residuals of k steps. It is smallest at
    k = √(T c/r) if a carry has c bytes and the residuals of a step have r. The cost is
    one more forward pass. Each further length divides the stretches again, for one more
    forward pass each. For example, `every(100, 10)` keeps a carry every 100 steps.
    While it goes back through such a stretch, it keeps one every 10 steps. `every(1)`
    is "step".

    Args:
      lengths: k, then lengths that divide a stretch further, each smaller than the one
        before. If k divides T, no copy of the inputs is needed.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`.

    Raises:
      ValueError: if lengths are not decreasing integers of at least 1.

    Example:
      >>> from bpvariants import gradients
      >>> for policy in (None, gradients.remat.every(10), gradients.remat.every(20, 5)):
      ...     gradients.remat.predicted_cost(100, policy).evaluations
      100
      200
      300

    References:
      Chen et al., "Training deep nets with sublinear memory cost", 2016,
      arXiv:1604.06174.
    """
    for length in lengths:
        check_count("lengths", length)
    if not lengths or any(a <= b for a, b in pairwise(lengths)):
        raise ValueError(
            "lengths must be at least one integer, each smaller than the one before, "
            f"as in every(100, 10); got {lengths}."
        )
    return Every(tuple(map(int, lengths)))


def slots(number: int) -> Slots:
    """Keep at most `number` carries, and recompute as few steps as possible.

    This is the optimal binomial schedule. Once the backward pass has used a carry for
    all steps after it, its slot is reused for an earlier carry. Memory is that of
    number + 1 carries and of the residuals of one step, for every T. With √T slots a
    gradient takes at most 3.5 T evaluations of the step. "step" takes 2 T evaluations
    and keeps T carries.

    Only reverse mode works, and only once: a second time raises a ValueError.
    `jax.jvp` and `jax.jacfwd` of the gradient work too.

    Args:
      number: m ≥ 1, the number of carries kept, including the first one.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`.

    Raises:
      ValueError: if number is not an integer of at least 1.

    Example:
      >>> from bpvariants.gradients import remat
      >>> remat.predicted_cost(1000, remat.slots(50)).evaluations  # 2948 + 1
      2949

    References:
      Griewank & Walther, "Algorithm 799: revolve", ACM Transactions on Mathematical
      Software 26(1), 2000, doi:10.1145/347837.347846. Gruslys et al., "Memory-efficient
      backpropagation through time", 2016, arXiv:1606.03401.
    """
    check_count("number", number)
    return Slots(int(number))


def budget(num_bytes: int) -> Budget:
    """Choose the fastest policy whose memory fits in a number of bytes.

    These policies are tried in turn, and the first that fits is used: None; then
    `every(k)` with the k that keeps the fewest bytes; then `every(k, l)` with the k and
    l that keep the fewest bytes, and :func:`slots`, the one with fewer evaluations
    first. Bytes are counted as in :func:`predicted_cost`. Inputs, outputs, params and
    their gradient need more memory.

    Args:
      num_bytes: the bytes that may be kept, 1 or more.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`. If no policy fits, these
      raise a ValueError that says how many bytes are needed.

    Raises:
      ValueError: if num_bytes is not an integer of at least 1.

    Example:
      >>> from bpvariants.gradients import remat
      >>> size = remat.StepBytes(carry=8, kept=48, inputs=4)
      >>> for num_bytes in (50_000, 5_000, 700):
      ...     remat.predicted_cost(1000, remat.budget(num_bytes), size).policy
      Every(lengths=(1000,))
      Every(lengths=(10,))
      Slots(number=80)
    """
    check_count("num_bytes", num_bytes)
    return Budget(int(num_bytes))
