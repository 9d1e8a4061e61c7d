"""Measures of an estimated gradient's quality, computed from sums over its elements.

Notation: g is the exact gradient, ĝ is one of K estimates of g, and ḡ is the mean of
all estimates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class QualityMeasures(NamedTuple):
    """Measures of a gradient's quality, for one array of params or for all params.

    Here g is the exact gradient, and ĝ is one of K estimates by the rule. Each estimate
    has its own random key, and ḡ is the mean of the estimates. If g is 0, all measures
    except `norm`, `sign_agreement` and `zeros` are NaN.

    Attributes:
      norm: ‖g‖, norm of the exact gradient.
      bias: ‖ḡ − g‖ / ‖g‖, relative error of the mean estimate.
      bias_standard_error: √(V / K), where V is the variance and K the number of keys.
        If the rule is unbiased, this standard error is about as large as `bias`. It is
        NaN for one key, and 0 if no keys were given.
      variance: variance V of the estimates ĝ, relative to ‖g‖².
      error: root-mean-square error √(mean ‖ĝ − g‖²) / ‖g‖.
      cosine: mean of ⟨ĝ, g⟩ / (‖ĝ‖ ‖g‖) over keys with ĝ ≠ 0.
      cosine_deviation: standard deviation of the cosine over keys with ĝ ≠ 0.
      norm_ratio: mean of ‖ĝ‖ / ‖g‖ over keys.
      sign_agreement: fraction of elements with the same sign (−1, 0 or 1) in ĝ and g;
        mean over keys.
      zeros: fraction of keys with ĝ = 0.
    """

    norm: jax.Array
    bias: jax.Array
    bias_standard_error: jax.Array
    variance: jax.Array
    error: jax.Array
    cosine: jax.Array
    cosine_deviation: jax.Array
    norm_ratio: jax.Array
    sign_agreement: jax.Array
    zeros: jax.Array


class QualitySums(NamedTuple):
    """Sums over the elements of one array of params.

    Here g is the exact gradient, ĝ is one of K estimates of g, and ḡ is the mean of the
    estimates. For several arrays together, add the QualitySums of the arrays.
    """

    exact: jax.Array  # squared norm of g
    bias: jax.Array  # squared norm of ḡ − g
    estimates: jax.Array  # [K]: squared norm of each estimate ĝ
    deviations: jax.Array  # [K]: squared norm of each ĝ − ḡ
    errors: jax.Array  # [K]: squared norm of each ĝ − g
    products: jax.Array  # [K]: inner product of each ĝ with g
    agreeing: jax.Array  # [K]: number of elements with the same sign in ĝ and g
    size: jax.Array  # number of elements of the array


def sums_of(estimates: jax.Array, exact: jax.Array, dtype: Any) -> QualitySums:
    """Return the sums for one array of params, from K gradient estimates [K, ...]."""
    estimates = estimates.reshape(len(estimates), -1).astype(dtype)
    exact = exact.reshape(1, -1).astype(dtype)
    mean = jnp.mean(estimates, axis=0, keepdims=True)
    of = lambda numbers: jnp.sum(numbers, axis=1)
    return QualitySums(
        exact=of(exact**2)[0],
        bias=of((mean - exact) ** 2)[0],
        estimates=of(estimates**2),
        deviations=of((estimates - mean) ** 2),
        errors=of((estimates - exact) ** 2),
        products=of(estimates * exact),
        agreeing=of((jnp.sign(estimates) == jnp.sign(exact)).astype(dtype)),
        size=jnp.asarray(exact.size, dtype),
    )


def measures_of(sums: QualitySums, drawn: bool) -> QualityMeasures:
    """Compute the measures from the sums; `drawn` says whether the rule had keys."""
    count = sums.errors.shape[0]
    norm = jnp.sqrt(sums.exact)
    per = lambda number, unit: number / jnp.where(unit == 0, jnp.nan, unit)
    variance = jnp.sum(sums.deviations) / max(count - 1, 1)
    if drawn and count == 1:
        variance = jnp.full_like(variance, jnp.nan)  # a variance needs two estimates
    zero = sums.estimates == 0
    cosines = per(sums.products, norm * jnp.sqrt(jnp.where(zero, 1, sums.estimates)))
    mean = lambda values: per(
        jnp.sum(jnp.where(zero, 0, values)), jnp.sum(~zero).astype(values.dtype)
    )
    cosine = mean(cosines)
    return QualityMeasures(
        norm=norm,
        bias=per(jnp.sqrt(sums.bias), norm),
        bias_standard_error=per(jnp.sqrt(variance / count), norm),
        variance=per(variance, sums.exact),
        error=per(jnp.sqrt(jnp.mean(sums.errors)), norm),
        cosine=cosine,
        cosine_deviation=jnp.sqrt(mean((cosines - cosine) ** 2)),
        norm_ratio=per(jnp.mean(jnp.sqrt(sums.estimates)), norm),
        sign_agreement=jnp.mean(sums.agreeing) / sums.size,
        zeros=jnp.mean(zero, dtype=norm.dtype),
    )
