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

from typing import Any, Literal

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
from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.affine import check_affine
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import as_arrays
from bpvariants._masking import guarded
from bpvariants._settings import check_scalar
from bpvariants.gradients.through_time._parallel_choice import run_the_faster
from bpvariants.gradients.through_time._parallel_info import ParallelInfo
from bpvariants.gradients.through_time._parallel_jacobians import find_blocks
from bpvariants.gradients.through_time._parallel_newton import newton
from bpvariants.gradients.through_time._parallel_result import inspect, nan_unless
from bpvariants.gradients.through_time._parallel_trajectory import (
    linear_trajectory,
    newton_trajectory,
)
from bpvariants.types import PyTree, Step


def parallel_unroll(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    method: Literal["auto", "linear", "newton"] | newton,
    mask: jax.typing.ArrayLike | None = None,
    reset: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
    guess: PyTree | None = None,
    batch_ndim: int | None = None,
) -> tuple[tuple[PyTree, PyTree], ParallelInfo]:
    """Compute the result of `unroll`, up to a tolerance, with all steps in parallel.

        h_t, y_t = step(θ, h_{t−1}, x_t),    t = 1 … T

    The results are differentiable with respect to params, carry, initial and xs, and to
    all arrays that step closes over. Derivatives of any order work, in forward mode and
    in reverse mode. The iterations are not differentiated. Instead, the derivative of
    the trajectory is computed by one more linear recurrence.

    - "linear" is for steps whose new carry is A_t ⊙ h_{t−1} + u_t, element by element,
      such as `cells.lru` and `cells.min_gru`. The factor A_t and the summand u_t may
      depend in any way on θ and x_t, and may be complex for a complex carry. The method
      computes A_t and u_t by a derivative of the step. The number of operations is that
      of a few unrolls. The operations run in parallel, except for log₂ T sequential
      levels. Memory is several times T·n for n carry elements. If the jaxpr of the step
      shows that the step is not elementwise affine, an error is raised. If only
      computed values show that the step is not elementwise affine, results and
      derivatives are NaN.
    - "auto" runs the network step by step, or by "newton" where that is predicted to be
      faster. On a CPU, and for sequences of fewer than about 4000 steps, it always runs
      step by step, at the cost of :func:`unroll`. Otherwise, 64 steps of the sequence
      are run first, to estimate the largest Lyapunov exponent λ. Newton's method is
      taken only if λ ≤ −0.3 for all examples, so that the network forgets, and if the
      predicted number of iterations is small compared to T. Newton then uses blocks of
      the Jacobian if they are exact. The prediction is from random networks of 3 units,
      where it failed for 1 in 10, which then also run step by step. The time of an
      iteration on an accelerator is not measured. A step whose new carry is elementwise
      affine is run by "linear" on accelerators. Derivatives of a run step by step take
      the memory of `unroll`; the compiled program reserves memory for both choices.
    - "newton" is for any step. Pass a :class:`newton` to choose the settings; its
      docstring states the costs. By default, examples that do not converge are run step
      by step.

    Carries are computed in float32 or wider. If the step computes in bfloat16, the
    results differ from those of `unroll` by rounding errors of bfloat16. If inputs are
    sharded by batch or by time, outputs are sharded in the same way. Sharding by time
    divides the steps among devices, but XLA still gathers the T·n carry elements once
    on every device.

    Args:
      step: one time step of the network.
      params: the network's parameters θ.
      carry: state h_0 before the first step, floating leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      method: "auto", "linear", "newton", or a :class:`newton` with settings.
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
        along these axes has its own Jacobians and its own info. Default: the number of
        batch axes of mask or reset, else 0. With batch_ndim=0 the whole batch is one
        example: the results are correct, but for a batch of B examples, the Jacobians
        in "newton" have B times as many elements.

    Returns:
      ((carry, ys), info): the carry after the last step and the outputs, leaves [T,
      *batch, ...], both as :func:`unroll` returns them; and a :class:`ParallelInfo`.

    Raises:
      ValueError: if lengths, shapes or dtypes of the arguments disagree, or if the
        carry is not floating. With method "linear", also if the step's jaxpr shows that
        the step is not elementwise affine.

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
    batch_ndim = _batch_ndim(batch_ndim, carry, mask, reset)
    if method == "linear":
        check_affine(step, params, carry, first_step(xs))
    start = _start(carry, length, guess)
    plain, step = step, with_stored_operands(step, params, carry, first_step(xs))

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

    def in_parallel(method):
        if isinstance(method, newton):
            blocks = None
            if method.jacobian == "blocks":
                blocks = find_blocks(plain, params, carry, first_step(xs), batch_ndim)
            carries, how = newton_trajectory(
                all_steps, in_order, start, method, batch_ndim, blocks
            )
        else:
            carries, how = linear_trajectory(all_steps, start)
        new, ys = all_steps(carries)
        right, info = inspect(new, carries, how, batch_ndim)
        last = jax.tree.map(lambda leaf: leaf[-1], new)
        return (nan_unless(right, last, 0), nan_unless(right, ys, 1)), info

    if method != "auto":
        return in_parallel(method)
    given = plain, params, carry, (xs, mask, reset), initial, batch_ndim
    return run_the_faster(run, in_parallel, *given)


def _batch_ndim(given: int | None, carry: PyTree, *flags: jax.Array | None) -> int:
    """Return the number of batch axes: as given, or as mask or reset have them."""
    if given is None:
        ranks = [flag.ndim - 1 for flag in flags if flag is not None]
        given = ranks[0] if ranks else 0
    check_batch_ndim("carry", given, carry)
    return given


def _start(carry: PyTree, length: int, guess: PyTree | None) -> PyTree:
    zeros = jax.tree.map(lambda h: jnp.zeros((length, *h.shape), h.dtype), carry)
    if guess is None:
        return zeros
    check_arrays("guess", guess)
    check_like("guess", guess, "the carries [T, *batch, ...]", zeros)
    clean = lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, jnp.zeros_like(leaf))
    return jax.tree.map(clean, guess)


def _choose(method: Any, guess: PyTree | None) -> Any:
    if isinstance(method, str) and method == "newton":
        method = newton()
    named = isinstance(method, str) and method in ("auto", "linear")
    if not isinstance(method, newton) and not named:
        raise ValueError(
            "method must be 'auto', 'linear', 'newton' or a value such as "
            f"newton(max_steps=20); got {method!r}."
        )
    if isinstance(method, newton):
        for name in ("shrink", "tol", "max_steps"):
            check_scalar(name, getattr(method, name))
    if guess is not None and method == "linear":
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
