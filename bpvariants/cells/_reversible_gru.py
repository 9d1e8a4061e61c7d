"""A gated recurrent unit whose step has an inverse (RevGRU).

Notation: the state consists of two halves a and b. x is the input; W and U are weight
matrices, c are biases, and σ is the logistic function. κ = 7/8 is the least update
gate. The first half step reads b, and the second one reads the new a:

    z = κ + (1 − κ) σ(x_t W_z + b_{t−1} U_z + c_z)
    g = tanh(x_t W_g + b_{t−1} U_g + c_g)
    a_t = z ⊙ a_{t−1} + (1 − z) ⊙ g
    b_t = z′ ⊙ b_{t−1} + (1 − z′) ⊙ g′,    where z′ and g′ read x_t and a_t

Each half step has an inverse, because its gates do not read the half that it changes:

    b_{t−1} = (b_t − (1 − z′) ⊙ g′) / z′,    a_{t−1} = (a_t − (1 − z) ⊙ g) / z
"""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like
from bpvariants.cells import _dense
from bpvariants.cells._cell import Cell, check_init, check_widths, params_of
from bpvariants.types import PyTree

LEAST = 7 / 8  # κ


class ReversibleGru(Cell):
    """Reversible GRU; `reversible_gru(params, carry, x)` is one time step.

        z = κ + (1 − κ) σ(x_t W_z + b U_z + c_z),    g = tanh(x_t W_g + b U_g + c_g)
        a_t = z ⊙ a + (1 − z) ⊙ g,    κ = 7/8;    then b_t likewise, from a_t

    a and b are the two halves of the state, z is the update gate and g the candidate.
    The method `inverse` computes the old state from the new one. So
    `gradients.bptt(…, backward="reversible")` needs memory that does not depend on the
    length of the sequence.

    Prefer `gru` if the memory of `bptt`, or of its remat policies, suffices: `gru` can
    forget at once, whereas this cell forgets at most 1/8 of its state at each step. An
    inverse step divides rounding errors by z. Therefore the states of long sequences
    cannot be recovered, and the gradient is then NaN: see `bptt`. A step takes
    8 n (n + d) floating-point operations for each example, not counting elementwise
    operations, for 2 n units in all.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state (a, b), a pair of arrays [*batch, n].
      x: input x_t, [*batch, d].

    Returns:
      The new carry (a_t, b_t), and both halves in one array [*batch, 2n].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.reversible_gru.init(jax.random.key(0), 3, 16)
      >>> carry, x = cells.reversible_gru.carry(params), jnp.ones(3)
      >>> new, y = cells.reversible_gru(params, carry, x)
      >>> old = cells.reversible_gru.inverse(params, new, x)
      >>> y.shape, all(jnp.allclose(half, 0, atol=1e-6) for half in old)
      ((32,), True)

    References:
      MacKay et al., "Reversible recurrent neural networks", NeurIPS 2018,
      arXiv:1810.10999 (RevGRU, here without reset gates).
    """

    def __call__(
        self, params: PyTree, carry: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        first, second = _halves(params, carry, x)
        a, b = carry
        z, g = _gates(first, b, x)
        a = cast_like(z * a + (1 - z) * g, a)
        z, g = _gates(second, a, x)
        b = cast_like(z * b + (1 - z) * g, b)
        return (a, b), jnp.concatenate([a, b], axis=-1)

    @staticmethod
    def inverse(
        params: PyTree, carry: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the carry before a step, from the carry after it and the step's x.

        The result is exact up to rounding errors, which the division by z magnifies.

        Args:
          params: the parameters of the cell.
          carry: the new state (a_t, b_t).
          x: the input x_t of the step.
        """
        first, second = _halves(params, carry, x)
        a, b = carry
        z, g = _gates(second, a, x)
        b = cast_like((b - (1 - z) * g) / z, b)
        z, g = _gates(first, b, x)
        return cast_like((a - (1 - z) * g) / z, a), b

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, dict[str, jax.Array]]:
        """Draw the parameters: W from N(0, 1/d), U from N(0, 1/n), biases 0.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units of each half.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of two dicts, "first" and "second", of the parameters of each half:
          "inputs" is W [d, 2n], "recurrent" is U [n, 2n], and "bias" is c [2n].

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.reversible_gru.init(jax.random.key(0), 3, 16)
          >>> params["first"]["inputs"].shape, params["second"]["recurrent"].shape
          ((3, 32), (16, 32))
        """
        check_init(key, dtype, inputs, units=units)
        keys = jax.random.split(key)
        draw = lambda key: _dense.draw(key, inputs, units, 2, dtype)
        return {"first": draw(keys[0]), "second": draw(keys[1])}

    @staticmethod
    def carry(
        params: PyTree, batch_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Return the carry of `reversible_gru` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.reversible_gru.init(jax.random.key(0), 3, 16)
          >>> [half.shape for half in cells.reversible_gru.carry(params, (5,))]
          [(5, 16), (5, 16)]
        """
        (first,) = params_of("reversible_gru", params, ("first",))
        zeros = _dense.zeros("reversible_gru", first, batch_shape)
        return zeros, zeros


reversible_gru = ReversibleGru("reversible_gru")


def _halves(params: PyTree, carry: PyTree, x: Any) -> list[PyTree]:
    """Return the parameters of both half steps; check them, the carry and x."""
    halves = params_of("reversible_gru", params, ("first", "second"))
    for half in halves:
        names = ("inputs", "recurrent", "bias")
        inputs, recurrent, _ = params_of("reversible_gru", half, names)
        sizes = inputs.shape[0], recurrent.shape[0]
        check_widths("reversible_gru", carry, x, *sizes, "(a, b)")
    return halves


def _gates(
    params: PyTree, other: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return z and g of a half step that reads the half `other`."""
    of_x = _dense.affine(x, params["inputs"], params["bias"])
    z, g = jnp.split(of_x + other @ params["recurrent"], 2, axis=-1)
    return LEAST + (1 - LEAST) * jax.nn.sigmoid(z), jnp.tanh(g)
