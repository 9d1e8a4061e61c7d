"""Leaky integrate-and-fire (LIF) neurons.

Notation: v is the membrane potential, z the spikes (0 or 1), x the input, W and U are
weights, where U has no self-connections, and v_th is the threshold. τ is a time
constant in steps, and H the Heaviside step function with H(0) = 1.

    v_t = α v_{t−1} + ζ (x_t W + z_{t−1} U) − v_th z_{t−1},    α = exp(−1/τ)
    z_t = H(v_t − v_th), or 0 while the neuron is refractory

The derivative of H is 0 almost everywhere. A surrogate derivative s replaces it:

    ∂z_t/∂v_t := s(u_t)/v_th, or 0 while refractory;    u_t = (v_t − v_th)/v_th

Gradients take the reset −v_th z_{t−1} as a constant.
"""

from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import cast_like
from bpvariants.cells import _spikes
from bpvariants.cells._cell import Cell
from bpvariants.cells._spikes import Constant, Surrogate, triangular
from bpvariants.types import PyTree


class LifState(NamedTuple):
    """Carry of :func:`lif`.

    Attributes:
      potential: membrane potential v, [*batch, n].
      refractory: counters r, integers [*batch, n]. The neuron cannot spike in the next
        r − 1 steps.
      spikes: spikes z of the last step, [*batch, n].
    """

    potential: jax.Array
    refractory: jax.Array
    spikes: jax.Array


class Lif(Cell):
    """Leaky integrate-and-fire neurons; `lif(params, carry, x)` is one time step.

        v_t = α v_{t−1} + ζ (x_t W + z_{t−1} U) − v_th z_{t−1},    α = exp(−1/τ)
        z_t = 1 if v_t ≥ v_th and the neuron is not refractory, else 0;    y_t = z_t

    v is the membrane potential, z the spikes, x the input, and v_th the threshold. W
    and U are weights; the diagonal of U has no effect, so no neuron is connected to
    itself. Backward passes replace the derivative of a spike by a surrogate
    derivative, so they compute no true derivative of the loss. They do not follow the
    reset −v_th z_{t−1}. If the memory should last longer than τ, use :func:`alif`. If
    spikes are not needed, `gru` usually learns more easily.

    To set the constants, use `functools.partial(cells.lif, tau=30.0)`. For
    :func:`~bpvariants.gradients.eprop`, the visible part of the carry is its
    `spikes`. A step takes 2 n (n + d) floating-point operations for each example, not
    counting elementwise operations.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state, a `LifState`. Its dtype must be float32 or wider: in
        bfloat16, small inputs would not change a potential near the threshold.
      x: input x_t, [*batch, d].
      tau: time constant τ of the potential, in steps: a number, or an array [n].
      threshold: v_th, a number or an array [n].
      normalise: False for ζ = 1; True for ζ = 1 − α, so that a constant input moves
        the potential towards x W.
      refractory: after a spike at step t, the neuron cannot spike before step
        t + refractory; 0 and 1 have no effect.
      surrogate: elementwise function s of u = (v − v_th)/v_th. The derivative
        ∂z/∂v is s(u)/v_th, or 0 while the neuron is refractory.

    Returns:
      The new carry, and the spikes z_t [*batch, n].

    Raises:
      ValueError: if a constant is not positive, the surrogate is not a function, or
        the carry is not as described above.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.lif.init(jax.random.key(0), 3, 16)
      >>> step = partial(cells.lif, tau=10.0, threshold=0.5, refractory=3)
      >>> carry = cells.lif.carry(params)
      >>> carry, spikes = gradients.unroll(step, params, carry, jnp.ones((50, 3)))
      >>> spikes.shape, set(spikes.ravel().tolist()) == {0.0, 1.0}
      ((50, 16), True)

    References:
      Bellec et al., "A solution to the learning dilemma for recurrent networks of
      spiking neurons", Nature Communications 11, 2020,
      doi:10.1038/s41467-020-17236-y.
    """

    def __call__(
        self,
        params: PyTree,
        carry: LifState,
        x: jax.Array,
        *,
        tau: Constant = 20.0,
        threshold: Constant = 1.0,
        normalise: bool = False,
        refractory: int = 0,
        surrogate: Surrogate = triangular,
    ) -> tuple[LifState, jax.Array]:
        _spikes.check_step("lif", params, carry, x, LifState)
        _spikes.check_settings(normalise, refractory, surrogate)
        old = LifState(*carry)
        alpha = _spikes.decay("tau", tau, old.potential)
        v_th = _spikes.positive("threshold", threshold, old.potential)
        v = _spikes.potential(params, old, x, alpha, v_th, normalise)
        z, left = _spikes.fire(v, v_th, v_th, old.refractory, refractory, surrogate)
        return cast_like(LifState(v, left, z), old), z

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, jax.Array]:
        """Draw the weights of `lif`: W from N(0, 1/d), U from N(0, 1/n).

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of neurons.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of arrays: "inputs" is W [d, n], and "recurrent" is U [n, n], whose
          diagonal is 0.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.lif.init(jax.random.key(0), 3, 16)
          >>> params["inputs"].shape, params["recurrent"].shape
          ((3, 16), (16, 16))
        """
        return _spikes.draw(key, inputs, units, dtype)

    @staticmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> LifState:
        """Return the carry of `lif` before the first step: zeros, float32 or wider.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.lif.init(jax.random.key(0), 3, 16)
          >>> cells.lif.carry(params, (5,)).potential.shape
          (5, 16)
        """
        zeros, integers = _spikes.zeros("lif", params, batch_shape)
        return LifState(zeros, integers, zeros)


lif = Lif("lif")
