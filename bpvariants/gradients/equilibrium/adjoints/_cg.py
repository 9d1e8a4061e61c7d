"""Conjugate gradients on the normal equations of the adjoint.

Notation: A = I − Jᵀ, where J is the Jacobian of f at the fixed point. b is the
cotangent of the fixed point, z is the adjoint, η is the ridge, and r = b − A z is the
residual. s is half the negative gradient of ‖r‖² + η ‖z‖², p is the search direction,
and α is the step length:

    [Aᵀ A + η I] z = Aᵀ b:    s = Aᵀ r − η z,    p ← s + p ‖s‖² / ‖s_before‖²
    α = ‖s‖² / (‖A p‖² + η ‖p‖²),    z ← z + α p,    r ← r − α A p
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_limits
from bpvariants._examples import norm, normalised, relative, squared_norm, times
from bpvariants._masking import select
from bpvariants._settings import check_no_text
from bpvariants.gradients.equilibrium._protocols import begin_at
from bpvariants.gradients.equilibrium._rounding import check_linear, reachable
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.types import PyTree


class _State(NamedTuple):
    z: PyTree
    r: PyTree  # residual b − A z
    p: PyTree
    gamma: jax.Array  # squared norm of s = Aᵀ r − η z
    cost: jax.Array  # ‖r‖² + η ‖z‖² with the ridge η; each step reduces it
    steps: jax.Array
    active: jax.Array


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class cg:
    """Exact adjoint by conjugate gradients on [(I − J)(I − Jᵀ) + ηI] z = (I − J) b.

    z is the adjoint, b is the cotangent of the fixed point, J is the Jacobian of f at
    the fixed point, and η is the ridge. I − J must be invertible, but f need not be a
    contraction. With η = 0 and exact arithmetic, the method ends after at most n steps,
    where n is the number of elements of an example. The larger the *squared* condition
    number of I − J, the slower the residual falls. With η > 0, z is biased, and its
    residual rarely falls to the tolerance. The method stops when rounding errors
    prevent further progress. The reported residual is that of the adjoint equation
    (I − Jᵀ) z = b, recomputed at the end.

    A step costs a forward-mode and a reverse-mode derivative of one evaluation of f.
    The memory holds a few states.

    Args:
      ridge: ridge η, at least 0.
      tol: largest residual ‖b − (I − Jᵀ) z‖ / ‖b‖ that counts as converged.
      max_steps: maximum number of steps.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> z, info = gradients.adjoints.cg()(lambda v: v - 1.5 * v, jnp.array(1.0), 0)
      >>> z.item(), info.steps.item(), info.converged.item()
      (-2.0, 1, True)

    References:
      Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems",
      1952, doi:10.6028/jres.049.044. Liao et al., "Reviving and improving recurrent
      back-propagation", 2018, arXiv:1803.06396.
    """

    ridge: float | jax.Array = 0.0
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_no_text(ridge=self.ridge)
        if are_numbers(self.ridge) and not self.ridge >= 0:
            raise ValueError(f"ridge must be at least 0, got {self.ridge}.")
        check_limits(self.tol, self.max_steps)

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        scale, b = normalised(b, batch_ndim)
        zeros = jax.tree.map(jnp.zeros_like, b)
        z = zeros if start is None else begin_at(times(1 / scale, start), b, batch_ndim)
        size = norm(b, batch_ndim)
        tol = reachable(self.tol, b, size.dtype)
        limit = jnp.asarray(self.max_steps, jnp.int32)
        ridge = jnp.broadcast_to(jnp.asarray(self.ridge, size.dtype), size.shape)
        conjugate = lambda tree: jax.tree.map(jnp.conj, tree)
        transpose = jax.linear_transpose(matvec, b)
        slope = lambda z, r: _add(conjugate(*transpose(conjugate(r))), -ridge, z)
        square = lambda tree: squared_norm(tree, batch_ndim)
        cost_of = lambda z, r: square(r) + ridge * square(z)

        def step(state: _State) -> _State:
            ap = matvec(state.p)
            alpha = relative(state.gamma, square(ap) + ridge * square(state.p))
            z, r = _add(state.z, alpha, state.p), _add(state.r, -alpha, ap)
            s = slope(z, r)
            gamma = square(s)
            p = _add(s, relative(gamma, state.gamma), state.p)
            steps = state.steps + state.active.astype(jnp.int32)
            cost = cost_of(z, r)
            # Steps diverge once the gradient s consists only of rounding errors.
            better = state.active & (cost < state.cost)
            active = better & (norm(r, batch_ndim) > tol * size) & (steps < limit)
            new, old = (z, r, p, gamma, cost), state[:5]
            z, r, p, gamma, cost = select(better, new, old)
            return _State(z, r, p, gamma, cost, steps, active)

        r = _add(b, -jnp.ones_like(size), matvec(z))
        s = slope(z, r)
        active = norm(r, batch_ndim) > tol * size
        steps = jnp.zeros(size.shape, jnp.int32)
        state = _State(z, r, s, square(s), cost_of(z, r), steps, active)
        state = jax.lax.while_loop(lambda state: jnp.any(state.active), step, state)
        left, reached = check_linear(matvec, b, state.z, batch_ndim)
        residual = relative(left, size)
        # Because of rounding, the recomputed residual may be a little above tol.
        converged = (residual <= 2 * tol) | (reached & (state.steps < limit))
        taken = jnp.maximum(state.steps, 1).astype(residual.dtype)
        radius = residual ** (1 / taken)
        return times(scale, state.z), FixedPointInfo(
            state.steps,
            residual,
            converged,
            radius,
            jnp.zeros_like(converged),
            jnp.ones_like(radius),
            jnp.zeros_like(converged),
        )


def _add(tree: PyTree, factor: jax.Array, other: PyTree) -> Any:
    """Return tree + factor · other, with one factor for each example."""
    return jax.tree.map(jnp.add, tree, times(factor, other))
