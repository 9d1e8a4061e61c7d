"""Loop shared by all solvers of h = g(h), and its report of convergence.

    h ← move(h, g(h) − h)    until ‖g(h) − h‖ ≤ tol · scale

Each example [*batch] iterates by itself, and no longer changes once it is done. If the
rounding errors of g do not allow the tolerance, an example is done when the residual
has stopped falling and rounding explains what is left. If g is linear, conjugate
gradients can take over examples for which the method fails.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._examples import norm, relative, times
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._krylov import (
    Krylov,
    krylov_step,
    no_krylov,
    restart,
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

WINDOW = 20  # number of last residuals to average over, because ratios oscillate
PATIENCE = 20  # steps without a lower residual, before a first test for rounding
GROWTH = 1e4  # factor by which ‖g(h) − h‖ may exceed its lowest, or its first, value


class Method(NamedTuple):
    """How a solver moves on from h, with a memory of earlier steps."""

    init: Callable[[PyTree], PyTree]  # start -> memory, leaves [*batch, ...]
    move: Callable[..., tuple[PyTree, PyTree]]  # memory, h, g(h) − h, its norm
    may_rise: bool = False  # whether growth is measured from the first residual
    pace: float | jax.Array | None = None  # ‖move‖ / ‖g(h) − h‖, if it is fixed


class _State(NamedTuple):
    h: PyTree  # or the next point of a walk
    best: PyTree  # the iterate with the lowest ‖g(h) − h‖
    memory: PyTree
    lowest: jax.Array  # ‖g(h) − h‖ of the best iterate
    residual: jax.Array  # this norm relative to the scale
    first: jax.Array  # relative residual of the start
    last: jax.Array  # relative residual of h
    recent: jax.Array  # [WINDOW, *batch], the last ‖g(h) − h‖
    peak: jax.Array  # if ‖g(h) − h‖ is above it, the example is lost
    since: jax.Array  # number of steps since the best iterate
    rounded: jax.Array  # whether only rounding keeps the residual above tol
    lost: jax.Array
    steps: jax.Array
    active: jax.Array
    walk: Walk  # the test for rounding
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
    """Move until every example has converged, is lost, or took max_steps.

    The gap g(h) − h is given instead of g. For large h, the difference of g(h) and h
    could round to 0, and an equation without a solution would seem solved.

    If the gap is b − A h, `pull` can be given: the conjugate transpose of A. Then the
    examples for which the method fails are solved by conjugate gradients, in up to
    max_steps more steps.
    """
    size = norm(start, batch_ndim)
    tol = reachable(tol, start, size.dtype)
    limit = jnp.asarray(max_steps, jnp.int32)

    def step(state: _State) -> _State:
        difference = gap(state.h)
        size = norm(difference, batch_ndim)
        residual = relative(size, scale(state.h))
        new = _step(state, difference, size, residual, method, tol, limit)
        stalled = new.active & _is_due(new.since)
        busy = stalled | (state.walk.place > 0)
        failed = jnp.zeros_like(stalled)
        if new.krylov is None:
            stalled &= new.residual <= COARSEST
        else:
            failed = state.active & ~new.active & (residual > tol) & ~new.krylov.on
            busy |= failed | (new.active & new.krylov.on)
        rare = lambda state: _settle(
            state, difference, size, stalled, failed, method, pull
        )
        return _when(jnp.any(busy), rare, new)

    krylov = None if pull is None else no_krylov(start, size)
    state = _begin(start, method.init(start), size)._replace(krylov=krylov)
    in_progress = lambda state: jnp.any(state.active | (state.walk.place > 0))
    state = jax.lax.while_loop(in_progress, step, state)
    radius = _contraction(state)
    h = select(state.rounded, state.best, state.h)
    last = jnp.where(state.rounded, state.residual, state.last)
    on = jnp.zeros_like(state.lost) if state.krylov is None else state.krylov.on
    info = lambda r: FixedPointInfo(state.steps, r, r <= tol, radius, on)
    done = lambda r: info(r)._replace(converged=(r <= tol) | state.rounded)
    return Outcome(
        (start, info(state.first)),
        (state.best, done(state.residual)),
        (h, done(last)),
        state.lost,
    )


def _is_due(since: jax.Array) -> jax.Array:
    """Return whether to test for rounding: after 20, 40, 80, … steps of no progress."""
    waits = since // PATIENCE
    return (waits > 0) & (since == PATIENCE * waits) & ((waits & (waits - 1)) == 0)


def _when(flag: jax.Array, change: Callable[[Any], Any], state: Any) -> Any:
    """Change the state if the flag is set; under vmap, only if one is set."""
    once = lambda pair: (jnp.zeros_like(flag), change(pair[1]))
    return jax.lax.while_loop(lambda pair: pair[0], once, (flag, state))[1]


def _step(
    state: _State,
    difference: PyTree,
    size: jax.Array,
    residual: jax.Array,
    method: Method,
    tol: jax.Array,
    limit: jax.Array,
) -> _State:
    """Move the active examples that the method solves, and note how they do."""
    better = state.active & ((size < state.lowest) | (residual <= tol))
    lowest = jnp.where(better, size, state.lowest)
    rises = method.may_rise & (state.steps > 0)
    peak = jnp.where(rises, state.peak, GROWTH * lowest)
    moves = state.active
    if state.krylov is not None:
        peak = jnp.where(state.krylov.on, jnp.inf, peak)
        limit = jnp.where(state.krylov.on, 2 * limit, limit)
        moves &= ~state.krylov.on
    lost = state.active & ~((residual <= tol) | (size <= peak))  # NaN is lost too
    steps = state.steps + state.active.astype(jnp.int32)
    active = state.active & (residual > tol) & ~lost & (steps < limit)
    since = jnp.where(better, 0, state.since + 1)
    h, memory = method.move(state.memory, state.h, difference, size)
    recent = jnp.concatenate([state.recent[1:], size[None]])
    return state._replace(
        h=select(moves & active, h, state.h),
        best=select(better, state.h, state.best),
        memory=select(moves & active, memory, state.memory),
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
    difference: PyTree,
    size: jax.Array,
    stalled: jax.Array,
    failed: jax.Array,
    method: Method,
    pull: Callable[[PyTree], PyTree] | None,
) -> _State:
    """End examples that stall because of rounding; let the others go on.

    An iteration that converges slowly moves on, almost straight. One that is only kept
    in motion by rounding returns to where it was.
    """
    units, size = size, jnp.mean(state.recent, axis=0)  # of the last steps
    asked = stalled & (state.residual <= COARSEST)
    returns = jnp.ones_like(asked)
    if method.pace is not None:
        away = in_units(size, jax.tree.map(jnp.subtract, state.h, state.best))
        pace = jnp.asarray(method.pace, size.dtype)
        returns = 4 * away <= (state.since.astype(size.dtype) * pace) ** 2
    if state.krylov is not None and pull is not None:
        on = state.krylov.on
        h, krylov = krylov_step(
            pull, state.krylov, on & state.active, state.h, difference, units
        )
        # Conjugate gradients diverge if rounding stops them, so they begin again.
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
    if state.krylov is None:
        return state
    return _take_over(state, unexplained | failed)


def _take_over(state: _State, begins: jax.Array) -> _State:
    """Let conjugate gradients begin, or begin again, at the best iterates."""
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
    """Return the state before the first step; size is an array [*batch]."""
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


def _contraction(state: _State) -> jax.Array:
    """Return the geometric mean of the last ratios of residuals (it telescopes)."""
    ratios = jnp.clip(state.steps - 1, 0, WINDOW - 1)
    first = jnp.take_along_axis(state.recent, WINDOW - 1 - ratios[None], axis=0)[0]
    ratio = relative(state.recent[-1], first)
    power = 1 / jnp.maximum(ratios, 1).astype(ratio.dtype)
    return jnp.where(ratios > 0, ratio**power, 0)
