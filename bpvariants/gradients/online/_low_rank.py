"""Products of low rank for :func:`sketched_rtrl`; its module explains the notation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._examples import unit

# The results depend little on these numbers, which are η, α and the part of the
# relevance that all directions share.
RATE, SHARE, REST = 0.1, 0.3, 0.01


class LowRankFactors(NamedTuple):
    """Factors Q_t and V_t of the influence of one block of params, float32 or wider."""

    basis: jax.Array  # Q_t, [*batch, n, r], with orthonormal columns
    rows: jax.Array  # V_t, [*batch, r, k, m]


def new_relevance(old: jax.Array, jacobian: jax.Array, signal: jax.Array) -> jax.Array:
    """Return O_t, given O_{t−1}, the Jacobian J_t and the error signal c_t.

    Resets do not change O_t, so a step whose result is not finite must not change it
    either; otherwise a NaN would stay for ever.
    """
    back = jacobian.T @ old @ jacobian
    signal = signal / unit(jnp.max(jnp.abs(signal), initial=0))
    now = jnp.outer(signal, signal)
    new = SHARE * _of_trace_one(now) + (1 - SHARE) * _of_trace_one(back)
    new = _of_trace_one((1 - RATE) * old + RATE * new)
    return jnp.where(jnp.all(jnp.isfinite(new)), new, old)


def _of_trace_one(matrix: jax.Array) -> jax.Array:
    """Divide a positive semidefinite matrix by its trace, unless it is zero."""
    size = jnp.trace(matrix)
    return matrix / jnp.where(size == 0, 1, size)


def sum_bound(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return a bound of (E + C)(E + C)ᵀ, given bounds of E Eᵀ and of C Cᵀ."""
    sizes = jnp.sqrt(jnp.maximum(jnp.stack([jnp.trace(first), jnp.trace(second)]), 0))
    total = jnp.sum(sizes)
    scale = lambda size: jnp.where(size == 0, 0, total / jnp.where(size == 0, 1, size))
    return scale(sizes[0]) * first + scale(sizes[1]) * second


def compressed(
    pushed: jax.Array,
    rows: jax.Array,
    inputs: jax.Array,
    slopes: jax.Array,
    relevance: jax.Array,
) -> tuple[LowRankFactors, jax.Array]:
    """Return the factors of X = A V + D ⊗ â, and a bound of C Cᵀ.

    C is what is cut off, (I − Q W) X.

    `pushed` is A [n, r], `rows` V [r, k, m], `inputs` â [k], `slopes` D [n, m],
    `relevance` O_t [n, n].
    """
    n, rank = pushed.shape
    flat = rows.reshape(rank, -1)
    overlap = pushed @ jnp.tensordot(inputs, rows, axes=(0, 1)) @ slopes.T
    outer = jnp.sum(inputs**2) * (slopes @ slopes.T)
    gram = pushed @ (flat @ flat.T) @ pushed.T + overlap + overlap.T + outer
    scale = jnp.linalg.norm(pushed)
    start = pushed / jnp.where(scale == 0, 1, scale)
    start = start + _mixing(n, rank).astype(gram.dtype)
    seen = relevance + REST / n * jnp.eye(n, dtype=gram.dtype)
    basis = jnp.linalg.qr(gram @ (seen @ start))[0]
    dual = seen @ basis
    dual = jnp.linalg.solve(basis.T @ dual, dual.T)  # W, [r, n]
    on_dual = gram @ dual.T
    twice = on_dual - basis @ (dual @ on_dual)
    cut = gram - basis @ on_dual.T - twice @ basis.T
    # Each of the n² sums in K has a rounding error of about n ε tr K.
    rounding = 4 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    cut = cut + rounding * jnp.eye(n, dtype=gram.dtype)
    new = (dual @ pushed) @ flat
    immediate = jnp.einsum("k,rm->rkm", inputs, dual @ slopes)
    return LowRankFactors(basis, new.reshape(rows.shape) + immediate), cut


def _mixing(n: int, rank: int) -> jax.Array:
    """Return a fixed matrix [n, rank] of random numbers, of Frobenius norm about 1."""
    return jax.random.normal(jax.random.key(0), (n, rank)) / (n * rank) ** 0.5
