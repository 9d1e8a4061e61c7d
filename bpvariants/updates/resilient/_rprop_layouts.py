"""Formats in which Rprop's state stores step sizes and signs: 2 to 8 bytes a parameter.

Two files implement one step of Rprop for one array of parameters. `_rprop_plain.py`
stores the step sizes and the signs in separate arrays, and computes the equations of
`_rprop.py` directly. `_rprop_packed.py` stores step sizes and signs in one array, and
computes the same update by operations on the bit patterns of the floats.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import NARROW

Kept: TypeAlias = tuple[jax.Array, Any]  # (step sizes, signs), or (both packed, None)

LAYOUTS = ("float32", "int8_sign", "packed", "bfloat16")
PACKED = ("packed", "bfloat16")
KEEPS_SIGN = ("rprop_minus", "manhattan")  # others store 0 at a sign change


@dataclass(frozen=True)
class RpropLayout:
    """Layout of an optimizer's state, and the optimizer's variant of Rprop.

    Attributes:
      state: name of the layout, "float32", "int8_sign", "packed" or "bfloat16".
      variant: name of the variant of Rprop, such as "irprop_minus".
    """

    state: str
    variant: str

    @property
    def rests(self) -> bool:
        """Whether the stored sign s becomes 0 when the gradient changes its sign."""
        return self.variant not in KEEPS_SIGN


class Numbers(NamedTuple):
    """Settings of Rprop, for one array of params or for all params.

    Settings for all params are stored as the user gave them. Settings for one array are
    cast to the dtype of the array's step sizes. The bounds of the step sizes are
    rounded like the step sizes.
    """

    eta_minus: Any
    eta_plus: Any
    min_step_size: Any
    max_step_size: Any


class Seen(NamedTuple):
    """Step sizes and sign changes of the last step, as read from a state."""

    step_sizes: jax.Array  # step sizes of the last step
    flipped: jax.Array | None  # whether each gradient changed its sign, if recorded


def computing(dtype: Any, layout: RpropLayout) -> Any:
    """Return the dtype in which step sizes are computed for params of dtype `dtype`."""
    narrow = layout.state == "bfloat16" or dtype in NARROW
    return jnp.dtype(jnp.float32) if narrow else jnp.dtype(dtype)


def at_flip(variant: str, old: Any, new: Any, worse: Any) -> Any:
    """Return the length of a step at which the gradient changes its sign.

    `old` and `new` are the step sizes before and after the gradient's change of sign,
    and `worse` says whether the loss has grown since the last step.
    """
    match variant:
        case "rprop_plus":
            return old
        case "irprop_plus":
            return jnp.where(worse, old, 0)
        case "irprop_minus":
            return jnp.zeros_like(new)
    return new
