"""Leaky integrate-and-fire neurons with adaptive thresholds (ALIF).

Notation as in `_lif.py`. A is the threshold, a the adaptation, τ_a its time constant,
and β the weight of the adaptation. The potential v is that of LIF neurons.

    A_t = v_th + β a_t,    a_{t+1} = ρ a_t + z_t,    ρ = exp(−1/τ_a)
    z_t = H(v_t − A_t), or 0 while the neuron is refractory

    ∂z_t/∂v_t := s(u_t)/v_th,    ∂z_t/∂A_t := −s(u_t)/v_th,    u_t = (v_t − A_t)/v_th

s is the surrogate derivative. Both derivatives are 0 while the neuron is refractory.
"""

from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import cast_like
from bpvariants._settings import check_number
from bpvariants.cells import _spikes
from bpvariants.cells._cell import Cell
from bpvariants.cells._spikes import Constant, Surrogate, triangular
from bpvariants.types import PyTree


class AlifState(NamedTuple):
    """Carry of :func:`alif`.

    Attributes:
      potential: membrane potential v, [*batch, n].
      adaptation: a, which already includes the spikes of the last step, [*batch, n].
      refractory: counters r, integers [*batch, n]. The neuron cannot spike in the next
        r − 1 steps.
      spikes: spikes z of the last step, [*batch, n].
    """

    potential: jax.Array
    adaptation: jax.Array
    refractory: jax.Array
    spikes: jax.Array


class Alif(Cell):
    """LIF neurons with adaptive thresholds; `alif(params, carry, x)` is one time step.

        v_t = α v_{t−1} + ζ (x_t W + z_{t−1} U) − v_th z_{t−1},    α = exp(−1/τ)
        z_t = 1 if v_t ≥ v_th + β a_t and the neuron is not refractory, else 0
        a_{t+1} = ρ a_t + z_t,    ρ = exp(−1/τ_a),    y_t = z_t

    a is the adaptation; the other symbols are those of :func:`lif`. Each spike raises
    the neuron's threshold, which falls back with the time constant τ_a. A neuron
    therefore remembers for about τ_a steps that it has spiked. If nothing must be
    remembered for longer than τ, :func:`lif` is cheaper. For a mixture of both kinds,
    give an array `beta` with zeros for neurons without adaptation.

    The carry already contains a_{t+1}. :func:`~bpvariants.gradients.eprop` with
    `visible=lambda carry: carry.spikes` therefore follows the path from a spike to the
    neuron's own threshold, as in Bellec et al. 2020. The costs are those of `lif`.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state, an `AlifState` of dtype float32 or wider.
      x: input x_t, [*batch, d].
      tau: time constant τ of the potential, in steps: a number, or an array [n].
      tau_adaptation: time constant τ_a of the adaptation, in steps.
      beta: β, by how much one spike raises the threshold: a number, or an array [n].
      threshold: v_th, the threshold without adaptation.
      normalise: False for ζ = 1, True for ζ = 1 − α.
      refractory: as in `lif`.
      surrogate: elementwise function s of u = (v − A)/v_th with the threshold
        A = v_th + β a. The derivatives are ∂z/∂v = s(u)/v_th and ∂z/∂A = −s(u)/v_th.

    Returns:
      The new carry, and the spikes z_t [*batch, n].

    Raises:
      ValueError: in the cases in which :func:`lif` raises one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.alif.init(jax.random.key(0), 3, 16)
      >>> carry = cells.alif.carry(params)
      >>> carry, spikes = gradients.unroll(
      ...     cells.alif, params, carry, jnp.ones((50, 3))
      ... )
      >>> spikes.shape, carry.adaptation.shape
      ((50, 16), (16,))

    References:
      Bellec et al., "A solution to the learning dilemma for recurrent networks of
      spiking neurons", Nature Communications 11, 2020,
      doi:10.1038/s41467-020-17236-y.
    """

    def __call__(
        self,
        params: PyTree,
        carry: AlifState,
        x: jax.Array,
        *,
        tau: Constant = 20.0,
        tau_adaptation: Constant = 200.0,
        beta: Constant = 0.1,
        threshold: Constant = 1.0,
        normalise: bool = False,
        refractory: int = 0,
        surrogate: Surrogate = triangular,
    ) -> tuple[AlifState, jax.Array]:
        _spikes.check_step("alif", params, carry, x, AlifState)
        _spikes.check_settings(normalise, refractory, surrogate)
        old = AlifState(*carry)
        like = old.potential
        alpha = _spikes.decay("tau", tau, like)
        rho = _spikes.decay("tau_adaptation", tau_adaptation, like)
        v_th = _spikes.positive("threshold", threshold, like)
        check_number("beta", beta)
        A = v_th + _spikes.per_neuron(beta, like) * old.adaptation
        v = _spikes.potential(params, old, x, alpha, v_th, normalise)
        z, left = _spikes.fire(v, A, v_th, old.refractory, refractory, surrogate)
        return cast_like(AlifState(v, rho * old.adaptation + z, left, z), old), z

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, jax.Array]:
        """Draw the weights of `alif`, like those of `lif`.

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
          >>> params = cells.alif.init(jax.random.key(0), 3, 16)
          >>> params["inputs"].shape, params["recurrent"].shape
          ((3, 16), (16, 16))
        """
        return _spikes.draw(key, inputs, units, dtype)

    @staticmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> AlifState:
        """Return the carry of `alif` before the first step: zeros, float32 or wider.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.alif.init(jax.random.key(0), 3, 16)
          >>> cells.alif.carry(params, (5,)).adaptation.shape
          (5, 16)
        """
        zeros, integers = _spikes.zeros("alif", params, batch_shape)
        return AlifState(zeros, zeros, integers, zeros)


alif = Alif("alif")
