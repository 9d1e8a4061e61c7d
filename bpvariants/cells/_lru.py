"""Linear recurrent unit (LRU): a diagonal complex linear recurrence and a readout.

Notation: h is the complex state [n], x is the input [d], and y is the output [m]. γ is
the gain of the input, and B, C and D are matrices. The eigenvalues λ [n] are inside the
unit circle for all real parameters ν and φ. All parameters are real: each complex
matrix is stored as two real matrices.

    h_t = λ ⊙ h_{t−1} + γ ⊙ (B x_t),    λ = exp(−exp(ν) + i exp(φ)),  γ = exp(log γ)
    y_t = Re(C h_t) + D x_t
"""

import math
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


class Lru(Cell):
    """Linear recurrent unit (LRU); `lru(params, carry, x)` is one time step.

        h_t = λ ⊙ h_{t−1} + γ ⊙ (B x_t),    y_t = Re(C h_t) + D x_t

    Here h_t is the complex state, and λ are the eigenvalues of the recurrence. γ is the
    gain of the input x_t, and B, C and D are matrices. The carry has one of two forms,
    which give the same outputs. A single complex array works with
    `gradients.parallel_unroll(…, method="linear")`. A pair of real arrays, the real
    part and the imaginary part of the state, works with `gradients.rtrl`, which accepts
    only real carries. With n state elements, d inputs and m outputs, a step takes 4 n
    (d + m) + 2 d m floating-point operations for each example, not counting elementwise
    operations. `lru` computes in float32 or a wider dtype.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state h_{t−1}, a complex array [*batch, n], or a pair of real
        arrays of this shape.
      x: input x_t, [*batch, d].

    Returns:
      The new carry h_t, in the form of the given carry, and the output y_t [*batch, m].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.lru.init(jax.random.key(0), 3, 16, 2)
      >>> carry = cells.lru.carry(params)
      >>> (carry, ys), info = gradients.parallel_unroll(
      ...     cells.lru, params, carry, jnp.ones((1000, 3)), method="linear"
      ... )
      >>> ys.shape, info.converged.item()
      ((1000, 2), True)

    References:
      Orvieto et al., "Resurrecting recurrent neural networks for long sequences",
      ICML 2023.
    """

    def __call__(
        self, params: PyTree, carry: PyTree, x: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        (matrix,) = params_of("lru", params, ("in_real",))
        is_pair = isinstance(carry, tuple)
        parts = "(Re h, Im h)" if is_pair else ""
        inputs, units = matrix.shape
        check_widths("lru", carry, x, inputs, units, parts)
        p, wide = widen(params), widen(x)
        row = lambda leaf: leaf.reshape((1,) * (wide.ndim - 1) + leaf.shape)
        decay, angle = jnp.exp(-jnp.exp(p["log_decay"])), jnp.exp(p["log_angle"])
        eigenvalue = jax.lax.complex(decay * jnp.cos(angle), decay * jnp.sin(angle))
        gain = row(jnp.exp(p["log_gain"]))
        entering = (gain * (wide @ part) for part in (p["in_real"], p["in_imag"]))
        h = jax.lax.complex(*carry) if is_pair else carry
        h = row(eigenvalue) * h + jax.lax.complex(*entering)
        y = h.real @ p["out_real"] - h.imag @ p["out_imag"] + wide @ p["skip"]
        new = (h.real, h.imag) if is_pair else h
        return new, cast_like(y, x)

    @staticmethod
    def init(
        key: jax.Array,
        inputs: int,
        units: int,
        outputs: int | None = None,
        *,
        min_radius: float = 0.9,
        max_radius: float = 0.999,
        max_angle: float = 2 * math.pi,
        dtype: Any = None,
    ) -> dict[str, jax.Array]:
        """Draw the parameters of `lru`: λ uniform in a ring, and γ = √(1 − |λ|²).

        λ are the complex eigenvalues of the recurrence, and γ is the gain of the input.
        If the input is white noise, γ = √(1 − |λ|²) gives the state the same variance
        for every |λ|. All weights are normally distributed. The real and imaginary
        parts of the input matrix B have variance 1/(2d). The real and imaginary parts
        of the output matrix C have variance 1/n, and the skip matrix D has variance
        1/d. For a longer memory, increase min_radius.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of complex elements in the carry of one example.
          outputs: number m of outputs, which is the length of the last axis of y.
            Default: n.
          min_radius: the smallest absolute value of the eigenvalues λ, at least 0.
          max_radius: the largest absolute value of the eigenvalues λ, below 1.
          max_angle: the largest angle of the eigenvalues λ in radians; a smaller angle
            gives slower oscillations.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of real arrays: log_decay (ν), log_angle (φ) and log_gain [n]; in_real
          and in_imag [d, n]; out_real and out_imag [n, m]; skip [d, m].

        Raises:
          ValueError: unless 0 ≤ min_radius < max_radius < 1 and max_angle > 0.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from bpvariants import cells
          >>> params = cells.lru.init(jax.random.key(0), 3, 16, 2, min_radius=0.5)
          >>> radii = jnp.exp(-jnp.exp(params["log_decay"]))
          >>> bool(jnp.all((0.5 <= radii) & (radii <= 0.999)))
          True
        """
        outputs = units if outputs is None else outputs
        check_init(key, dtype, inputs, units=units, outputs=outputs)
        keys = iter(jax.random.split(key, 7))
        log_decay, log_angle, squared = draw_ring(
            (next(keys), next(keys)), units, min_radius, max_radius, max_angle
        )
        normal = lambda *shape, scale: scale * jax.random.normal(next(keys), shape)
        into, out = input_scale(inputs), 1 / math.sqrt(max(units, 1))
        params = {
            "log_decay": log_decay,
            "log_angle": log_angle,
            "log_gain": 0.5 * jnp.log1p(-squared),
            "in_real": normal(inputs, units, scale=into),
            "in_imag": normal(inputs, units, scale=into),
            "out_real": normal(units, outputs, scale=out),
            "out_imag": normal(units, outputs, scale=out),
            "skip": normal(inputs, outputs, scale=math.sqrt(2) * into),
        }
        return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)

    @staticmethod
    def carry(
        params: PyTree, batch_shape: tuple[int, ...] = (), *, complex: bool = True
    ) -> PyTree:
        """Return the carry of `lru` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.
          complex: True for one complex array; False for a pair of real arrays, the real
            and imaginary part, which `gradients.rtrl` needs.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.lru.init(jax.random.key(0), 3, 16, 2)
          >>> cells.lru.carry(params, (5,)).dtype
          dtype('complex64')
          >>> [part.shape for part in cells.lru.carry(params, (5,), complex=False)]
          [(5, 16), (5, 16)]
        """
        (like,) = map(widen, params_of("lru", params, ("log_decay",)))
        batch = check_batch_shape(batch_shape)
        zeros = jnp.zeros((*batch, *like.shape), like.dtype)
        return jax.lax.complex(zeros, zeros) if complex else (zeros, zeros)


lru = Lru("lru")
