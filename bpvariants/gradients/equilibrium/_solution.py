"""The pair (h*, info) that a fixed point is returned as."""

from typing import Any, NamedTuple, NoReturn

from bpvariants.gradients.equilibrium._iteration import FixedPointInfo
from bpvariants.types import PyTree

UNPACK = (
    "fixed_point returns the pair (h, info), not h alone. Write "
    "`h, info = gradients.fixed_point(…)`, or take `.h` of the result."
)


def _is_no_array(self: Any, *_: Any) -> NoReturn:
    raise TypeError(UNPACK)


class FixedPoint(NamedTuple):
    """Result of :func:`fixed_point`, to be unpacked as `h, info`.

    It is no array: arithmetic on it raises a TypeError that says so.
    """

    h: PyTree  # h*, leaves [*batch, ...]
    info: FixedPointInfo  # arrays [*batch]

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _is_no_array
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = _is_no_array
    __pow__ = __rpow__ = __neg__ = __abs__ = _is_no_array
    __jax_array__ = _is_no_array  # called by the functions of jax.numpy
    # Comparisons keep the meaning that they have for tuples.

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no attribute {name!r}: {UNPACK}")
