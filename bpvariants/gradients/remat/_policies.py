"""Remat policies: what a scan of T steps keeps for its backward pass.

Notation: c bytes in a carry, d in the inputs of a step, r in all that a step keeps for
its backward pass; S evaluations of the step for one gradient, the forward pass's
included. For k that divides T and l that divides k,

    None           r T                                     S = T
    "step"         c T + r                                 S = 2 T
    every(k)       c T/k + r k                             S = 2 T
    every(k, l)    c (T/k + k/l) + r l                     S = 3 T
    slots(m)       c (m + 1) + r                           S = T + ρT − C(m+ρ, m+1) + 1

with ρ the smallest number for which C(m+ρ, m) ≥ T. Where they do not divide, the steps
left over come last and keep what they compute, and d T is for a copy of the inputs. All
policies give the same gradient.
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

    Memory is that of T/k carries and of all that k steps compute, least at k = √(T c/r)
    for carries of c bytes and r bytes computed by a step; time that of one more
    forward pass. Each further length divides the stretches again, for one more forward
    pass each: `every(100, 10)` keeps a carry every 100 steps, and while going back
    through such a stretch one every 10. `every(1)` is "step".

    Args:
      lengths: k, and what divides it further, each smaller than the one before. A k
        that divides T spares a copy of the inputs.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`.

    Raises:
      ValueError: if lengths are not falling integers of at least 1.

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
            "lengths must be at least one, each smaller than the one before, as in "
            f"every(100, 10); got {lengths}."
        )
    return Every(tuple(map(int, lengths)))


def slots(number: int) -> Slots:
    """Keep no more than so many carries, and compute again as few steps as can be.

    The schedule is the optimal one, of binomial coefficients: a backward pass that has
    gone through the steps after a carry overwrites it with an earlier one. Memory is
    that of number + 1 carries and of what one step computes, whatever T is. With √T
    slots a gradient takes at most 3.5 T evaluations of the step, where "step" takes 2 T
    and T carries.

    The gradient can be taken in reverse mode only, once, or by `jax.jvp` of it.

    Args:
      number: m ≥ 1, carries kept, the first one counted.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`.

    Raises:
      ValueError: if number is no integer of at least 1.

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
    """Choose the fastest policy that keeps within so many bytes.

    It is, of those that fit, the first of: None, `every(k)` at the k that keeps
    least, and whichever of `every(k, l)`, for k and l that divide, and :func:`slots`
    evaluates the step less often. Bytes are those of what the steps keep, as
    :func:`predicted_cost` counts them: inputs, outputs, params and their gradient come
    on top.

    Args:
      num_bytes: what may be kept, in bytes, 1 or more.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`, which raise a
      ValueError, saying how many bytes it would take, if no policy fits.

    Raises:
      ValueError: if num_bytes is no integer of at least 1.

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
