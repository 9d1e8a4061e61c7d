"""A free phase, one or two perturbed phases, and the gradient from their difference.

Equilibrium propagation and coupled learning differ only in how the second phase is
perturbed: by a force on the state, or by clamped outputs.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from bpvariants._tables import in_short, short
from bpvariants.gradients.equilibrium._asymmetry import asymmetry_of, warn_if_asymmetric
from bpvariants.gradients.equilibrium._nudging import contrast, finite, minus, ratio
from bpvariants.gradients.equilibrium._nudging_checks import Kind
from bpvariants.types import PyTree

Move = Callable[[PyTree], PyTree]  # one step of the state, h -> h


class Phases(NamedTuple):
    """States and convergence of two phases, a free and a nudged or clamped one.

    :func:`equilibrium_propagation` and :func:`coupled_learning` return them.

    Attributes:
      h: state after the free phase, leaves [*batch, ...].
      nudged: state h^β after the nudged phase, with the shapes of h. In coupled
        learning, β is η, and the outputs are clamped in this phase.
      opposite: state h^−β after the phase with nudging −β; None if one-sided.
      residual: [*batch], ‖f(h) − h‖ / ‖h‖ after the free phase, where f is one step. If
        it is not small compared with β, give more free_steps.
      nudged_residual: [*batch], the change of h^β in one more step, divided by
        ‖h^β − h‖. If it is not small, lags above nudged_steps are missing.
      asymmetry: ‖J − Jᵀ‖ / ‖J‖ of the Jacobian J of a map, estimated with 4 random
        vectors; None for a primitive function, whose Jacobian is always symmetric.
    """

    h: PyTree
    nudged: PyTree
    opposite: PyTree | None
    residual: jax.Array
    nudged_residual: jax.Array
    asymmetry: jax.Array | None

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def _words(self) -> str:
        largest = lambda values: short(jnp.max(values)) if values.size else "0"
        text = f"residual={largest(self.residual)}"
        text += f", nudged_residual={largest(self.nudged_residual)}"
        if self.asymmetry is not None:
            text += f", asymmetry={short(self.asymmetry)}"
        return text


class EquilibriumPropagationRule(Protocol):
    """Type of the function that :func:`equilibrium_propagation` returns.

    :func:`coupled_learning` returns a function of the same type.
    """

    def __call__(
        self,
        params: PyTree,
        init: PyTree,
        x: PyTree,
        target: PyTree,
        weights: jax.typing.ArrayLike | None = None,
    ) -> tuple[tuple[jax.Array, Phases], PyTree]:
        """Return ((value, phases), grads); `value` is the weighted mean loss.

        Args:
          params: any pytree of floating arrays.
          init: first state h of the free phase, leaves [*batch, ...].
          x: inputs, leaves [*batch, ...].
          target: values with which the outputs are compared, leaves [*batch, ...].
          weights: [*batch] real, weight of each loss in the mean. Default: 1.
        """
        ...


def compare_phases(
    function: Callable[[PyTree, PyTree, PyTree], PyTree],
    kind: Kind,
    params: PyTree,
    init: PyTree,
    x: PyTree,
    shares: jax.Array,
    step: Move,
    perturbed: Callable[[PyTree], Callable[[float | jax.Array], Move]],
    *,
    strength: float | jax.Array,
    symmetric: bool,
    free_steps: int,
    nudged_steps: int,
    batch_ndim: int,
) -> tuple[Phases, PyTree]:
    """Run all phases; return them, and the contrast divided by the strength.

    Args:
      function: Φ or f, as `kind` says.
      kind: "primitive" or "map".
      params: parameters of function.
      init: first state of the free phase.
      x: inputs.
      shares: share of each example in the mean, [*batch], or a scalar.
      step: one step of the free phase.
      perturbed: function h* -> step_at, where step_at(β) is one step of the phase of
        strength β.
      strength: β, or η in coupled learning.
      symmetric: whether there is a phase with −β, instead of the free state.
      free_steps: number of steps of the free phase.
      nudged_steps: number of steps of each perturbed phase.
      batch_ndim: number of batch axes.
    """
    h = _relax(step, free_steps, init)
    step_at = perturbed(h)
    nudged = _relax(step_at(strength), nudged_steps, h)
    opposite = _relax(step_at(-strength), nudged_steps, h) if symmetric else None
    start, width = (opposite, 2 * strength) if symmetric else (h, strength)
    x, states = finite(shares, x, (h, start, nudged), batch_ndim)
    grads = contrast(function, kind, params, x, shares, *states)
    grads = jax.tree.map(lambda leaf: leaf / jnp.asarray(width, leaf.dtype), grads)
    asymmetry = None
    if kind == "map":
        asymmetry = asymmetry_of(lambda h: function(params, h, x), states[0])
        warn_if_asymmetric(asymmetry, h)
    residual = ratio(minus(step(h), h), h, batch_ndim)
    late = minus(step_at(strength)(nudged), nudged)
    late = ratio(late, minus(nudged, h), batch_ndim)
    return Phases(h, nudged, opposite, residual, late, asymmetry), grads


def _relax(step: Move, steps: int, h: PyTree) -> PyTree:
    return jax.lax.fori_loop(0, steps, lambda _, h: step(h), h)
