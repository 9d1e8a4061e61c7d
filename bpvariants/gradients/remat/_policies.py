"""Remat policies: which arrays a scan of T steps stores for its backward pass.

Notation: a carry has c bytes, the inputs of a step have d bytes, and the residuals that
a step stores for its backward pass have r bytes. To compute a gradient, the forward and
the backward pass together evaluate the step S times. If k divides T and l divides k,
the policies store these numbers of bytes and need these numbers S of evaluations:

    None           r T                                     S = T
    "step"         c T + r                                 S = 2 T
    every(k)       c T/k + r k                             S = 2 T
    every(k, l)    c (T/k + k/l) + r l                     S = 3 T
    slots(m)       c (m + 1) + r                           S = T + ρT − C(m+ρ, m+1) + 1
    offload(k)     r k, and c T/k in the host's memory     S = 2 T

where m is the number of carries that `slots(m)` keeps, C is a binomial coefficient, and
ρ is the smallest integer such that C(m+ρ, m) ≥ T. If k does not divide T, the last T
mod k steps are left over. `every(k)` stores the residuals of these last steps; among
these last steps, `every(k, l)` stores a carry every l steps. If steps are left over, a
copy of the inputs needs d T more bytes. All policies compute the same gradient.
"""

from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from bpvariants._checks import check_count


class Every(NamedTuple):
    """Policy that stores a carry every k steps; see :func:`every`."""

    lengths: tuple[int, ...]


class Offload(NamedTuple):
    """Policy that stores a carry every k steps on the host; see :func:`offload`."""

    every: int


class Slots(NamedTuple):
    """Policy that stores at most a given number of carries; see :func:`slots`."""

    number: int


class Budget(NamedTuple):
    """Request for the fastest policy within a number of bytes; see :func:`budget`."""

    num_bytes: int


Remat: TypeAlias = Literal["step"] | Every | Offload | Slots | Budget | None


def check_remat(remat: object) -> None:
    known = remat is None or isinstance(remat, Every | Offload | Slots | Budget)
    if not known and not (isinstance(remat, str) and remat == "step"):
        raise ValueError(
            "remat must be None, 'step', gradients.remat.every(k), "
            "gradients.remat.slots(m), gradients.remat.offload(every=k) or "
            f"gradients.remat.budget(num_bytes); got {remat!r}."
        )


def every(*lengths: int) -> Every:
    """Store the carry every k steps, and recompute the steps between stored carries.

    For T steps, the memory needed is that of T/k carries and of the residuals of k
    steps. Residuals are the arrays of a step that its backward pass needs. If a carry
    has c bytes and the residuals of a step have r bytes, the policy needs the least
    memory at k = √(T c/r). The extra time is that of one more forward pass. Each
    further length in `lengths` divides every stretch of k steps into shorter stretches,
    and takes the time of one more forward pass. For example, `every(100, 10)` stores a
    carry every 100 steps. The backward pass recomputes one stretch of 100 steps after
    another, and stores a carry every 10 steps of the stretch. The policy `every(1)` is
    equal to "step".

    Args:
      lengths: k, the number of steps in a stretch, then optionally the lengths of
        shorter stretches inside it, each smaller than the length before. If k divides
        the number of steps T, the policy needs no copy of the inputs.

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


def offload(*, every: int) -> Offload:
    """Store the carry every k steps in the host's memory, and recompute the rest.

    The policy is that of :func:`every`, but the T/k stored carries of T steps lie in
    the page-locked memory of the host ("pinned_host"). The device stores only the
    residuals of k steps. In return, each stored carry is copied to the host in the
    forward pass and back in the backward pass; XLA may overlap a copy with the
    computation of a stretch of k steps. Use `offload` if even the carries do not fit
    into the device's memory, and k large enough that a stretch takes longer than the
    copy of a carry. Inputs and outputs stay on the device. If k does not divide T, the
    last T mod k steps store their residuals on the device.

    The copies have not been timed on an accelerator. On a CPU, host and device share
    one memory, so `offload` saves nothing there.

    Args:
      every: k, the number of steps between stored carries.

    Returns:
      A policy for `remat=` of :func:`bptt` and :func:`unroll`.

    Raises:
      ValueError: if every is not an integer of at least 1. While tracing, if the device
        has no host memory "pinned_host".

    Example:
      >>> from bpvariants.gradients import remat
      >>> size = remat.StepBytes(carry=8, kept=48, inputs=4)
      >>> cost = remat.predicted_cost(1000, remat.offload(every=10), size)
      >>> cost.evaluations, cost.bytes, cost.host_bytes  # of 10 steps; of 100 carries
      (2000, 480, 800)
    """
    check_count("every", every)
    return Offload(int(every))


def slots(number: int) -> Slots:
    """Store at most `number` carries, and recompute as few steps as possible.

    Steps are recomputed in the order of the optimal binomial schedule. A slot is memory
    for one carry. When the backward pass no longer needs a carry, the slot of that
    carry is reused for the carry of an earlier step. For any number T of steps, the
    memory needed is that of number + 1 carries and of the residuals of one step. With
    √T slots, a gradient takes at most 3.5 T evaluations of the step. For comparison,
    the policy "step" takes 2 T evaluations and stores T carries.

    A scan with `slots` can be differentiated in reverse mode only once: reverse-mode
    differentiation of the gradient raises a ValueError. `jax.jvp` and `jax.jacfwd` can
    be applied to the gradient.

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
      A policy for `remat=` of :func:`bptt` and :func:`unroll`. If every policy stores
      more than num_bytes, :func:`bptt` and :func:`unroll` raise a ValueError that says
      how many bytes are needed.

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
