"""Loop shared by all fixed-point solvers, and its convergence report.

For a map g and a state h, the function `move` is the solver's update rule:

    h ← move(h, g(h) − h)    until ‖g(h) − h‖ ≤ tol · scale

Each example iterates by itself until it converges or fails. An example also counts as
converged if its residual ‖g(h) − h‖ has stopped falling and is so small that rounding
errors of g explain it. If g is linear, conjugate gradients can take over the examples
for which the solver fails. A relaxation can halve its damping for examples that
oscillate without converging.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._examples import norm, quick_norm, relative, times
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._krylov import (
    Krylov,
    krylov_step,
    no_krylov,
    restart,
)
from bpvariants.gradients.equilibrium._method import Method, Step, when
from bpvariants.gradients.equilibrium._residuals import (
    contraction,
    is_due,
    PATIENCE,
    will_fail,
    WINDOW,
)
from bpvariants.gradients.equilibrium._rounding import (
    begin_walk,
    COARSEST,
    go_on,
    in_units,
    no_walk,
    NOISE,
    noise,
    point,
    POINTS,
    reachable,
    Walk,
)
from bpvariants.gradients.equilibrium._solution import FixedPointInfo, Outcome
from bpvariants.types import PyTree

GROWTH = 1e4  # an example diverges if its residual rises by more than this factor
SPAN = 8  # an oscillating iterate stays within SPAN / 2 times the length of a step


class _Events(NamedTuple):
    """Masks [*batch] of the examples that need more than an ordinary solver step."""

    stalled: jax.Array  # the lowest residual is 20, 40, 80, … steps old
    late: jax.Array  # the residual falls too slowly for max_steps steps
    slow: jax.Array  # late, although the last step gave the lowest residual
    failed: jax.Array  # the solver failed; conjugate gradients take over


class _State(NamedTuple):
    h: PyTree  # iterate; in a test for rounding errors, the next test point
    best: PyTree  # the iterate with the lowest ‖g(h) − h‖
    memory: PyTree
    lowest: jax.Array  # ‖g(h) − h‖ of the best iterate
    residual: jax.Array  # ‖g(h) − h‖ / scale of the best iterate
    first: jax.Array  # relative residual of the start
    last: jax.Array  # relative residual of h
    recent: jax.Array  # [WINDOW, *batch]: the last values of ‖g(h) − h‖
    peak: jax.Array  # limit of ‖g(h) − h‖, above which the example counts as diverged
    since: jax.Array  # number of steps since the best iterate
    rounded: jax.Array  # whether only rounding errors keep the residual above tol
    lost: jax.Array
    steps: jax.Array
    active: jax.Array
    walk: Walk
    krylov: Krylov | None


def iterate(
    gap: Callable[[PyTree], PyTree],
    start: PyTree,
    scale: Callable[[PyTree], jax.Array],
    method: Method,
    *,
    tol: float | jax.Array,
    max_steps: int | jax.Array,
    batch_ndim: int,
    pull: Callable[[PyTree], PyTree] | None = None,
) -> Outcome:
    """Iterate until every example has converged, diverged, or taken max_steps steps.

    The function `gap` computes the difference g(h) − h. The caller gives `gap` instead
    of g, because for a large h, a computed g(h) could round to h although h is no
    solution.

    For a linear equation A h = b, `gap` computes b − A h, and the function `pull`
    multiplies by the conjugate transpose of A. If `pull` is given, conjugate gradients
    solve the examples for which the method fails, in up to max_steps more steps.
    """
    size = norm(start, batch_ndim)
    tol = reachable(tol, start, size.dtype)
    limit = jnp.asarray(max_steps, jnp.int32)

    def step(state: _State) -> _State:
        difference = gap(state.h)
        size = quick_norm(difference, batch_ndim)
        residual = relative(size, scale(state.h))
        new = _step(state, difference, size, residual, method, tol, limit)
        stalled = new.active & is_due(new.since)
        failed = late = slow = jnp.zeros_like(stalled)
        if method.halve is not None:
            late = will_fail(new.recent, new.last, new.steps, tol, limit)
            slow = late & new.active & (new.since == 0) & (new.steps % PATIENCE == 0)
        elif new.krylov is None:
            stalled &= new.residual <= COARSEST
        busy = stalled | slow | (state.walk.place > 0)
        if new.krylov is not None:
            failed = state.active & ~new.active & (residual > tol) & ~new.krylov.on
            busy |= failed | (new.active & new.krylov.on)
        events = _Events(stalled, late, slow, failed)
        rare = lambda new: _settle(new, state, difference, size, events, method, pull)
        return when(jnp.any(busy), rare, new)

    krylov = None if pull is None else no_krylov(start, size)
    state = _begin(start, method.init(start), size)._replace(krylov=krylov)
    in_progress = lambda state: jnp.any(state.active | (state.walk.place > 0))
    state = jax.lax.while_loop(in_progress, step, state)
    radius = contraction(state.recent, state.steps)
    h = select(state.rounded, state.best, state.h)
    last = jnp.where(state.rounded, state.residual, state.last)
    on = jnp.zeros_like(state.lost) if state.krylov is None else state.krylov.on
    damping = jnp.ones_like(radius)
    if method.damping is not None:
        damping *= jnp.asarray(method.damping(state.memory), damping.dtype)
    fast = jnp.zeros_like(state.lost)
    if method.accelerated is not None:
        fast = method.accelerated(state.memory) & ~on
    told = radius, on, damping, fast
    info = lambda r: FixedPointInfo(state.steps, r, r <= tol, *told)
    done = lambda r: info(r)._replace(converged=(r <= tol) | state.rounded)
    return Outcome(
        (start, info(state.first)),
        (state.best, done(state.residual)),
        (h, done(last)),
        state.lost,
    )


def _step(
    state: _State,
    difference: PyTree,
    size: jax.Array,
    residual: jax.Array,
    method: Method,
    tol: jax.Array,
    limit: jax.Array,
) -> _State:
    """Move the active examples by one step of the method; record their residuals."""
    better = state.active & ((size < state.lowest) | (residual <= tol))
    lowest = jnp.where(better, size, state.lowest)
    rises = method.may_rise & (state.steps > 0)
    peak = jnp.where(rises, state.peak, GROWTH * lowest)
    moves = state.active
    if state.krylov is not None:
        peak = jnp.where(state.krylov.on, jnp.inf, peak)
        limit = jnp.where(state.krylov.on, 2 * limit, limit)
        moves &= ~state.krylov.on
    lost = state.active & ~((residual <= tol) | (size <= peak))  # also if size is NaN
    steps = state.steps + state.active.astype(jnp.int32)
    active = state.active & (residual > tol) & ~lost & (steps < limit)
    since = jnp.where(better, 0, state.since + 1)
    moves &= active
    now = Step(size, moves, residual / tol)
    h, memory = method.move(state.memory, state.h, difference, now)
    recent = jnp.concatenate([state.recent[1:], size[None]])
    return state._replace(
        h=select(moves, h, state.h),
        best=select(better, state.h, state.best),
        memory=memory,
        lowest=lowest,
        residual=jnp.where(better, residual, state.residual),
        first=jnp.where(state.steps == 0, residual, state.first),
        last=jnp.where(state.active, residual, state.last),
        recent=jnp.where(state.active[None], recent, state.recent),
        peak=peak,
        since=jnp.where(state.active, since, state.since),
        lost=state.lost | lost,
        steps=steps,
        active=active,
    )


def _settle(
    state: _State,
    before: _State,
    difference: PyTree,
    size: jax.Array,
    events: _Events,
    method: Method,
    pull: Callable[[PyTree], PyTree] | None,
) -> _State:
    """Test stalled examples for rounding errors, or change how they are iterated.

    The iterates of a slowly converging example move along an almost straight line.
    Iterates that oscillate, or that change only by rounding errors, return to earlier
    ones. A relaxation tests only examples whose iterates return.
    """
    stalled, late, slow, failed = events
    units, size = size, jnp.mean(state.recent, axis=0)  # mean over the last steps
    asked = stalled & (state.residual <= COARSEST)
    returns = near = jnp.ones_like(asked)
    if method.damping is not None:
        away = in_units(size, jax.tree.map(jnp.subtract, state.h, before.best))
        moves = (before.since + 2).astype(size.dtype)  # steps since before.best
        damping = jnp.asarray(method.damping(state.memory), size.dtype)
        returns = 4 * away <= (moves * damping) ** 2
        near = 4 * away <= (jnp.minimum(moves, SPAN) * damping) ** 2
    if state.krylov is not None and pull is not None:
        on = state.krylov.on
        h, krylov = krylov_step(
            pull, state.krylov, on & state.active, state.h, difference, units
        )
        # Conjugate gradients would diverge after a stall, so they restart.
        h = select(stalled & on, state.best, h)
        state = state._replace(h=h, krylov=restart(krylov, stalled))
        size, returns = jnp.where(on, state.lowest, size), returns | on
    asked &= returns
    walk = go_on(state.walk, difference, size)
    ended = walk.place > POINTS
    rounded = ended & (NOISE**2 * noise(walk) >= 1)
    walk = walk._replace(place=jnp.where(ended, 0, walk.place))
    unexplained = (stalled & ~asked) | (ended & ~rounded)
    h = select(ended, walk.start, state.h)
    walk = begin_walk(walk, asked, h, times(size / units, difference), size)
    state = state._replace(
        h=select(walk.place > 0, point(walk), h),
        walk=walk,
        rounded=state.rounded | rounded,
        active=(state.active & ~asked) | (ended & ~rounded),
    )
    if method.halve is not None:
        oscillates = late & ((slow & near) | (unexplained & (near | ended)))
        state = state._replace(memory=method.halve(state.memory, oscillates))
    if state.krylov is None:
        return state
    return _take_over(state, unexplained | failed)


def _take_over(state: _State, begins: jax.Array) -> _State:
    """Start conjugate gradients at the best iterate where `begins` is True."""
    assert state.krylov is not None
    fresh = begins & ~state.krylov.on
    krylov = state.krylov._replace(on=state.krylov.on | fresh)
    return state._replace(
        h=select(fresh, state.best, state.h),
        lost=state.lost & ~fresh,
        active=state.active | fresh,
        krylov=krylov,
    )


def _begin(start: PyTree, memory: PyTree, size: jax.Array) -> _State:
    """Return the loop's state before the first step; `size` has the shape [*batch]."""
    infinite = jnp.full_like(size, jnp.inf)
    return _State(
        h=start,
        best=start,
        memory=memory,
        lowest=infinite,
        residual=infinite,
        first=infinite,
        last=infinite,
        recent=jnp.zeros((WINDOW, *size.shape), size.dtype),
        peak=infinite,
        since=jnp.zeros(size.shape, jnp.int32),
        rounded=jnp.zeros(size.shape, bool),
        lost=jnp.zeros(size.shape, bool),
        steps=jnp.zeros(size.shape, jnp.int32),
        active=jnp.ones(size.shape, bool),
        walk=no_walk(start, size),
        krylov=None,
    )
