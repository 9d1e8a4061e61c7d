"""Layouts of Rprop's state: Δ and s of each parameter in 8, 5, 4 or 2 bytes.

Two files advance one array of parameters by one step: `_rprop_plain.py`, where Δ and s
have arrays of their own, reads as the equations of `_rprop.py` do, and
`_rprop_packed.py`, where both share one, does the same to the bits of floats.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import NARROW

Kept: TypeAlias = tuple[jax.Array, Any]  # one leaf of the state: Δ, and s or None

LAYOUTS = ("float32", "int8_sign", "packed", "bfloat16")
PACKED = ("packed", "bfloat16")
KEEPS_SIGN = ("rprop_minus", "manhattan")  # at a flip; the others set s to 0 there


@dataclass(frozen=True)
class RpropLayout:
    """How an optimizer keeps its state, and which it is.

    Attributes:
      state: "float32", "int8_sign", "packed" or "bfloat16".
      variant: the member of the Rprop family.
    """

    state: str
    variant: str

    @property
    def rests(self) -> bool:
        """Whether s is 0 after a gradient has changed its sign."""
        return self.variant not in KEEPS_SIGN


class Numbers(NamedTuple):
    """Settings of one array, cast to its dtype; bounds are rounded as steps are."""

    eta_minus: jax.Array
    eta_plus: jax.Array
    min_step_size: jax.Array
    max_step_size: jax.Array


class Seen(NamedTuple):
    """What a state tells of the last step."""

    step_sizes: jax.Array  # Δ_t
    flipped: jax.Array | None  # where g_t changed its sign; None if it does not tell


def computing(dtype: Any, layout: RpropLayout) -> Any:
    """Return the dtype that step sizes of such params have outside of the state."""
    narrow = layout.state == "bfloat16" or dtype in NARROW
    return jnp.dtype(jnp.float32) if narrow else jnp.dtype(dtype)


def at_flip(variant: str, old: Any, new: Any, worse: Any) -> Any:
    """Return D_t where the gradient changed its sign: (Δ_{t−1}, Δ_t, E_t > E_{t−1})."""
    match variant:
        case "rprop_plus":
            return old
        case "irprop_plus":
            return jnp.where(worse, old, 0)
        case "irprop_minus":
            return jnp.zeros_like(new)
    return new
