"""Layouts of Rprop's state: step size Δ and sign s in 8, 5, 4 or 2 bytes a parameter.

Two files implement one step of Rprop for one array of parameters. `_rprop_plain.py` has
Δ and s in separate arrays, and computes the equations of `_rprop.py` as written.
`_rprop_packed.py` has Δ and s in one array, and computes the same on bits of floats.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import NARROW

Kept: TypeAlias = tuple[jax.Array, Any]  # state of an array of params: Δ, and s or None

LAYOUTS = ("float32", "int8_sign", "packed", "bfloat16")
PACKED = ("packed", "bfloat16")
KEEPS_SIGN = ("rprop_minus", "manhattan")  # other variants set s to 0 at a sign change


@dataclass(frozen=True)
class RpropLayout:
    """The layout of an optimizer's state, and the optimizer's variant.

    Attributes:
      state: layout, "float32", "int8_sign", "packed" or "bfloat16".
      variant: the member of the Rprop family.
    """

    state: str
    variant: str

    @property
    def rests(self) -> bool:
        """Whether the stored sign s is 0 after a gradient has changed its sign."""
        return self.variant not in KEEPS_SIGN


class Numbers(NamedTuple):
    """Settings of Rprop for one array of params, or as the user gave them for all.

    For one array, settings are cast to its dtype, and bounds rounded like step sizes.
    """

    eta_minus: Any
    eta_plus: Any
    min_step_size: Any
    max_step_size: Any


class Seen(NamedTuple):
    """Step sizes and sign changes of the last step, as read from a state."""

    step_sizes: jax.Array  # Δ_t
    flipped: jax.Array | None  # where g_t changed its sign; None if not recorded


def computing(dtype: Any, layout: RpropLayout) -> Any:
    """Return the dtype in which step sizes of params of a dtype are computed."""
    narrow = layout.state == "bfloat16" or dtype in NARROW
    return jnp.dtype(jnp.float32) if narrow else jnp.dtype(dtype)


def at_flip(variant: str, old: Any, new: Any, worse: Any) -> Any:
    """Return a step's length at a sign change, from Δ_{t−1}, Δ_t and E_t > E_{t−1}."""
    match variant:
        case "rprop_plus":
            return old
        case "irprop_plus":
            return jnp.where(worse, old, 0)
        case "irprop_minus":
            return jnp.zeros_like(new)
    return new
