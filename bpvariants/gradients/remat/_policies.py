"""Remat policies: which arrays a scan of T steps stores for its backward pass.

Notation: a carry has c bytes, the inputs of a step have d bytes, and the residuals that
a step stores for its backward pass have r bytes. A gradient evaluates the step S times,
in the forward and the backward pass together. If k divides T and l divides k, the
policies store these numbers of bytes and need these numbers S of evaluations:

    None           r T                                     S = T
    "step"         c T + r                                 S = 2 T
    every(k)       c T/k + r k                             S = 2 T
    every(k, l)    c (T/k + k/l) + r l                     S = 3 T
    slots(m)       c (m + 1) + r                           S = T + ρT − C(m+ρ, m+1) + 1

where C is a binomial coefficient, and ρ is the smallest integer such that
C(m+ρ, m) ≥ T. If k does not divide T, the last T mod k steps are left over. `every(k)`
stores the residuals of these last steps; `every(k, l)` stores a carry every l of these
last steps. A copy of the inputs then needs d T more bytes. All policies compute the
same gradient.
"""

from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from bpvariants._checks import check_count


class Every(NamedTuple):
    """Policy that stores a carry every k steps; see :func:`every`."""

    lengths: tuple[int, ...]


class Slots(NamedTuple):
    """Policy that stores a fixed number of carries; see :func:`slots`."""

    number: int


class Budget(NamedTuple):
    """Policy that is chosen by its memory; see :func:`budget`."""

    num_bytes: int


Remat: TypeAlias = Literal["step"] | Every | Slots | Budget | None


def check_remat(remat: object) -> None:
    known = remat is None or isinstance(remat, Every | Slots | Budget)
    if not known and not (isinstance(remat, str) and remat == "step"):
        raise ValueError(
            "remat must be None, 'step', gradients.remat.every(k), "
            "gradients.remat.slots(m) or gradients.remat.budget(num_bytes); got "
            f"{remat!r}."
        )


def every(*lengths: int) -> Every:
    """Store the carry every k steps, and recompute the steps between stored carries.

    The memory needed for T steps is T/k carries, and the residuals of k steps, which
    are the arrays that the backward pass needs. This memory is smallest at k = √(T c/r)
    if a carry has c bytes and the residuals of a step have r bytes. The extra time is
    one more forward pass. Each further length divides every stretch of k steps into
    shorter stretches, and takes one more forward pass. For example, `every(100, 10)`
    stores a carry every 100 steps. The backward pass then recomputes each stretch of
    100 steps, and stores a carry every 10 steps of this stretch. The policy `every(1)`
    is equal to "step".

    Args:
      lengths: k, the number of steps in a stretch, then optionally the lengths of
        shorter stretches inside it, each smaller than the length before. If k divides
        the number of steps, no copy of the inputs is needed.

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
    """Store at most `number` carries, and recompute as few steps as possible.

    The order of recomputations is the optimal binomial schedule. A slot is memory for
    one carry. When the backward pass no longer needs a carry, the slot of that carry is
    reused for the carry of an earlier step. The memory needed is number + 1 carries and
    the residuals of one step, for every number of steps T. With √T slots, a gradient
    takes at most 3.5 T evaluations of the step. For comparison, the policy "step" takes
    2 T evaluations and stores T carries.

    A scan with `slots` can be differentiated in reverse mode only once; reverse mode on
    the gradient raises a ValueError. `jax.jvp` and `jax.jacfwd` of the gradient work.

    Args:
      number: m ≥ 1, the number of carries stored, including the first carry.

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
    """Choose the fastest policy that stores at most `num_bytes` bytes.

    The chosen policy is the first in this list that stores at most `num_bytes`:

    1. None, which stores the residuals of all steps;
    2. `every(k)` with the k that stores the fewest bytes;
    3. `every(k, l)` with the k and l that store the fewest bytes, or :func:`slots`; of
       these two, the policy that evaluates the step fewer times is tried first.

    Bytes are counted as in :func:`predicted_cost`. Inputs, outputs, params and the
    gradient need additional memory.

    Args:
      num_bytes: the number of bytes that may be stored, 1 or more.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`. If no policy fits,
      :func:`bptt` and :func:`unroll` raise a ValueError that says how many bytes are
      needed.

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
