"""Loop shared by all solvers of h = g(h), and its report of convergence.

    h ← move(h, g(h) − h)    until ‖g(h) − h‖ ≤ tol · scale

Each example [*batch] iterates by itself, and no longer changes once it is done. If the
rounding errors of g do not allow the tolerance, an example is done when the residual
has stopped falling and rounding explains what is left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors
from bpvariants._examples import norm, relative
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._rounding import (
    COARSEST,
    NOISE,
    reachable,
    rounding,
)
from bpvariants.types import PyTree

WINDOW = 20  # number of last residuals to average over, because ratios oscillate
PATIENCE = 20  # steps without a lower residual, before a first test for rounding
GROWTH = 1e4  # factor by which ‖g(h) − h‖ may exceed its lowest, or its first, value


class FixedPointInfo(NamedTuple):
    """Convergence report of a fixed-point solver, arrays [*batch].

    It is returned because compiled code cannot raise errors.

    Attributes:
      steps: number of evaluations of the map, without those of the test for rounding.
      residual: ‖g(h) − h‖ of the returned iterate, relative to the solver's scale.
      converged: bool, whether the residual is within the tolerance, or as low as the
        rounding errors of the map allow; then `residual` is above the tolerance. The
        error is up to residual / (1 − spectral_radius).
      spectral_radius: estimate of the factor by which a step shrinks the error. For
        relaxation with damping 1, it estimates the spectral radius of the Jacobian. At
        1 or more, the iteration does not converge.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    spectral_radius: jax.Array


class Outcome(NamedTuple):
    """Three of the iterates, each with its :class:`FixedPointInfo`."""

    first: tuple[PyTree, FixedPointInfo]
    best: tuple[PyTree, FixedPointInfo]  # with the lowest ‖g(h) − h‖, or converged
    last: tuple[PyTree, FixedPointInfo]
    lost: jax.Array  # bool [*batch], whether it grew too much or was not finite


class Method(NamedTuple):
    """How a solver moves on from h, with a memory of earlier steps."""

    init: Callable[[PyTree], PyTree]  # start -> memory, leaves [*batch, ...]
    move: Callable[..., tuple[PyTree, PyTree]]  # memory, h, g(h) − h, its norm
    may_rise: bool = False  # whether growth is measured from the first residual
    pace: float | jax.Array | None = None  # ‖move‖ / ‖g(h) − h‖, if it is fixed


class _State(NamedTuple):
    h: PyTree
    best: PyTree  # the iterate with the lowest ‖g(h) − h‖
    memory: PyTree
    lowest: jax.Array  # ‖g(h) − h‖ of the best iterate
    residual: jax.Array  # this norm relative to the scale
    first: jax.Array  # relative residual of the start
    last: jax.Array  # relative residual of h
    recent: jax.Array  # [WINDOW, *batch], the last ‖g(h) − h‖
    peak: jax.Array  # if ‖g(h) − h‖ is above it, the example is lost
    since: jax.Array  # number of steps since the best iterate
    patience: jax.Array  # number of these steps at which rounding is tested
    stalled: jax.Array  # whether it waits for this test
    rounded: jax.Array  # whether only rounding keeps the residual above tol
    lost: jax.Array
    steps: jax.Array
    active: jax.Array


def iterate(
    gap: Callable[[PyTree], PyTree],
    start: PyTree,
    scale: Callable[[PyTree], jax.Array],
    method: Method,
    *,
    tol: float | jax.Array,
    max_steps: int | jax.Array,
    batch_ndim: int,
) -> Outcome:
    """Move until every example has converged, is lost, or took max_steps.

    The gap g(h) − h is given instead of g. For large h, the difference of g(h) and h
    could round to 0, and an equation without a solution would seem solved.
    """
    size = norm(start, batch_ndim)
    tol = reachable(tol, start, size.dtype)
    limit = jnp.asarray(max_steps, jnp.int32)

    def step(state: _State) -> _State:
        difference = gap(state.h)
        size = norm(difference, batch_ndim)
        residual = relative(size, scale(state.h))
        better = state.active & ((size < state.lowest) | (residual <= tol))
        lowest = jnp.where(better, size, state.lowest)
        rises = method.may_rise & (state.steps > 0)
        peak = jnp.where(rises, state.peak, GROWTH * lowest)
        lost = state.active & ~((residual <= tol) | (size <= peak))  # NaN is lost too
        steps = state.steps + state.active.astype(jnp.int32)
        active = state.active & (residual > tol) & ~lost & (steps < limit)
        since = jnp.where(better, 0, state.since + 1)
        h, memory = method.move(state.memory, state.h, difference, size)
        recent = jnp.concatenate([state.recent[1:], size[None]])
        state = state._replace(
            h=select(active, h, state.h),
            best=select(better, state.h, state.best),
            memory=select(active, memory, state.memory),
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
        stalled = active & (since >= state.patience) & (state.residual <= COARSEST)
        return state._replace(active=active & ~stalled, stalled=stalled | state.stalled)

    def run(state: _State) -> _State:
        state = jax.lax.while_loop(lambda state: jnp.any(state.active), step, state)
        return _judge(gap, state, method, batch_ndim)

    state = _begin(start, method.init(start), size)
    state = jax.lax.while_loop(lambda state: jnp.any(state.active), run, state)
    radius = _contraction(state)
    info = lambda r: FixedPointInfo(state.steps, r, r <= tol, radius)
    done = lambda r: info(r)._replace(converged=(r <= tol) | state.rounded)
    return Outcome(
        (start, info(state.first)),
        (state.best, done(state.residual)),
        (state.h, done(state.last)),
        state.lost,
    )


def _judge(gap: Callable, state: _State, method: Method, batch_ndim: int) -> _State:
    """End examples that stall because of rounding; let the others go on.

    An iteration that converges slowly moves on, almost straight. One that is only kept
    in motion by rounding returns to where it was.
    """
    size = jnp.exp(jnp.mean(jnp.log(state.recent), axis=0))  # of the last steps
    returns = state.stalled
    if method.pace is not None:
        away = norm(jax.tree.map(jnp.subtract, state.h, state.best), batch_ndim)
        pace = jnp.asarray(method.pace, size.dtype)
        returns &= 2 * away <= state.since.astype(size.dtype) * pace * size
    noise = rounding(gap, state.h, size, returns)
    # Rounding errors add up over steps as those of a random walk that returns.
    taken = jnp.maximum(state.steps - state.since, 1).astype(noise.dtype)
    factor = relative(state.residual, state.first) ** (1 / taken)
    added = jnp.where(factor < 0.99, (1 - jnp.minimum(factor, 0.99) ** 2) ** -0.5, 1)
    rounded = returns & (size <= NOISE * added * noise)
    active = state.stalled & ~rounded
    return state._replace(
        h=select(rounded, state.best, state.h),
        last=jnp.where(rounded, state.residual, state.last),
        patience=jnp.where(active, 2 * state.since, state.patience),
        rounded=state.rounded | rounded,
        stalled=jnp.zeros_like(active),
        active=active,
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
        patience=jnp.full(size.shape, PATIENCE, jnp.int32),
        stalled=jnp.zeros(size.shape, bool),
        rounded=jnp.zeros(size.shape, bool),
        lost=jnp.zeros(size.shape, bool),
        steps=jnp.zeros(size.shape, jnp.int32),
        active=jnp.ones(size.shape, bool),
    )


def iterate_vectors(
    gap: Callable[[PyTree], PyTree],
    start: PyTree,
    scale: Callable[[PyTree], jax.Array],
    method: Method,
    *,
    batch_ndim: int,
    **settings: Any,
) -> Outcome:
    """Call `iterate` with a method for states that are one array, [*batch, n]."""
    batch = jax.tree.leaves(start)[0].shape[:batch_ndim]
    vectors, as_tree = as_vectors(start, batch)
    # Vectors are float32 or wider, but the leaves of start may be narrower.
    settings["tol"] = reachable(settings["tol"], start, vectors.dtype)
    first, best, last, lost = iterate(
        lambda v: as_vectors(gap(as_tree(v)), batch)[0],
        vectors,
        lambda v: scale(as_tree(v)),
        method,
        batch_ndim=batch_ndim,
        **settings,
    )
    back = lambda pair: (as_tree(pair[0]), pair[1])
    return Outcome(back(first), back(best), back(last), lost)


def _contraction(state: _State) -> jax.Array:
    """Return the geometric mean of the last ratios of residuals (it telescopes)."""
    ratios = jnp.clip(state.steps - 1, 0, WINDOW - 1)
    first = jnp.take_along_axis(state.recent, WINDOW - 1 - ratios[None], axis=0)[0]
    ratio = relative(state.recent[-1], first)
    power = 1 / jnp.maximum(ratios, 1).astype(ratio.dtype)
    return jnp.where(ratios > 0, ratio**power, 0)
