"""Context managers for the precision of computations.

The option `--precision` of studies that train is JAX's setting
`jax_default_matmul_precision`, the precision of products of float32 matrices:

- `default`: the default of JAX: float32 on CPUs, TF32 on recent GPUs, bfloat16 on TPUs.
- `float32`: float32 on every device.
- `tensorfloat32`, `bfloat16`: factors may be rounded to this precision, on devices that
  multiply such numbers faster. CPUs compute in float32.

Products are added up in float32. Everything else, such as parameters, sums over time
and the state of an update, is float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

# {name of the option: value of JAX's setting jax_default_matmul_precision}
PRODUCTS = {
    "default": None,
    "float32": "highest",
    "tensorfloat32": "tensorfloat32",
    "bfloat16": "bfloat16",
}


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Compute products of matrices with the precision `default`, `float32`, ….

    Functions that are compiled within the `with` block keep this precision.
    """
    if PRODUCTS[precision] is None:
        yield
        return
    with jax.default_matmul_precision(PRODUCTS[precision]):
        yield


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
