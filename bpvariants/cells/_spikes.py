"""Parts that `lif` and `alif` share: potential, spikes, and checks of their arguments.

The module docstrings of `_lif.py` and `_alif.py` have the equations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import are_numbers, check_count, check_function
from bpvariants._dtypes import NARROW, widen
from bpvariants._settings import check_flag, check_number, described
from bpvariants.cells import _dense
from bpvariants.cells._cell import check_batch_shape, params_of
from bpvariants.types import PyTree

# A constant, or an array [n] with one constant for each neuron.
Constant = jax.typing.ArrayLike
Surrogate = Callable[[jax.Array], jax.Array]
NAMES = "inputs", "recurrent"


def triangular(distance: jax.Array, peak: float = 0.3) -> jax.Array:
    """Return the surrogate derivative of a spike: a triangle around the threshold.

        s(u) = γ max(0, 1 − |u|)

    This is the surrogate derivative of Bellec et al. 2020. For another peak, use
    `functools.partial(cells.triangular, peak=0.5)`. As a surrogate, `lif` and `alif`
    accept any elementwise function of u.

    Args:
      distance: u = (v − A)/v_th, where v is the potential, A the threshold, and v_th
        the threshold without adaptation.
      peak: γ, the value at the threshold. The smaller γ is, the faster gradients
        decay backwards through the spikes.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import cells
      >>> cells.triangular(jnp.array([-1.0, -0.5, 0.0, 2.0]), peak=0.5).tolist()
      [0.0, 0.25, 0.5, 0.0]
    """
    return peak * jnp.maximum(0, 1 - jnp.abs(distance))


def potential(
    params: PyTree, old: Any, x: Any, decay: Any, threshold: Any, normalise: bool
) -> jax.Array:
    """Return the new potential v; gradients take its reset as a constant."""
    inputs, recurrent = widen([params[name] for name in NAMES])
    others = recurrent * (1 - np.eye(len(recurrent), dtype=recurrent.dtype))
    current = widen(x) @ inputs + old.spikes @ others
    gain = 1 - decay if normalise else 1
    reset = jax.lax.stop_gradient(threshold * old.spikes)
    return decay * old.potential + gain * current - reset


def fire(
    v: jax.Array,
    threshold: jax.Array,
    scale: jax.Array,
    left: jax.Array,
    refractory: int,
    surrogate: Surrogate,
) -> tuple[jax.Array, jax.Array]:
    """Return the spikes, and the new counters of the refractory period."""
    left = jnp.maximum(left - 1, 0)
    fired = _spike(surrogate, (v - threshold) / scale)
    z = jnp.where(left > 0, jnp.zeros_like(fired), fired)
    return z, jnp.where(z > 0, jnp.asarray(refractory, left.dtype), left)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spike(surrogate: Surrogate, distance: jax.Array) -> jax.Array:
    return (distance >= 0).astype(distance.dtype)


@_spike.defjvp
def _spike_jvp(surrogate, primals, tangents):
    (distance,), (tangent,) = primals, tangents
    slope = surrogate(distance)
    if jnp.shape(slope) != distance.shape:
        raise ValueError(
            "surrogate must be elementwise: for an array of shape "
            f"{distance.shape}, it returned {described(slope)}."
        )
    return _spike(surrogate, distance), tangent * slope.astype(distance.dtype)


def decay(name: str, tau: Constant, like: jax.Array) -> jax.Array:
    """Return exp(−1/τ) of a time constant τ in steps."""
    return jnp.exp(-1 / positive(name, tau, like))


def positive(name: str, value: Constant, like: jax.Array) -> jax.Array:
    """Check that a constant is positive, and return it in the dtype of `like`."""
    check_number(name, value)
    known = are_numbers(value) or isinstance(value, np.ndarray)
    if known and not np.all(np.asarray(value) > 0):
        unit = "; it is a number of time steps" if name.startswith("tau") else ""
        raise ValueError(f"{name} must be positive, got {value!r}{unit}.")
    shape = jnp.shape(value)
    if shape not in ((), like.shape[-1:]):
        raise ValueError(
            f"{name} must be a number or an array [{like.shape[-1]}], one number for "
            f"each neuron; got {described(value)}."
        )
    return per_neuron(value, like)


def per_neuron(value: Constant, like: jax.Array) -> jax.Array:
    """Return a constant, or an array [n] of constants, that multiplies [*batch, n]."""
    array = jnp.asarray(value, like.dtype)
    return jnp.expand_dims(array, tuple(range(like.ndim - 1))) if array.ndim else array


def check_settings(normalise: Any, refractory: Any, surrogate: Any) -> None:
    check_flag("normalise", normalise)
    check_count("refractory", refractory, 0, "it is a number of time steps")
    check_function("surrogate", surrogate, "(u) -> derivative of a spike")


def check_step(name: str, params: PyTree, carry: Any, x: Any, State: Any) -> None:
    """Check the shapes of a carry and an input, and that the carry is not narrow."""
    inputs, recurrent = params_of(name, params, NAMES)
    units, fields = recurrent.shape[0], len(State._fields)
    parts = list(carry) if isinstance(carry, tuple | list) else []
    widths = [jnp.shape(part)[-1:] for part in parts]
    if widths != [(units,)] * fields:
        raise ValueError(
            f"carry must be cells.{State.__name__}, {fields} arrays [*batch, {units}], "
            f"as cells.{name}.carry(params, batch_shape) returns for these params; got "
            f"{', '.join(map(described, parts)) or described(carry)}."
        )
    if any(jnp.result_type(part) in NARROW for part in parts):
        raise ValueError(
            f"carry must be float32 or wider, got {jnp.result_type(parts[0])}: a "
            "potential near the threshold loses small inputs, so spikes would be "
            f"wrong. Use cells.{name}.carry(params), which is float32 also for "
            "parameters in bfloat16."
        )
    if jnp.shape(x)[-1:] != inputs.shape[:1]:
        raise ValueError(
            f"x must be an array [*batch, {inputs.shape[0]}], because these params are "
            f"from cells.{name}.init(key, inputs={inputs.shape[0]}, units={units}); "
            f"got {described(x)}."
        )


def draw(key: jax.Array, inputs: int, units: int, dtype: Any) -> dict[str, jax.Array]:
    """Draw weights "inputs" [d, n], and "recurrent" [n, n] without a diagonal."""
    params = _dense.draw(key, inputs, units, 1, dtype)
    weights = params["recurrent"]
    off_diagonal = 1 - jnp.eye(units, dtype=weights.dtype)
    return {"inputs": params["inputs"], "recurrent": weights * off_diagonal}


def zeros(
    name: str, params: PyTree, batch_shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Return zeros [*batch, n], float32 or wider, and as integers."""
    (like,) = map(widen, params_of(name, params, ("recurrent",)))
    shape = (*check_batch_shape(batch_shape), like.shape[0])
    return jnp.zeros(shape, like.dtype), jnp.zeros(shape, jnp.int32)
