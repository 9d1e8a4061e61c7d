"""Newton's method for a whole trajectory of carries, by parallel linear recurrences.

Notation: f is the network's step, with parameters θ and input x_t. h^i_t is the carry
of step t after i iterations, and J_t = ∂f/∂h at h^i_{t−1}. r_t is the residual of step
t, and a linear recurrence computes the correction d_t of h^i_t from the residuals:

    r_t = f(θ, h^i_{t−1}, x_t) − h^i_t,    d_t = (1 − λ) J_t d_{t−1} + r_t,    d_0 = 0
    h^{i+1}_t = h^i_t + d_t

λ is the setting `shrink`: λ = 0 is Newton's method, and λ = 1 is Picard's iteration.
Quasi-Newton replaces the Jacobian J_t by its diagonal. After t iterations of any of
these three methods, the carry of step t is exact, and all residuals and corrections up
to step t are 0. The iterations are not differentiated. Instead, another linear
recurrence computes the derivative of the solution. In reverse mode, with the loss L and
the adjoint z of h, this recurrence is

    z_t = J_{t+1}ᵀ z_{t+1} + ∂L/∂h_t.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import get_args, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_limits
from bpvariants._settings import check_no_text
from bpvariants.gradients.through_time._parallel_jacobians import (
    block_matrices,
    Blocks,
    Gap,
    grouped,
    matrices,
    propagate,
    ungrouped,
)
from bpvariants.gradients.through_time._parallel_rounding import (
    is_rounding,
    largest,
)
from bpvariants.gradients.through_time._parallel_scan import (
    dense_scan,
    dense_scan_in_order,
)

Jacobian = Literal["full", "diagonal", "blocks"]
OnFailure = Literal["sequential", "nan"]
Sizes = tuple[int, ...]  # number of elements of each carry leaf, for one example

PATIENCE = 3  # iterations without a smaller change before the test for rounding
COARSEST = 2**-5  # largest relative change that rounding to 8 bits can explain


@register_dataclass  # shrink, tol and max_steps may be tracers
@dataclass(frozen=True)
class newton:
    """Settings of Newton's method for :func:`parallel_unroll` (DEER).

        h_t ← f_t + (1 − λ) J_t (h_{t−1} − its old value)    until |Δh| ≤ tol max |h|

    h_t is the carry, with n elements for one example. f_t is the new carry that step t
    computes from the old h_{t−1}, and J_t is the Jacobian ∂f_t/∂h_{t−1}. λ is the
    setting `shrink`, and Δh the change of h in an iteration. Each iteration updates the
    whole trajectory of T steps.

    With jacobian="full" and shrink=0, convergence is quadratic near the solution. For
    each example with n carry elements, an iteration takes n + 1 evaluations of every
    step and T·n³ multiplications. All T steps run in parallel, except that the linear
    recurrence has log₂ T sequential levels. Memory is several times T·n² for each
    example. Newton's method is faster than a plain unroll only on an accelerator, and
    only if the sequence is long and the carry small.

    With jacobian="diagonal" the method is quasi-Newton (quasi-DEER), *not* Newton's.
    Quasi-Newton uses only the diagonal of the Jacobians, so it takes memory of T·n for
    n carry elements, and few multiplications. Quasi-Newton needs more iterations than
    Newton's method, unless units hardly affect each other directly.

    With jacobian="blocks" the method uses the entries of the Jacobian between carry
    elements that read each other directly, not through a sum: the pairs (c, h) of an
    LSTM's units, or the two state variables of each unit of `cells.rtu`. The blocks are
    found from the jaxpr of the step. If the Jacobian has no other entries, as for
    `cells.rtu`, this is Newton's method, and blocks of b elements take b evaluations of
    every step and T·n·b² multiplications. Otherwise it is quasi-Newton, with more
    information than the diagonal.

    Derivatives are exact with all settings of `jacobian`, because they are the solution
    of an adjoint equation with the full Jacobians. With "diagonal" and inexact blocks,
    a quasi-Newton iteration also solves the adjoint equation, with the tolerance tol.
    If the iteration for the adjoint equation does not converge for an example, for
    instance because of an overflow, the derivative of this example is NaN.

    If the network is chaotic or unstable, products of Jacobians over many steps grow,
    and iterations make no progress. shrink = λ > 0 multiplies each Jacobian by 1 − λ,
    so that a product over k steps is multiplied by (1 − λ)^k. The solution does not
    depend on λ. (`shrink` is not the setting `damping` of :func:`fixed_point`, which
    scales the change of an iterate; damping=1 means no damping.) In exact arithmetic T
    iterations are enough for every λ. But products of Jacobians may magnify rounding
    errors so much that the iterates never settle. An example whose iterates never
    settle counts as not converged. The table shows how many iterations a tanh network
    took for each `jacobian` and λ, with n = 3 units, normal weights of standard
    deviation s/√n, T = 200 steps, and tol = 1e-8. With λ = 1, the setting `jacobian`
    makes no difference.

        s                               1    2    3    5
        full,     λ = 0                 5    9   20  126
        full,     λ = 0.8              20   45   57   87
        diagonal, λ = 0                28   80  172  181
        diagonal, λ = 0.8              23   53   68  102
        any,      λ = 1                24   55   74  110

    Args:
      jacobian: "full", "diagonal" or "blocks".
      shrink: λ, from 0 (Newton) to 1 (Picard): each J_t is multiplied by 1 − λ.
      tol: an example has converged when an iteration changes no carry element by more
        than tol · m. Here m is the largest absolute value along the trajectory in the
        leaf that contains the element. A tol below 4 machine epsilons is raised to 4
        epsilons. An example has also converged when its changes no longer become
        smaller from one iteration to the next, and rounding errors of the step explain
        the last change. Such a change must be at most 0.03 · m.
      max_steps: largest number of iterations. Never more than T + 1 iterations are run:
        T iterations make all T carries exact, and one more iteration detects that no
        carry changes.
      on_failure: what to do with examples that do not converge or are not finite.
        "sequential" computes these examples again, step by step. Even for one such
        example, this takes the time of a sequential run of the whole batch. "nan" makes
        their results and derivatives NaN.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> step = lambda w, h, x: (jnp.tanh(w * h + x), h)
      >>> method = gradients.newton(tol=1e-5, max_steps=20)
      >>> (h, ys), info = gradients.parallel_unroll(
      ...     step, 0.9, jnp.array(0.0), jnp.ones(1000), method=method
      ... )
      >>> info.converged.item(), info.steps.item() < 10
      (True, True)

    References:
      Lim et al., "Parallelizing non-linear sequential models over the sequence
      length", 2024, arXiv:2309.12252. Gonzalez et al., "Towards scalable and stable
      parallelization of nonlinear RNNs", 2024, arXiv:2407.19115.
    """

    jacobian: Jacobian = field(default="full", metadata={"static": True})
    shrink: float | jax.Array = 0.0
    tol: float | jax.Array = 1e-6
    max_steps: int | jax.Array = 100
    on_failure: OnFailure = field(default="sequential", metadata={"static": True})

    def __post_init__(self):
        """Check the settings."""
        if self.jacobian not in get_args(Jacobian):
            raise ValueError(
                "jacobian must be 'full', 'diagonal' or 'blocks', got "
                f"{self.jacobian!r}."
            )
        if self.on_failure not in get_args(OnFailure):
            raise ValueError(
                f"on_failure must be 'sequential' or 'nan', got {self.on_failure!r}."
            )
        check_no_text(shrink=self.shrink)
        if are_numbers(self.shrink) and not 0 <= self.shrink <= 1:
            raise ValueError(
                "shrink must be from 0, Newton's method, to 1, Picard's iteration; "
                f"got {self.shrink}."
            )
        check_limits(self.tol, self.max_steps)


class NewtonState(NamedTuple):
    """State of Newton's iterations."""

    trajectory: jax.Array  # [T, *batch, n]: current carries of all steps
    taken: jax.Array  # []: number of iterations so far
    least: jax.Array  # [*batch]: smallest relative change of an iteration so far
    since: jax.Array  # [*batch]: number of iterations since the smallest change
    steps: jax.Array  # [*batch]: number of iterations in which the example was active
    converged: jax.Array  # [*batch]: whether the example has converged
    active: jax.Array  # [*batch]: whether the next iteration updates the example


def iterate(
    gap: Gap,
    start: jax.Array,
    method: newton,
    eps: float,
    sizes: Sizes,
    reverse: bool = False,
    blocks: Blocks | None = None,
) -> NewtonState:
    """Iterate at most `max_steps` times; stop when no example is active any more.

    The function `gap` computes the residuals of a trajectory [T, *batch, n]. The
    iterations search for a trajectory whose residuals are 0.
    """
    length, *batch, _ = start.shape
    tol = jnp.maximum(jnp.asarray(method.tol, start.dtype), 4 * eps)
    keep = 1 - jnp.asarray(method.shrink, start.dtype)
    # T iterations make all T carries exact; one more detects that no carry changes.
    limit = jnp.minimum(jnp.asarray(method.max_steps, jnp.int32), length + 1)
    over_time = tuple({0, start.ndim - 1})

    def step(state: NewtonState) -> NewtonState:
        old, count = state.trajectory, state.taken + 1
        wrong, slopes = jax.linearize(gap, old)
        change = propagate(slopes, wrong, method.jacobian, keep, reverse, blocks)
        new = old + change
        finite = jnp.all(jnp.isfinite(new), over_time)
        size, scale = largest(change, sizes), largest(new, sizes)
        small = size <= tol * scale
        relative = jnp.max(jnp.where(small, 0, size / scale), axis=-1)
        since = jnp.where(relative < state.least, 0, state.since + 1)
        stalled = (since >= PATIENCE) & (relative <= COARSEST) & state.active & finite
        rounds = jax.lax.cond(
            jnp.any(stalled),
            lambda: is_rounding(gap, old, wrong, change, sizes),
            lambda: jnp.zeros_like(small),
        )
        converged = finite & jnp.all(small | (rounds & stalled[..., None]), axis=-1)
        moves = (state.active & finite)[None, ..., None]
        return NewtonState(
            jnp.where(moves, new, old),
            count,
            jnp.minimum(relative, state.least),
            since,
            state.steps + state.active.astype(jnp.int32),
            jnp.where(state.active, converged, state.converged),
            state.active & finite & ~converged & (count < limit),
        )

    flags = jnp.ones(tuple(batch), bool)
    zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros(flags.shape, jnp.int32)
    least = jnp.full(flags.shape, jnp.inf, start.dtype)
    state = NewtonState(start, zero, least, zeros, zeros, ~flags, flags)
    return jax.lax.while_loop(lambda state: jnp.any(state.active), step, state)


def solve_tangent(
    g: Gap,
    y: jax.Array,
    method: newton,
    eps: float,
    sizes: Sizes,
    blocks: Blocks | None = None,
) -> jax.Array:
    """Solve the linear recurrence g(x)_t = J_t x_{t−1} − x_t = y_t for x.

    J_t are the Jacobians of the steps. In reverse mode, JAX solves the transposed
    equation, which is the adjoint equation.
    """
    is_exact = blocks is not None and blocks.is_exact

    def solve(reverse, g, y):
        if method.jacobian == "full":
            return _solve_dense(matrices(g, y), -y, reverse)
        if blocks is not None and is_exact:
            within = block_matrices(g, y, blocks)
            return ungrouped(_solve_dense(within, grouped(-y, blocks), reverse), blocks)
        exact = newton(method.jacobian, method.shrink, method.tol, y.shape[0] + 1)
        gap = lambda x: g(x) - y
        state = iterate(gap, jnp.zeros_like(y), exact, eps, sizes, reverse, blocks)
        found = state.converged[None, ..., None]
        return jnp.where(found, state.trajectory, jnp.nan)

    return jax.lax.custom_linear_solve(
        g, y, partial(solve, False), transpose_solve=partial(solve, True)
    )


def _solve_dense(jacobians: jax.Array, u: jax.Array, reverse: bool) -> jax.Array:
    x = dense_scan(jacobians, u, reverse)
    return jax.lax.cond(
        jnp.all(jnp.isfinite(x)),
        lambda: x,  # if not finite, a product of matrices may have overflowed
        lambda: dense_scan_in_order(jacobians, u, reverse),
    )
