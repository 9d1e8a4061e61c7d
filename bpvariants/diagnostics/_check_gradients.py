"""Check of a gradient against central differences of the loss along random directions.

Notation: a gradient rule returns a value L, such as a loss, and the gradient of L; g_i
is the part of the gradient for leaf i of the parameters θ. The random vector v has unit
length, and is 0 in all leaves except leaf i; ε is the length of a step along v. The
check compares two derivatives of L along v:

    analytic  ⟨g_i, v⟩    and    numeric  (L(θ + εv) − L(θ − εv)) / 2ε.

The numeric derivative has a truncation error of about ε²/6 times the third derivative
of L. The numeric derivative also has a rounding error of about u |L| / ε, where u is
the machine epsilon of the dtype. The step length ε = ∛u makes both errors small.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import (
    are_numbers,
    check_count,
    check_floating,
    check_single_key,
)
from bpvariants._dtypes import is_floating
from bpvariants._examples import norm
from bpvariants._settings import check_scalar
from bpvariants._tables import aligned, named_leaves, short
from bpvariants.diagnostics._rules import call_rule
from bpvariants.types import PyTree

SINGLE = (
    "x64 is off, so differences are computed in float32: expect errors of 1e-4 to "
    "1e-2, not\n1e-8. Set jax.config.update('jax_enable_x64', True) before the first "
    "array is made."
)


class GradientCheck(NamedTuple):
    """Result of :func:`check_gradients`, for K random directions in each leaf.

    Attributes:
      analytic: like params, leaves [K]: inner product ⟨g, v⟩ of the rule's gradient g
        and each direction v.
      numeric: like params, leaves [K]: central difference of the rule's value along
        each direction v.
      error: like params, leaves []: relative error √Σ (analytic − numeric)² / √Σ
        numeric², summed over the K directions; 0 if analytic and numeric are equal.
      rounding: like params, leaves []: relative error that can come from rounding of
        the rule's value L: u |L| √K / (ε √Σ numeric²), with machine epsilon u and step
        length ε. An `error` that is not much larger than `rounding` is no sign of a
        mistake.
      total: []: relative error √Σ (analytic − numeric)² / √Σ numeric², summed over all
        leaves and all directions.
    """

    analytic: PyTree
    numeric: PyTree
    error: PyTree
    rounding: PyTree
    total: jax.Array

    def table(self) -> str:
        """Return the derivatives and their differences as text, one line for each leaf.

        The line of a leaf shows only one of the leaf's random directions: the direction
        along which the analytic and the numeric derivative differ most.
        """
        rows = [["", "analytic", "numeric", "error", "rounding"]]
        columns = [jax.tree.leaves(column) for column in self[:4]]
        for (name, _), *cells in zip(named_leaves(self.error), *columns, strict=True):
            analytic, numeric, error, rounding = map(np.asarray, cells)
            worst = np.argmax(np.abs(analytic - numeric))
            shown = analytic[worst], numeric[worst], error, rounding
            rows.append([name or "params", *map(short, shown)])
        rows.append(["total", "", "", short(self.total), ""])
        single = self.total.dtype == jnp.float32
        return aligned(rows) + ("\n" + SINGLE if single else "")


def check_gradients(
    rule: Callable[..., tuple[Any, PyTree]],
    params: PyTree,
    *args: PyTree,
    key: jax.Array,
    directions: int = 4,
    step: float | jax.Array | None = None,
    **options: Any,
) -> GradientCheck:
    """Compare a rule's gradient with central differences of its value, leaf by leaf.

        ⟨g_i, v⟩    and    (L(θ + εv) − L(θ − εv)) / 2ε

    Here L is the rule's value, and g_i is the rule's gradient for leaf i of params θ. A
    step along a random direction v has the small length ε. The function measures the
    relative difference between these two derivatives of L along v. A large difference
    does not raise an error. The relative differences of an exact rule are about 1e-9 in
    float64. For a biased rule or a random rule, the differences measure how wrong its
    gradient is along the random directions.

    All floating arrays of params, args and options are cast to float64, or to float32
    if JAX's x64 mode is off. In float32, expect relative errors of 1e-4 to 1e-2, as
    `table()` notes. JAX's x64 setting is not changed. Arrays in the rule's closure, and
    casts within the rule, keep their dtypes: if a network computes in bfloat16,
    relative errors are about 1e-1.

    `check_gradients` is a pure function that can be jitted. Time: one gradient, and 2 K
    calls of the rule for each leaf of params, one after another, where K is the number
    of directions.

    Args:
      rule: (params, *args, **options) -> (value, grads) or ((value, anything), grads),
        such as a gradient rule, or `jax.value_and_grad` of a function. A random rule
        must draw the same random numbers in each call; therefore fix its key by
        `functools.partial(rule, key=key)`.
      params: parameters θ at which the gradient is checked.
      *args: the rule's arguments after params, such as carry, xs and targets.
      key: a `jax.random.key`, from which the directions are drawn.
      directions: number K of random directions in each leaf of params.
      step: step length ε along a direction. Default: the cube root of the dtype's
        machine epsilon, 6e-6 in float64.
      **options: the rule's keyword arguments, such as mask.

    Returns:
      A :class:`GradientCheck`; `table()` returns it as text.

    Raises:
      ValueError: if params are not floating, if the rule's value is not a real scalar,
        if the gradients' shapes are not those of params, or if directions or step are
        not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> rule = jax.value_and_grad(lambda p, x: jnp.sum(jnp.tanh(p["w"] * x)))
      >>> params, x = {"w": jnp.array([0.5, -2.0])}, jnp.array([1.0, 3.0])
      >>> check = diagnostics.check_gradients(rule, params, x, key=jax.random.key(0))
      >>> bool(check.total < 1e-2)  # in float32; less than 1e-8 in float64
      True
    """
    check_floating("params", params)
    check_count("directions", directions)
    check_single_key(key)
    if step is not None:
        check_scalar("step", step, remedy="1e-6 suits float64")
    params, args, options = jax.tree.map(_as_wide, (params, args, options))
    leaves, structure = jax.tree.flatten(params)
    value, grads = call_rule("rule", rule, params, *args, **options)
    grads = jax.tree.leaves(grads)
    u = jnp.finfo(_check_value(value).dtype).eps
    size: float | jax.Array = float(u) ** (1 / 3) if step is None else step
    if are_numbers(size) and not size > 0:
        raise ValueError(f"step must be positive, got {step}; 1e-6 suits float64.")
    size = jnp.asarray(size, value.dtype)

    def derivatives(place):
        chosen, draw = place
        parts = [
            _direction(jax.random.fold_in(jax.random.fold_in(key, i), draw), leaf)
            * (i == chosen).astype(leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]

        def moved(size):
            move = lambda leaf, v: leaf + size.astype(leaf.dtype) * v
            there = structure.unflatten(map(move, leaves, parts))
            return call_rule("rule", rule, there, *args, **options)[0]

        products = [jnp.sum((g * v).real) for g, v in zip(grads, parts, strict=True)]
        numeric = (moved(size) - moved(-size)) / (2 * size)
        return _as_wide(sum(products)), _as_wide(numeric)

    count = len(leaves)
    places = jnp.repeat(jnp.arange(count), directions), jnp.arange(count * directions)
    found = jax.lax.map(derivatives, places)
    analytic, numeric = (each.reshape(count, directions) for each in found)
    floor = _as_wide(u * jnp.abs(value) / size * directions**0.5)
    rows = lambda values: structure.unflatten(list(values))
    return GradientCheck(
        analytic=rows(analytic),
        numeric=rows(numeric),
        error=rows(map(_relative, analytic - numeric, numeric)),
        rounding=rows(floor / _nonzero(norm(numeric, 1))),
        total=_relative(analytic - numeric, numeric),
    )


def _as_wide(leaf: Any) -> Any:
    """Cast a floating or complex leaf to the widest dtype that JAX allows."""
    if not is_floating(leaf):
        return leaf
    is_complex = jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)
    return jnp.asarray(leaf, complex if is_complex else float)


def _direction(key: jax.Array, like: jax.Array) -> jax.Array:
    """Draw a random direction of unit length, with the shape of `like`."""
    drawn = jax.random.normal(key, like.shape, like.dtype)
    return drawn / _nonzero(norm(drawn)).astype(like.dtype)


def _nonzero(number: jax.Array) -> jax.Array:
    return jnp.where(number == 0, 1, number)


def _relative(difference: jax.Array, of: jax.Array) -> jax.Array:
    """Return the norm of `difference` relative to the norm of `of`; 0 if both are 0."""
    off = norm(difference)
    return jnp.where(off == 0, 0, off / norm(of))


def _check_value(value: Any) -> jax.Array:
    dtype = jnp.result_type(value)
    if jnp.shape(value) != () or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            "rule must return one real number as its value, got shape "
            f"{jnp.shape(value)} of {dtype}; take the mean or sum of the losses."
        )
    return value
