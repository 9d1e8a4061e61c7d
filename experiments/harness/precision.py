"""A context manager for float64, for studies that need more digits than float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def double_precision() -> Iterator[None]:
    """Compute in float64 within a `with` block, by JAX's global setting for float64.

    At the end of the block, the setting is restored. Not all versions of JAX have a
    context manager for this setting.
    """
    before = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
