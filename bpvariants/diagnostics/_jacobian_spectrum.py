"""Lyapunov exponents and singular values of the Jacobians along a sequence.

Notation: J_t = ∂h_t/∂h_{t−1} [n, n] is the Jacobian of time step t. The columns of the
matrix Q_t [n, k] are k orthonormal directions. At each time step, the directions are
multiplied by J_t and made orthonormal again:

    J_t Q_{t−1} = Q_t R_t,    λ_i = 1/T Σ_t log |(R_t)_ii|.

The matrix R_t [k, k] is triangular, and T is the number of time steps. The λ_i are the
k largest Lyapunov exponents: a perturbation of the state grows like exp(λ_1 t). The
largest singular value σ(J_t) of J_t is found by a power iteration on a vector, v ← J_tᵀ
J_t v. For the time steps from 1 to t, J_t⋯J_1 Q_0 = Q_t (R_t⋯R_1). Therefore the
product J_t⋯J_1 Q_0 has the same largest singular value as the small matrix R_t⋯R_1.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import as_vectors
from bpvariants._checks import (
    check_count,
    check_lengths,
    check_single_key,
    first_step,
    is_count,
    step_shapes,
)
from bpvariants._examples import norm, unit
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import as_arrays
from bpvariants._masking import guarded
from bpvariants._pictures import axes_for
from bpvariants._tables import aligned, short
from bpvariants.types import PyTree, Step


class JacobianSpectrum(NamedTuple):
    """Result of :func:`jacobian_spectrum` for each example, with k exponents.

    Attributes:
      exponents: [*batch, k]: Lyapunov exponents λ_i per time step. After enough time
        steps, they are in descending order. An exponent is −∞ if the Jacobian J_t of a
        step maps the exponent's direction to 0, for example because J_t is singular.
      running: [T, *batch, k]: for each step t, the exponents measured over the time
        steps up to t; NaN at the first `skip` steps.
      singular_values: [T, *batch]: lower bound of σ(J_t), the largest singular value of
        the Jacobian J_t, by power iteration; NaN in padding.
      residuals: [T, *batch]: residual ‖J_tᵀJ_t v − σ² v‖ / σ² of the power iteration
        for the largest singular value σ of J_t, with its vector v; NaN in padding. If
        the residual is small, the iteration has converged.
      log_sensitivity: [T, *batch]: log ‖J_t⋯J_1 Q_0‖, where Q_0 are the k initial
        directions. If k is the number n of elements of the carry, log_sensitivity is
        log ‖∂h_t/∂h_0‖; if k < n, log_sensitivity is a lower bound of log ‖∂h_t/∂h_0‖.
    """

    exponents: jax.Array
    running: jax.Array
    singular_values: jax.Array
    residuals: jax.Array
    log_sensitivity: jax.Array

    def table(self) -> str:
        """Return text: ranges of the exponents and singular values, and the verdict."""
        exponents = np.asarray(self.exponents)
        exponents = exponents.reshape(-1, exponents.shape[-1])
        rows = [["over examples", "least", "mean", "greatest"]]
        for i, values in enumerate(exponents.T):
            shown = (values.min(), values.mean(), values.max())
            rows.append([f"exponent {i + 1}", *map(short, shown)])
        sigmas = np.asarray(self.singular_values).ravel()
        sigmas = sigmas[~np.isnan(sigmas)]
        if sigmas.size:
            shown = (sigmas.min(), sigmas.mean(), sigmas.max())
            rows.append(["σ(J_t), all t", *map(short, shown)])
        return aligned(rows) + "\n" + self.verdict

    @property
    def verdict(self) -> str:
        """Text that says whether perturbations grow or shrink, and how fast.

        The verdict depends on λ_1, the mean over examples of the largest exponent. If
        λ_1 > 0, perturbations of the state and error signals grow by a factor of e in
        1/λ_1 time steps, and gradients that are propagated back over many more than
        1/λ_1 steps are noise. If λ_1 < 0, perturbations and error signals shrink by a
        factor of e in 1/|λ_1| time steps, and propagating gradients back over many more
        than 1/|λ_1| steps hardly changes the gradients. `verdict` does not work within
        `jit`.
        """
        largest = float(np.mean(np.asarray(self.exponents)[..., 0]))
        if not math.isfinite(largest) or largest == 0:
            return "errors vanish within a step" if largest < 0 else "unknown"
        steps = short(abs(1 / largest))
        grow = (
            "expanding: perturbations grow"
            if largest > 0
            else "contracting: perturbations shrink"
        )
        return f"{grow} by a factor of e in {steps} steps"

    def plot(self, axes: Any = None, label: str | None = None) -> Any:
        """Draw each exponent, averaged over examples, over time; return the axes."""
        axes = axes_for("spectrum.plot", axes)
        running = np.asarray(self.running)
        examples = tuple(range(1, running.ndim - 1))
        for i, values in enumerate(running.mean(axis=examples).T):
            name = f"λ_{i + 1}" if label is None else f"{label}, λ_{i + 1}"
            axes.plot(np.arange(len(values)), values, label=name)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="time step t (from 0)", ylabel="exponent (per step)")
        return axes


def jacobian_spectrum(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    exponents: int = 1,
    skip: int = 0,
    power_iterations: int = 30,
    batch_shape: tuple[int, ...] = (),
    mask: jax.typing.ArrayLike | None = None,
    key: jax.Array | None = None,
) -> JacobianSpectrum:
    """Measure Lyapunov exponents and singular values of the Jacobians along a sequence.

        J_t Q_{t−1} = Q_t R_t,    λ_i = 1/T Σ_t log |(R_t)_ii|,    σ(J_t)

    Here J_t = ∂h_t/∂h_{t−1} is the Jacobian of time step t with the carry h_t, and
    σ(J_t) is the largest singular value of J_t. The columns of Q_t are orthonormal
    directions, R_t is triangular, and λ_i is an exponent. Exponents measured over T
    time steps have an error of about 1/T, because the directions Q_t start at random
    and only gradually turn to the directions of fastest growth. To reduce the error,
    give `skip`, the number of first time steps to leave out of the exponents. The carry
    of each example is treated as one real vector of n elements; a complex element
    counts as two. `jacobian_spectrum` is a pure function that can be jitted.

    Time: each time step takes k + 2 · power_iterations products of a vector with the
    Jacobian J_t. To make the k directions orthonormal takes n·k² operations. Memory:
    n·k·B array elements for the directions of B examples, and T·k·B for the results.
    Resets are not supported; pass sequences of a single episode.

    Args:
      step: one time step of the network.
      params: the parameters θ of the network.
      carry: the network's carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      exponents: number k of exponents, at most n.
      skip: number of first time steps to leave out of the exponents.
      power_iterations: number of power iterations for σ(J_t), the largest singular
        value of the Jacobian, at each time step t. The iterations start with the vector
        that the iterations at time step t − 1 have found.
      batch_shape: the sizes of the batch axes, as a tuple. Default: (), one example.
      mask: [T, *batch] bool, False in padding; padded steps do not change the carry,
        and do not count as time steps of the exponents.
      key: a `jax.random.key`, from which the first directions are drawn. Default:
        `jax.random.key(0)`.

    Returns:
      A :class:`JacobianSpectrum`; `table()` returns it as text, and `plot(axes)` draws
      it.

    Raises:
      ValueError: if exponents, skip or power_iterations are out of range, or if
        lengths or shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> A = jnp.array([[2.0, 1.0], [0.0, 0.5]])
      >>> linear = lambda params, h, x: (params @ h, h)
      >>> found = diagnostics.jacobian_spectrum(
      ...     linear, A, jnp.ones(2), jnp.zeros((60, 0)), exponents=2, skip=30
      ... )
      >>> jnp.exp(found.exponents).round(3).tolist()  # |eigenvalues| of A
      [2.0, 0.5]
      >>> print(found.table())
      over examples  least   mean greatest
      exponent 1     .6931  .6931    .6931
      exponent 2    -.6931 -.6931   -.6931
      σ(J_t), all t  2.248  2.248    2.248
      expanding: perturbations grow by a factor of e in 1.443 steps
    """
    (mask,) = as_arrays(mask=mask)
    batch = _check_shapes(step, params, carry, xs, mask, batch_shape)
    length = jax.tree.leaves(xs)[0].shape[0]
    start, _ = as_vectors(carry, batch)
    _check(exponents, skip, power_iterations, start.shape[-1], length)
    key = jax.random.key(0) if key is None else key
    check_single_key(key)
    Q = jax.random.normal(key, (*start.shape, exponents), start.dtype)
    Q, _ = jnp.linalg.qr(Q)

    def body(state, inputs):
        carry, Q, vector, product, scale, total, count = state
        x, mask, counts = inputs

        rows, as_carry = as_vectors(carry, batch)

        def advance(rows):
            one_step = guarded(step, carry, mask, None)
            new, _ = one_step(params, as_carry(rows), x)
            return as_vectors(new, batch)[0], new

        advance = with_stored_operands(advance, rows)
        _, push, new = jax.linearize(advance, rows, has_aux=True)
        pull = jax.linear_transpose(push, rows)
        Q, R = jnp.linalg.qr(jax.vmap(push, in_axes=-1, out_axes=-1)(Q))
        growth = jnp.log(jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1)))
        here = jnp.ones(batch, bool) if mask is None else mask
        total = total + jnp.where((here & counts)[..., None], growth, 0)
        count = count + (here & counts).astype(count.dtype)
        vector, sigma, residual = _power(push, pull, vector, power_iterations)
        product = R @ product
        largest = unit(jnp.max(jnp.abs(product), axis=(-2, -1)))
        product = product / largest[..., None, None]
        scale = scale + jnp.log(largest)
        sensitivity = scale + jnp.log(jnp.linalg.norm(product, 2, axis=(-2, -1)))
        running = total / jnp.where(count == 0, jnp.nan, count)[..., None]
        hide = lambda values: jnp.where(here, values, jnp.nan)
        results = running, hide(sigma), hide(residual), sensitivity
        return (new, Q, vector, product, scale, total, count), results

    identity = jnp.eye(exponents, dtype=start.dtype)
    identity = jnp.broadcast_to(identity, (*batch, exponents, exponents))
    zeros = jnp.zeros(batch, start.dtype)
    total = jnp.zeros((*batch, exponents), start.dtype)
    state = carry, Q, Q[..., 0], identity, zeros, total, zeros
    _, results = jax.lax.scan(body, state, (xs, mask, jnp.arange(length) >= skip))
    return JacobianSpectrum(results[0][-1], *results)


def _power(push, pull, vector, iterations):
    """Find the largest singular value of a Jacobian by power iteration.

    Return the final unit vector v, the singular value ‖J v‖ with the Jacobian J, and
    the residual of the iteration.
    """

    def body(_, vector):
        (new,) = pull(push(vector))
        size = norm(new, new.ndim - 1)[..., None]
        # If the Jacobian maps v to 0, keep v as the start for the next time steps.
        return jnp.where(size == 0, vector, new / jnp.where(size == 0, 1, size))

    vector = jax.lax.fori_loop(0, iterations, body, vector)
    image = push(vector)
    batch_ndim = vector.ndim - 1
    sigma = norm(image, batch_ndim)
    off = norm(pull(image)[0] - sigma[..., None] ** 2 * vector, batch_ndim)
    return vector, sigma, off / jnp.where(sigma == 0, 1, sigma**2)


def _check_shapes(step, params, carry, xs, mask, batch_shape) -> tuple[int, ...]:
    length = check_lengths(xs, mask=mask)
    step_shapes(step, params, carry, first_step(xs))
    if not isinstance(batch_shape, tuple | list):
        raise ValueError(
            "batch_shape must be a tuple, the sizes of the batch axes, such as (32,); "
            f"got {batch_shape!r}."
        )
    batch = tuple(batch_shape)
    for name, tree, shape in (("carry", carry, batch), ("xs", xs, (length, *batch))):
        for leaf in jax.tree.leaves(tree):
            if jnp.shape(leaf)[: len(shape)] != shape:
                raise ValueError(
                    f"{name} must begin with {shape}, as batch_shape = {batch} says; "
                    f"got a leaf of shape {jnp.shape(leaf)}."
                )
    if mask is not None and jnp.shape(mask) != (length, *batch):
        raise ValueError(
            f"mask must be [T, *batch] = {(length, *batch)}, got {jnp.shape(mask)}; "
            "give a batch_shape (default: ()) that matches the mask."
        )
    return batch


def _check(exponents, skip, power_iterations, size, length) -> None:
    if not is_count(exponents, 1, size):
        raise ValueError(
            f"exponents must be an integer from 1 to {size}, the number of elements in "
            f"the carry of an example; got {exponents!r}."
        )
    if not is_count(skip, 0, length - 1):
        raise ValueError(
            f"skip must be an integer from 0 to {length - 1}, so that a step is left; "
            f"got {skip!r}."
        )
    check_count("power_iterations", power_iterations)
