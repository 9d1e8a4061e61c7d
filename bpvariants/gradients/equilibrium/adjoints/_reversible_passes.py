"""Forward and backward pass of the reversible relaxation; see :class:`reversible`.

The map is a function g(θ, h), where θ is a pytree of the parameters, the input x, and
the arrays over which the map closes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import widen
from bpvariants._examples import largest, norm, relative, select
from bpvariants.gradients.equilibrium._method import when
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.gradients.equilibrium.adjoints._reversible import reversible
from bpvariants.gradients.equilibrium.adjoints._reversible_states import FixedPoint
from bpvariants.types import PyTree

LOST = 2  # a state is lost if it is this many times as large as all forward states

GRAIN = 2.0**-20  # several units of the last place of fixed-point states


class Trajectory(NamedTuple):
    """Result of the forward pass, from which the backward pass starts."""

    y: PyTree  # the last states, floating or fixed-point
    z: PyTree
    words: tuple[PyTree, PyTree]  # digits of fixed-point states y and z
    peak: jax.Array  # [*batch]: largest absolute value of init and of all values of f
    found: jax.Array  # bool [*batch]: whether peak is finite and below the limit


def go_forward(
    adjoint: reversible, g: Callable, theta: PyTree, init: PyTree, batch_ndim: int
) -> tuple[PyTree, Trajectory]:
    """Return the state z after N steps, and the trajectory's end."""
    states, steps = adjoint.states, adjoint.steps
    exact = isinstance(states, FixedPoint)

    def half(own, other, words, peak, k):
        value = _value(g, theta, states.decode(other, init), k >= 0 if exact else None)
        own, words = states.mix(own, value, words, k)
        return own, words, jnp.maximum(peak, largest(value, batch_ndim))

    def step(k, now):
        y, z, (of_y, of_z), peak = now
        y, of_y, peak = half(y, z, of_y, peak, k)
        z, of_z, peak = half(z, y, of_z, peak, k)
        return y, z, (of_y, of_z), peak

    start, words = states.encode(init), states.no_words(init, steps)
    begin = start, start, (words, words), largest(init, batch_ndim)
    y, z, words, peak = jax.lax.fori_loop(0, steps, step, begin)
    found = peak < states.limit(init)  # False for NaN
    h = states.decode(z, init)
    return h, Trajectory(y, z, words, peak, found)


def _value(g: Callable, theta: PyTree, h: PyTree, apart: jax.Array | None) -> PyTree:
    """Return g(θ, h); if `apart`, which must be a True, XLA compiles g by itself.

    So forward and backward pass compute g by the same instructions, and get the same
    bits. XLA does not know that `apart` is True, so it cannot inline the loop's body.
    """
    if apart is None:
        return g(theta, h)
    theta, h = jax.lax.optimization_barrier((theta, h))
    return jax.lax.optimization_barrier(when(apart, lambda h: g(theta, h), h))


def report(
    adjoint: reversible,
    g: Callable,
    theta: PyTree,
    init: PyTree,
    h: PyTree,
    found: jax.Array,
) -> FixedPointInfo:
    """Return the convergence report of h, the state after the last step."""
    batch_ndim = found.ndim

    def residual_of(h):
        gap = jax.tree.map(jnp.subtract, g(theta, h), h)
        return relative(norm(gap, batch_ndim), norm(h, batch_ndim))

    residual = jnp.where(found, residual_of(h), jnp.inf)
    tol = reachable(adjoint.tol, h, residual.dtype)
    moved = jax.tree.map(jnp.subtract, g(theta, init), init)
    first = relative(norm(moved, batch_ndim), norm(h, batch_ndim))
    radius = relative(residual, first) ** (1 / (2 * adjoint.steps))
    steps = jnp.full(residual.shape, 2 * adjoint.steps, jnp.int32)
    no = jnp.zeros_like(found)
    one = jnp.ones_like(residual)
    return FixedPointInfo(steps, residual, residual <= tol, radius, no, one, no)


class _State(NamedTuple):
    k: jax.Array  # the step that is undone next
    y: PyTree
    z: PyTree
    y_bar: PyTree
    z_bar: PyTree
    sums: list[jax.Array]  # cotangents of the floating leaves of θ
    signal: PyTree  # sum of all β ȳ and β z̄ that have gone through f
    active: jax.Array  # bool [*batch]: whether the example still goes back
    left: jax.Array  # [*batch]: relative size of the adjoint where a state was lost
    taken: jax.Array  # int [*batch]: number of backward passes through f


class Cotangents(NamedTuple):
    """Result of the backward pass."""

    theta: list[jax.Array]  # of the floating leaves of θ
    init: PyTree
    signal: PyTree  # the sum of all adjoints that f got, an approximation of z
    info: FixedPointInfo


class _Way(NamedTuple):
    """What stays the same on the way back."""

    adjoint: reversible
    g: Callable
    theta: PyTree
    init: PyTree
    end: Trajectory
    full: jax.Array  # [*batch]: largest absolute value of the first adjoint

    @property
    def exact(self) -> bool:
        return isinstance(self.adjoint.states, FixedPoint)

    @property
    def batch_ndim(self) -> int:
        return self.end.peak.ndim

    def size(self, y_bar: PyTree, z_bar: PyTree) -> jax.Array:
        """Return the size of the adjoint [*batch], relative to that of the first."""
        sizes = (largest(bar, self.batch_ndim) for bar in (y_bar, z_bar))
        return relative(jnp.maximum(*sizes), self.full)


def go_back(
    adjoint: reversible,
    g: Callable,
    theta: PyTree,
    init: PyTree,
    end: Trajectory,
    h_bar: PyTree,
) -> Cotangents:
    """Recover the states from the last to the first; return all cotangents."""
    states, full = adjoint.states, largest(h_bar, end.peak.ndim)
    way = _Way(adjoint, g, theta, init, end, full)
    active = end.found & (full > 0)
    start = states.encode(init)
    leaves = floating_leaves(theta)
    begin = _State(
        jnp.int32(adjoint.steps - 1),
        select(end.found, end.y, start),
        select(end.found, end.z, start),
        _zeros(h_bar),
        select(active, h_bar, _zeros(h_bar)),
        [jnp.zeros_like(leaf) for leaf in widen(leaves)],
        _zeros(h_bar),
        active,
        jnp.where(end.found | (full == 0), 0, jnp.inf).astype(full.dtype),
        jnp.zeros(full.shape, jnp.int32),
    )
    last = jax.lax.while_loop(
        lambda now: (now.k >= 0) & jnp.any(now.active), partial(_undo, way), begin
    )
    error = _drift(states, init, last, end.peak)
    of_adjoint = way.size(last.y_bar, last.z_bar)
    error = jnp.where(last.active, error * of_adjoint, last.left)
    info = _report_back(adjoint, init, error, last.taken)
    theta_bar = [
        s.astype(leaf.dtype) for s, leaf in zip(last.sums, leaves, strict=True)
    ]
    return Cotangents(theta_bar, _add(last.y_bar, last.z_bar), last.signal, info)


def _undo(way: _Way, now: _State) -> _State:
    """Undo one step: first the half that has changed z, then the other one."""
    of_y, of_z = way.end.words
    z, z_bar, y_bar, fine, now = _half(
        way, now.z, now.y, now.z_bar, now.y_bar, of_z, now
    )
    now = _stop(way, now._replace(z=z), fine, y_bar, z_bar)
    y, y_bar, z_bar, fine, now = _half(
        way, now.y, now.z, now.y_bar, now.z_bar, of_y, now
    )
    now = _stop(way, now._replace(y=y), fine, y_bar, z_bar)
    return now._replace(k=now.k - 1)


def _half(
    way: _Way,
    own: PyTree,
    other: PyTree,
    own_bar: PyTree,
    other_bar: PyTree,
    words: PyTree,
    now: _State,
) -> tuple[PyTree, PyTree, PyTree, jax.Array, _State]:
    """Undo the half step that has changed `own` by the value of f at `other`.

    Return the state before, the cotangents of `own` and `other`, whether the state was
    recovered, and the new sums.
    """
    states, beta = way.adjoint.states, way.adjoint.states.beta
    at, leaves = states.decode(other, way.init), floating_leaves(way.theta)
    value, pull = jax.vjp(
        lambda leaves, h: way.g(replace_floating(way.theta, leaves), h), leaves, at
    )
    if way.exact:
        value = _value(way.g, way.theta, at, now.k >= 0)
    scaled = lambda factor, tree: jax.tree.map(lambda leaf: factor * leaf, tree)
    through = scaled(beta, own_bar)
    bars, at_bar = pull(through)
    before = states.unmix(own, value, words, now.k)
    found = largest(states.decode(before, way.init), way.batch_ndim)
    # Fixed-point states that are nearly 0 may exceed the peak by their rounding.
    bound = LOST * way.end.peak + (GRAIN if way.exact else 0)
    fine = now.active & (found <= bound)  # False for NaN
    sums = [
        total + bar.astype(total.dtype)
        for total, bar in zip(now.sums, bars, strict=True)
    ]
    now = now._replace(
        sums=sums,
        signal=_add(now.signal, through),
        taken=now.taken + now.active.astype(now.taken.dtype),
    )
    own_bar, other_bar = scaled(1 - beta, own_bar), _add(other_bar, at_bar)
    return select(fine, before, own), own_bar, other_bar, fine, now


def _stop(
    way: _Way, now: _State, fine: jax.Array, y_bar: PyTree, z_bar: PyTree
) -> _State:
    """End examples that have lost a state, or whose adjoint is negligible."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(way.init))
    adjoint_size = way.size(y_bar, z_bar)
    lost = now.active & ~fine
    active = fine & (adjoint_size > eps)
    return now._replace(
        y_bar=select(active, y_bar, _zeros(y_bar)),
        z_bar=select(active, z_bar, _zeros(z_bar)),
        active=active,
        left=jnp.where(lost, adjoint_size, now.left),
    )


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)


def _drift(states: Any, init: PyTree, last: _State, peak: jax.Array) -> jax.Array:
    """Return the relative difference [*batch] of the recovered start and init."""
    start = states.encode(init)
    gap = lambda a, b: jnp.abs(a - b).astype(peak.dtype)
    gaps = jax.tree.map(gap, (last.y, last.z), (start, start))
    return relative(largest(gaps, peak.ndim), peak)


def _report_back(
    adjoint: reversible, init: PyTree, error: jax.Array, taken: jax.Array
) -> FixedPointInfo:
    tol = reachable(adjoint.tol, init, error.dtype)
    no = jnp.zeros(error.shape, bool)
    one = jnp.ones_like(error)
    return FixedPointInfo(taken, error, error <= tol, one, no, one, no)
