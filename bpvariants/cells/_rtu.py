"""Recurrent trace unit (RTU): pairs of real state variables that rotate and decay.

Notation: c¹ [n] and c² [n] are the two parts of the state, x is the input [d], and y is
the output [2n]. f is the activation function, and γ is the gain of the input. Each unit
has a radius r and an angle θ, computed from parameters ν and φ; r < 1 for every ν. The
equations of the linear unit are

    c¹_t = g ⊙ c¹_{t−1} − k ⊙ c²_{t−1} + γ ⊙ (W¹ x_t),    g = r cos θ,  r = exp(−exp(ν))
    c²_t = g ⊙ c²_{t−1} + k ⊙ c¹_{t−1} + γ ⊙ (W² x_t),    k = r sin θ,  θ = exp(φ)
    y_t = f([c¹_t, c²_t]),                                γ = √(1 − r²)

In the nonlinear unit, the activation f is inside the recurrence,

    c¹_t = f(g ⊙ c¹_{t−1} − k ⊙ c²_{t−1} + γ ⊙ (W¹ x_t)),   y_t = [c¹_t, c²_t],

and likewise for c²_t.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, widen
from bpvariants.cells._cell import (
    Cell,
    check_batch_shape,
    check_init,
    check_widths,
    params_of,
)
from bpvariants.cells._ring import draw_ring, input_scale
from bpvariants.types import PyTree


class Rtu(Cell):
    """Recurrent trace unit (RTU); `rtu(params, carry, x)` is one time step.

        c¹ ← g ⊙ c¹ − k ⊙ c² + γ ⊙ (W¹ x),    c² ← g ⊙ c² + k ⊙ c¹ + γ ⊙ (W² x)
        y = f([c¹, c²])

    Here c¹ and c² are the two parts of the state, W¹ and W² are weights, and f is the
    activation function. The factors g, k and γ are computed from a radius and an angle
    of each unit. `rtu` has the same recurrence as `lru`, but stores real arrays, and
    has no separate parameter for the gain γ. Like `gru`, `rtu` has no readout. With n
    units and d inputs, each element of the carry depends only on the 2d + 2 parameters
    of its unit. RTRL, the exact gradient forward in time, therefore stores 2n (2d + 2)
    array elements instead of 2n times the number of parameters: see
    :func:`~bpvariants.gradients.diagonal_rtrl`. A step takes 4 n d floating-point
    operations for each example, not counting elementwise operations. `rtu` computes in
    float32 or a wider dtype. To put the activation f inside the recurrence, use
    `functools.partial(cells.rtu, linear=False)`.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state, a pair (c¹, c²) of arrays [*batch, n].
      x: input x_t, [*batch, d].
      linear: True applies f only to the output; False applies f inside the recurrence.
      activation: elementwise function f, such as jnp.tanh or jax.nn.relu.

    Returns:
      The new carry, and the output y [*batch, 2n].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.rtu.init(jax.random.key(0), 3, 16)
      >>> carry, ys = gradients.unroll(
      ...     cells.rtu, params, cells.rtu.carry(params), jnp.ones((1000, 3))
      ... )
      >>> [part.shape for part in carry], ys.shape
      ([(16,), (16,)], (1000, 32))

    References:
      Elelimy et al., "Real-time recurrent learning using trace units in reinforcement
      learning", NeurIPS 2024, arXiv:2409.01449.
    """

    def __call__(
        self,
        params: PyTree,
        carry: tuple[jax.Array, jax.Array],
        x: jax.Array,
        *,
        linear: bool = True,
        activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        (matrix,) = params_of("rtu", params, ("in_real",))
        inputs, units = matrix.shape
        check_widths("rtu", carry, x, inputs, units, "(c1, c2)")
        p, wide = widen(params), widen(x)
        row = lambda leaf: leaf.reshape((1,) * (wide.ndim - 1) + leaf.shape)
        decay, angle = jnp.exp(p["log_decay"]), jnp.exp(p["log_angle"])
        radius, gain = jnp.exp(-decay), row(jnp.sqrt(-jnp.expm1(-2 * decay)))
        g, k = radius * jnp.cos(angle), radius * jnp.sin(angle)
        # `diagonal_rtrl` requires that each parameter affects both parts of its unit's
        # state within one time step, so compute both parts as one complex number.
        entering = (gain * (wide @ p[part]) for part in ("in_real", "in_imag"))
        c = row(jax.lax.complex(g, k)) * jax.lax.complex(*widen(carry))
        c = c + jax.lax.complex(*entering)
        new = c.real, c.imag
        active = activation(c.real), activation(c.imag)
        y = jnp.concatenate(active, axis=-1)
        return cast_like(new if linear else active, carry), cast_like(y, x)

    @staticmethod
    def init(
        key: jax.Array,
        inputs: int,
        units: int,
        *,
        min_radius: float = 0.0,
        max_radius: float = 0.999,
        max_angle: float = 2 * math.pi,
        dtype: Any = None,
    ) -> dict[str, jax.Array]:
        """Draw the parameters of `rtu`, with r exp(iθ) uniform in a ring.

        Here r is the radius, by which a unit's state decays per step, and θ is the
        angle of its rotation. The weights W¹ and W² are normally distributed with
        variance 1/(2d), for d inputs. For a longer memory, increase min_radius.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units; each unit has a pair (c¹, c²) in the carry.
          min_radius: the smallest radius r of a unit, at least 0.
          max_radius: the largest radius r of a unit, below 1.
          max_angle: the largest angle θ of a unit in radians; a smaller angle gives
            slower oscillations.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of arrays: "log_decay" is ν [n], "log_angle" is φ [n], "in_real" is W¹
          [d, n], and "in_imag" is W² [d, n].

        Raises:
          ValueError: unless 0 ≤ min_radius < max_radius < 1 and max_angle > 0.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.rtu.init(jax.random.key(0), 3, 16)
          >>> {name: leaf.shape for name, leaf in params.items()}["in_real"]
          (3, 16)
        """
        check_init(key, dtype, inputs, units=units)
        of_radius, of_angle, of_real, of_imag = jax.random.split(key, 4)
        log_decay, log_angle, _ = draw_ring(
            (of_radius, of_angle), units, min_radius, max_radius, max_angle
        )
        matrix = lambda key: (
            input_scale(inputs) * jax.random.normal(key, (inputs, units))
        )
        params = {
            "log_decay": log_decay,
            "log_angle": log_angle,
            "in_real": matrix(of_real),
            "in_imag": matrix(of_imag),
        }
        return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)

    @staticmethod
    def carry(
        params: PyTree, batch_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Return the carry of `rtu` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.rtu.init(jax.random.key(0), 3, 16)
          >>> [part.shape for part in cells.rtu.carry(params, (5,))]
          [(5, 16), (5, 16)]
        """
        (like,) = map(widen, params_of("rtu", params, ("log_decay",)))
        batch = check_batch_shape(batch_shape)
        zeros = jnp.zeros((*batch, *like.shape), like.dtype)
        return zeros, zeros


rtu = Rtu("rtu")
