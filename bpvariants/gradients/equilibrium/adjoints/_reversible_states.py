"""States whose damped steps can be inverted: floating-point and fixed-point numbers.

A half step of the reversible iteration replaces a state y by (1 − β) y + β v, where v
is the value of the map at another state. With floating-point numbers, the inverse
(y′ − β v) / (1 − β) divides each rounding error by 1 − β. With fixed-point numbers, the
inverse is exact, bit for bit. Let Y be the integer nearest to y · 2^s, and let 1 − β be
the fraction p / q:

    Y′ = ⌊(p Y + q/2) / q⌋ + round(β v · 2^s)

Because p < q, several consecutive integers Y lead to the same Y′. Let Y_min be the
lowest of them. The digit Y − Y_min tells them apart; it is less than D = ⌈q / p⌉. The
digits of many half steps are stored in one 32-bit word, as a number with the base D.
For β ≤ 1/2, a digit is one bit. Every exact inverse needs such digits, because a step
that contracts maps several states to one.
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like
from bpvariants.types import PyTree

GRID = 2**15  # beta of fixed-point states is a multiple of 1 / GRID
ROOM = 7, 13  # bits before the binary point, with sign: 32-bit and 64-bit integers


class Floating(NamedTuple):
    """Floating-point states, which need no digits."""

    beta: float

    def limit(self, h: PyTree) -> float:
        """Return the limit below which absolute values of states must stay."""
        del h
        return math.inf

    def encode(self, h: PyTree) -> PyTree:
        return h

    def decode(self, state: PyTree, like: PyTree) -> PyTree:
        del like
        return state

    def no_words(self, h: PyTree, steps: int) -> PyTree:
        """Return the words of a state before the first step."""
        del h, steps

    def mix(self, state: PyTree, value: PyTree, words: PyTree, k: Any):
        """Return (1 − β) state + β value, and the words with the digits of step k."""
        del k
        mixed = lambda y, v: (1 - self.beta) * y + self.beta * v
        return jax.tree.map(mixed, state, value), words

    def unmix(self, state: PyTree, value: PyTree, words: PyTree, k: Any) -> PyTree:
        """Return the state before the half step of step k."""
        del words, k
        inverse = lambda y, v: (y - self.beta * v) / (1 - self.beta)
        return jax.tree.map(inverse, state, value)


class FixedPoint(NamedTuple):
    """Fixed-point states, which are integers; words [number of words, …] hold digits.

    `beta` is 1 − p / q exactly. q is a power of 2.
    """

    beta: float
    p: int
    q: int

    def limit(self, h: PyTree) -> float:
        """Return the limit below which absolute values of states must stay."""
        return min(2.0 ** (_room(leaf) - 1) for leaf in jax.tree.leaves(h))

    def encode(self, h: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: _as_integers(leaf, 1.0), h)

    def decode(self, state: PyTree, like: PyTree) -> PyTree:
        def of_leaf(y, leaf):
            wide = _wide(leaf)
            return y.astype(wide) * jnp.asarray(2.0 ** -_fraction(leaf), wide)

        return cast_like(jax.tree.map(of_leaf, state, like), like)

    def no_words(self, h: PyTree, steps: int) -> PyTree:
        """Return the words of a state before the first step: zeros."""
        count = -(-steps // self._per_word)
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), jnp.uint32), h)

    def mix(self, state: PyTree, value: PyTree, words: PyTree, k: Any):
        """Return (1 − β) state + β value, and the words with the digits of step k."""
        place, factor = self._place(k)

        def of_leaf(y, v, words):
            shift = self.q.bit_length() - 1
            within = (y & (self.q - 1)) * self.p + self.q // 2
            new = (y >> shift) * self.p + (within >> shift)
            digit = (y - self._lowest(new)).astype(jnp.uint32)
            word = jax.lax.dynamic_index_in_dim(words, place, keepdims=False)
            word = word + factor * digit
            words = jax.lax.dynamic_update_index_in_dim(words, word, place, 0)
            return new + _as_integers(v, self.beta), words

        pairs = jax.tree.map(of_leaf, state, value, words)
        return jax.tree.transpose(
            jax.tree.structure(state), jax.tree.structure((0, 0)), pairs
        )

    def unmix(self, state: PyTree, value: PyTree, words: PyTree, k: Any) -> PyTree:
        """Return the state before the half step of step k."""
        place, factor = self._place(k)

        def of_leaf(y, v, words):
            word = jax.lax.dynamic_index_in_dim(words, place, keepdims=False)
            digit = (word // factor) % jnp.uint32(self._base)
            return self._lowest(y - _as_integers(v, self.beta)) + digit.astype(y.dtype)

        return jax.tree.map(of_leaf, state, value, words)

    @property
    def _base(self) -> int:
        return -(-self.q // self.p)

    @property
    def _per_word(self) -> int:
        """Number of digits in a word of 32 bits."""
        return next(n for n in range(32, 0, -1) if self._base**n <= 2**32)

    def _place(self, k: Any) -> tuple[Any, jax.Array]:
        """Return the word with the digit of step k, and the digit's factor."""
        factors = [self._base**j for j in range(self._per_word)]
        return k // self._per_word, jnp.asarray(factors, jnp.uint32)[k % self._per_word]

    def _lowest(self, new: jax.Array) -> jax.Array:
        """Return the lowest integer Y with ⌊(p Y + q/2) / q⌋ = new."""
        whole = new // self.p
        within = self.q // 2 - (new - whole * self.p) * self.q
        return whole * self.q - within // self.p


def fixed_point_states(beta: float) -> FixedPoint:
    """Return fixed-point states for β, rounded to a multiple of 1 / GRID."""
    keep = Fraction(round((1 - beta) * GRID), GRID)
    if not 0 < keep < 1:
        raise ValueError(
            f"beta must satisfy 1/{GRID} <= beta <= 1 - 1/{GRID} with "
            f'state="fixed_point", got {beta}, because this state has a beta of whole '
            f"multiples of 1/{GRID}."
        )
    return FixedPoint(float(1 - keep), keep.numerator, keep.denominator)


def _room(leaf: jax.Array) -> int:
    return ROOM[leaf.dtype == jnp.float64]


def _fraction(leaf: jax.Array) -> int:
    """Return s, the number of bits behind the binary point for a leaf of h."""
    return (63 if leaf.dtype == jnp.float64 else 31) - _room(leaf) - 1


def _wide(leaf: jax.Array) -> Any:
    return jnp.float64 if leaf.dtype == jnp.float64 else jnp.float32


def _as_integers(leaf: jax.Array, factor: float) -> jax.Array:
    """Return round(factor · leaf · 2^s); 0 for values that are too large, or NaN.

    The iteration reports values that are too large.
    """
    wide = leaf.astype(_wide(leaf))
    fits = jnp.abs(wide) < 2.0 ** (_room(leaf) - 1)
    scaled = jnp.round(wide * (factor * 2.0 ** _fraction(leaf)))
    integer = jnp.int64 if leaf.dtype == jnp.float64 else jnp.int32
    return jnp.where(fits, scaled, 0).astype(integer)
