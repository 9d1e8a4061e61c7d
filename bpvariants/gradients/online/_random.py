"""Random arrays for online rules, and checks of their keys and distributions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import check_single_key

# Function (key, shape, dtype) -> independent random numbers of mean 0 and variance 1.
Draw = Callable[..., jax.Array]


def check_key(rule: str, key: jax.Array | None) -> None:
    if key is None:
        raise ValueError(
            f"key must be given, as a keyword, because {rule} draws at random. Use "
            "rule.update(..., key=jax.random.key(0)), with a new key at each step. The "
            "rule that over_sequence returns takes one key= for the whole sequence."
        )


def rademacher(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw signs ±1, each with probability 1/2; the dtype does not affect the signs."""
    return _signs(key, math.prod(shape)).reshape(shape).astype(dtype)


def signs_like(key: Any, leaves: Sequence[jax.Array]) -> list[jax.Array]:
    """Draw signs ±1 with the shapes and dtypes of `leaves`, from one draw by `key`."""
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = jnp.split(_signs(key, int(ends[-1])), ends[:-1])
    return [
        part.reshape(leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]


def _signs(key: jax.Array, size: int) -> jax.Array:
    """Draw an int32 vector of `size` signs ±1; each random word gives 32 signs."""
    check_single_key(key)
    words = jax.random.bits(key, (-(-size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return 1 - 2 * bits.reshape(-1)[:size].astype(jnp.int32)


Distribution: TypeAlias = Literal["rademacher", "normal"]
DISTRIBUTIONS = {"rademacher": rademacher, "normal": jax.random.normal}


def check_distribution(distribution: str) -> None:
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution must be one of {sorted(DISTRIBUTIONS)}, got "
            f"{distribution!r}."
        )


def draw_like(
    key: Any, leaves: Sequence[jax.Array], draw: Draw = rademacher
) -> list[jax.Array]:
    check_single_key(key)
    keys = jax.random.split(key, len(leaves))
    return [
        draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
