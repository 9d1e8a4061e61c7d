"""Run all steps of a network in parallel, by solving for the trajectory of its carry.

Notation: f is the network's step, with parameters θ and input x_t, and L the loss.
h = (h_1 … h_T) is the trajectory of the carry, J_t = ∂f/∂h_{t−1}. h is the root of

    g(h)_t = f(θ, h_{t−1}, x_t) − h_t,    t = 1 … T

For any guess of the trajectory h, the residual g(h) is computed at all times in
parallel. The derivative of g maps a direction v to J_t v_{t−1} − v_t. Each iteration of
Newton's method is therefore a linear recurrence, which is solved in parallel. The
derivative of the root h does not depend on how h was found. Another linear recurrence
computes this derivative: in forward mode the tangent dh, in reverse mode the adjoint z:

    dh_t = J_t dh_{t−1} + ∂f/∂θ dθ,    z_t = J_{t+1}ᵀ z_{t+1} + ∂L/∂h_t.

In padding, f(θ, h_{t−1}, x_t) is h_{t−1}, so the Jacobian J_t is the identity. At a
reset, J_t is 0.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_batch_ndim,
    check_lengths,
    check_like,
    first_step,
    step_shapes,
)
from bpvariants._dtypes import is_floating, widen
from bpvariants._examples import largest
from bpvariants._jaxpr.affine import check_affine
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import as_arrays
from bpvariants._masking import guarded
from bpvariants._settings import check_scalar
from bpvariants.gradients.through_time._parallel_newton import newton
from bpvariants.gradients.through_time._parallel_trajectory import (
    Found,
    is_close,
    linear_trajectory,
    newton_trajectory,
    spacing,
)
from bpvariants.types import PyTree, Step


class ParallelInfo(NamedTuple):
    """Information on one run of :func:`parallel_unroll`, for each example.

    All fields except carries have shape [*batch], with batch_ndim axes.

    Attributes:
      steps: number of iterations; 1 with method "linear".
      residual: largest |f(θ, h_{t−1}, x_t) − h_t| along the returned trajectory, where
        f(θ, h_{t−1}, x_t) is the carry that the step computes.
      converged: bool, whether the parallel method found the trajectory: "linear" up to
        rounding, "newton" up to its tolerance.
      fell_back: bool, whether the network was run step by step because the parallel
        method failed.
      carries: h_1 … h_T, leaves [T, *batch, ...]; a good `guess` for a similar problem.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    fell_back: jax.Array
    carries: PyTree


def parallel_unroll(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    method: Literal["linear", "newton"] | newton,
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: PyTree | None = None,
    guess: PyTree | None = None,
    batch_ndim: int | None = None,
) -> tuple[tuple[PyTree, PyTree], ParallelInfo]:
    """Compute the result of `unroll`, up to a tolerance, with all steps in parallel.

        h_t, y_t = step(θ, h_{t−1}, x_t),    t = 1 … T

    The results are differentiable in params, carry, initial and xs, and in all arrays
    that step closes over. Forward mode and reverse mode work, any number of times. The
    iterations are not differentiated. Instead, the derivative of the trajectory is
    computed by one more linear recurrence.

    - "linear" is for steps whose new carry is A_t ⊙ h_{t−1} + u_t, element by element,
      such as `cells.lru` and `cells.min_gru`. The factor A_t and the summand u_t may
      depend in any way on θ and x_t, and may be complex for a complex carry. The method
      finds A_t and u_t from the step. The number of operations is that of a few
      unrolls. The operations run in parallel, except for log₂ T sequential levels.
      Memory is several times T·n for n carry elements. If the jaxpr of the step shows
      that the step is not elementwise affine, an error is raised. If only computed
      values show that the step is not elementwise affine, results and derivatives are
      NaN.
    - "newton" is for any step. Pass a :class:`newton` to choose the settings; its
      docstring states the costs. By default, examples that do not converge are run step
      by step.

    Carries are computed in float32 or wider. In bfloat16, results agree with those of
    `unroll` as closely as the rounding of each step allows. If inputs are sharded by
    batch or by time, outputs are sharded in the same way. Sharding by time divides the
    steps among devices, but XLA still gathers the T·n carry elements once on every
    device.

    Args:
      step: one time step of the network.
      params: the network's parameters θ.
      carry: state h_0 before the first step, floating leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      method: "linear", "newton", or a :class:`newton` with settings.
      mask: [T, *batch] bool, False in padding. In padding the carry does not change,
        the network gets zeros for x, and y is meaningless.
      reset: [T, *batch] bool, True if `initial` replaces the carry before the step;
        ignored in padding.
      initial: the carry after a reset, with the shapes of carry. Default: the argument
        carry.
      guess: the trajectory with which "newton" begins, with the shapes of
        `info.carries`. Elements of the guess that are not finite count as 0. Default:
        zeros. The derivative of the results with respect to the guess is 0.
      batch_ndim: number of leading axes of the carry that are batch axes. Each example
        then has its own Jacobians and its own info. Default: the number of batch axes
        of mask or reset, else 0. With batch_ndim=0 the whole batch is one example: the
        results are correct, but Jacobians in "newton" have B times as many elements.

    Returns:
      ((carry, ys), info): the carry after the last step and the outputs, leaves
      [T, *batch, ...], both as from :func:`unroll`; and a :class:`ParallelInfo`.

    Raises:
      ValueError: if lengths, shapes or dtypes disagree, or if the carry is not
        floating. With method "linear", also if the step's jaxpr shows that the step is
        not elementwise affine.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> halve = lambda factor, h, x: (factor * h + x, h)
      >>> (last, ys), info = gradients.parallel_unroll(
      ...     halve, 0.5, jnp.array(8.0), jnp.zeros(3), method="linear"
      ... )
      >>> last.item(), ys.tolist(), info.converged.item()
      (1.0, [8.0, 4.0, 2.0], True)

    References:
      Martin & Cundy, "Parallelizing linear recurrent neural nets over sequence length",
      2018, arXiv:1709.04057. Lim et al., "Parallelizing non-linear sequential models
      over the sequence length", 2024, arXiv:2309.12252.
    """
    method = _choose(method, guess)
    mask, reset = as_arrays(mask=mask, reset=reset)
    length = check_lengths(xs, mask=mask, reset=reset)
    _check_carry(carry)
    carry = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), carry)
    step_shapes(step, params, carry, first_step(xs))
    initial = carry if initial is None else initial
    check_like("initial", initial, "carry", carry)
    if batch_ndim is None:
        flags = [flag for flag in (mask, reset) if flag is not None]
        batch_ndim = flags[0].ndim - 1 if flags else 0
    check_batch_ndim("carry", batch_ndim, carry)
    if method == "linear":
        check_affine(step, params, carry, first_step(xs))
    start = _start(carry, length, guess)
    step = with_stored_operands(step, params, carry, first_step(xs))

    def run(h, x, mask, reset):
        return guarded(step, initial, mask, reset)(params, h, x)

    def all_steps(carries):
        """Run all steps in parallel, each from the given carry of the previous step."""
        shift = lambda first, hs: jnp.concatenate([first[None], hs[:-1]])
        before = jax.tree.map(shift, carry, carries)
        return jax.vmap(run)(before, xs, mask, reset)

    def in_order():
        body = lambda h, inputs: (run(h, *inputs)[0],) * 2
        return jax.lax.scan(body, carry, (xs, mask, reset))[1]

    if isinstance(method, newton):
        carries, how = newton_trajectory(all_steps, in_order, start, method, batch_ndim)
    else:
        carries, how = linear_trajectory(all_steps, start)
    new, ys = all_steps(carries)
    right, info = _inspect(new, carries, how, batch_ndim)
    last = jax.tree.map(lambda leaf: leaf[-1], new)
    last, ys = _nan_unless(right, last, 0), _nan_unless(right, ys, 1)
    return (last, ys), info


def _inspect(
    new: PyTree, carries: PyTree, how: Any, batch_ndim: int
) -> tuple[jax.Array, ParallelInfo]:
    """Return which examples [*batch] have a correct trajectory, and the info."""
    new, old = jax.lax.stop_gradient((widen(new), widen(carries)))
    over_time = lambda tree: jnp.max(largest(tree, batch_ndim + 1), axis=0)
    differences = jax.tree.map(jnp.subtract, new, old)
    residual = over_time(differences)
    if isinstance(how, Found):
        steps, converged, in_place = how
        fell_back = ~converged & in_place
        info = ParallelInfo(steps, residual, converged, fell_back, carries)
        return converged | fell_back, info
    # Check each carry element separately, so that a large element does not hide the
    # error of another element.
    tol = max(1000 * spacing(new), 8 * spacing(carries))
    close = lambda a, b, passed: passed & is_close(a, b, jnp.abs(b), tol)
    each = jax.tree.leaves(jax.tree.map(close, new, old, how))
    axes = lambda leaf: (0, *range(1 + batch_ndim, leaf.ndim))
    right = jnp.all(jnp.stack([jnp.all(leaf, axes(leaf)) for leaf in each]), axis=0)
    steps = jnp.ones(residual.shape, jnp.int32)
    fell_back = jnp.zeros(residual.shape, bool)
    converged = right & jnp.isfinite(residual)
    return right, ParallelInfo(steps, residual, converged, fell_back, carries)


def _nan_unless(right: jax.Array, tree: PyTree, axes_before: int) -> PyTree:
    """Multiply the values of examples with a wrong trajectory by NaN.

    The derivatives of these examples are then NaN, too.
    """

    def spoil(leaf):
        if not is_floating(leaf):
            return leaf
        factor = jnp.where(right, 1, jnp.nan).astype(leaf.dtype)
        trailing = (1,) * (leaf.ndim - axes_before - right.ndim)
        return leaf * factor.reshape((1,) * axes_before + right.shape + trailing)

    return jax.tree.map(spoil, tree)


def _start(carry: PyTree, length: int, guess: PyTree | None) -> PyTree:
    zeros = jax.tree.map(lambda h: jnp.zeros((length, *h.shape), h.dtype), carry)
    if guess is None:
        return zeros
    check_arrays("guess", guess)
    check_like("guess", guess, "the carries [T, *batch, ...]", zeros)
    clean = lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, jnp.zeros_like(leaf))
    return jax.tree.map(clean, guess)


def _choose(method: Any, guess: PyTree | None) -> newton | Literal["linear"]:
    if isinstance(method, str) and method == "newton":
        method = newton()
    if not isinstance(method, newton) and method != "linear":
        raise ValueError(
            "method must be 'linear', 'newton' or a value such as newton(max_steps=20)"
            f"; got {method!r}."
        )
    if isinstance(method, newton):
        for name in ("shrink", "tol", "max_steps"):
            check_scalar(name, getattr(method, name))
    if guess is not None and not isinstance(method, newton):
        raise ValueError(
            'guess must be left out with method="linear", which does not use it.'
        )
    return method


def _check_carry(carry: PyTree) -> None:
    leaves = jax.tree.leaves_with_path(carry)
    if not leaves:
        raise ValueError(
            "carry has no arrays, so that all steps are independent of each other: "
            "map the step over time by jax.vmap."
        )
    for path, leaf in leaves:
        if not is_floating(leaf):
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} must be floating, because carries "
                f"are found with derivatives; got {jnp.result_type(leaf)}. Pass a "
                "counter or a key in xs, such as jnp.arange(T), or use unroll."
            )
