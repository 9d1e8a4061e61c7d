"""Relaxation, and Anderson acceleration of the examples that it would solve slowly.

Each example is examined every `PERIOD` steps. Let q be the factor by which a step of
relaxation multiplied the residual, and F the factor by which the residual must still
fall. Then relaxation needs about ln F / −ln q more steps.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import check_limits
from bpvariants._examples import select, times
from bpvariants.gradients.equilibrium._method import Method, Step, when
from bpvariants.gradients.equilibrium._protocols import solve_linear
from bpvariants.gradients.equilibrium._vectors import iterate_vectors
from bpvariants.gradients.equilibrium.solvers._anderson import anderson

DEPTH = 5  # number of iterates that Anderson acceleration combines
PERIOD = 10  # number of steps between two decisions
LONG = 20  # relaxation is kept if it needs at most so many more steps
# Acceleration is kept if the logarithm of the residual falls by this factor faster than
# before, because a step takes about 1.3 times as long as a step of relaxation.
FASTER = 1.3
# Phases of an example. In STARTS, acceleration gathers iterates. TRIES measures it.
RELAXES, STARTS, TRIES, STAYS, RETURNED = range(5)


class _Memory(NamedTuple):
    phase: jax.Array  # int [*batch]: number of the phase
    since: jax.Array  # int [*batch]: steps since the last decision
    mark: jax.Array  # [*batch]: residual at the last decision
    rate: jax.Array  # [*batch]: ln q of the relaxation before it was accelerated
    inner: Any  # memory of Anderson acceleration


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class auto:
    """Relaxation that changes to Anderson acceleration where this saves time.

    Each example starts with :class:`relaxation` without damping. After every 10 steps,
    the solver estimates from the residuals how many more steps relaxation needs. If
    these are more than 20, or if the residual does not fall, the example changes to
    :class:`anderson` acceleration. After 20 of its steps, Anderson acceleration is kept
    if the logarithm of the residual fell, in the last 10 steps, 1.3 times as fast as
    before. Otherwise the example returns to relaxation for good. `info.accelerated`
    says which examples Anderson acceleration iterated in the end.

    This class also solves the adjoint equation: `gradients.solvers.auto` and
    `gradients.adjoints.auto` are the same class. If it is given as the solver, it is by
    default also the adjoint solver, and with on_failure="nan" conjugate gradients solve
    the examples where both methods fail.

    Prefer this solver if the spectral radius of the Jacobian of f is unknown or varies
    between examples. Prefer `relaxation` if f contracts quickly, if its damping
    matters, or if memory is scarce: for each example of n elements, `auto` stores 10 n
    elements more. While no example is accelerated, a step takes about the time of a
    relaxation's step.

    Args:
      tol: largest relative residual that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: absolute tolerance. An example has also converged if ‖f(h) − h‖ is at most
        atol. Default: tol². Give atol if the fixed point may be 0. The adjoint solver
        does not use atol.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: x * h + 1  # h* = 1 / (1 − x)
      >>> x, solver = jnp.array([0.5, 0.99]), gradients.solvers.auto()
      >>> solve = gradients.fixed_point
      >>> h, info = solve(f, (), jnp.zeros(2), x, solver=solver, batch_ndim=1)
      >>> [round(each) for each in h.tolist()], info.accelerated.tolist()
      ([2, 100], [False, True])
      >>> info.steps.tolist()[1] < 40  # relaxation takes more than 400 steps
      True

    References:
      As for :class:`relaxation` and :class:`anderson`; the choice between them is ours.
    """

    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    atol: float | jax.Array | None = None
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_limits(self.tol, self.max_steps, self.atol)

    def solve(self, gap, start, scale, batch_ndim, pull=None):
        """Iterate until ‖gap(h)‖ ≤ tol · scale(h) or a failure; gap(h) is f(h) − h."""
        method = Method(_init, _move, may_rise=True, accelerated=_accelerated)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        settings |= {"batch_ndim": batch_ndim, "pull": pull}
        return iterate_vectors(gap, start, scale, method, **settings)

    def __call__(self, matvec, b, batch_ndim, start=None, krylov=False):
        """Return z and its convergence report, of arrays [*batch]."""
        size, outcome = solve_linear(self, matvec, b, batch_ndim, start, krylov)
        return times(size, outcome.best[0]), outcome.best[1]


def _accelerated(memory: _Memory) -> jax.Array:
    return (memory.phase >= STARTS) & (memory.phase <= STAYS)


def _init(start: jax.Array) -> _Memory:
    inner = anderson(DEPTH)._init(start)
    zeros = jnp.zeros_like(inner.lowest)
    none = jnp.zeros(zeros.shape, jnp.int32)
    return _Memory(none, none, jnp.full_like(zeros, jnp.inf), zeros, inner)


def _move(
    memory: _Memory, h: jax.Array, difference: jax.Array, step: Step
) -> tuple[jax.Array, _Memory]:
    # `select` returns `inner` as it is, because it is the same object in both.
    memory = select(step.moves, _decided(memory, step), memory)
    fast = _accelerated(memory) & step.moves
    plain = h + difference

    def accelerate(state):
        inner = state[1]
        now = step._replace(moves=fast)
        mixed, inner = anderson(DEPTH)._move(inner, h, difference, now)
        return select(fast, mixed, plain), inner

    new, inner = when(jnp.any(fast), accelerate, (plain, memory.inner))
    return new, memory._replace(inner=inner)


def _decided(memory: _Memory, step: Step) -> _Memory:
    """Return the memory with the phase of the next step; leave `inner` unchanged."""
    begins = jnp.isinf(memory.mark)
    due = (memory.since >= PERIOD) & ~begins
    count = jnp.maximum(memory.since, 1).astype(step.size.dtype)
    safe = lambda a: jnp.log(jnp.maximum(a, jnp.finfo(a.dtype).tiny))
    rate = (safe(step.size) - safe(memory.mark)) / count  # ln of the factor of a step
    falls = rate < 0
    left = safe(step.ahead) / jnp.where(falls, -rate, 1)
    slow = ~falls | (left > LONG)
    accelerates = due & (memory.phase == RELAXES) & slow
    tried = due & (memory.phase == TRIES)
    worth = falls & (rate <= FASTER * jnp.minimum(memory.rate, 0))
    phase = jnp.where(due & (memory.phase == STARTS), TRIES, memory.phase)
    phase = jnp.where(accelerates, STARTS, phase)
    phase = jnp.where(tried, jnp.where(worth, STAYS, RETURNED), phase)
    return memory._replace(
        phase=phase.astype(jnp.int32),
        since=jnp.where(due | begins, 1, memory.since + 1),
        mark=jnp.where(due | begins, step.size, memory.mark),
        rate=jnp.where(accelerates, rate, memory.rate),
    )
