"""Comparison of the gradients of two rules by direction, norm and signs.

Notation: a is the gradient of the first rule, which is the reference, and b is the
gradient of the second rule. The gradients are compared by

    cosine = ⟨a, b⟩ / (‖a‖ ‖b‖),    angle = arccos(cosine),
    norm ratio = ‖b‖ / ‖a‖,         relative error = ‖b − a‖ / ‖a‖.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import widen
from bpvariants._examples import norm, unit
from bpvariants._tables import aligned, in_short, named_leaves, short
from bpvariants.diagnostics._rules import call_rule
from bpvariants.types import PyTree


class Agreement(NamedTuple):
    """Comparison of two gradients a and b, for one array of params or for all params.

    If a or b is zero, it has no direction, so `cosine` and `angle` are NaN. If the
    reference gradient a is zero, `norm_ratio` and `relative_error` are NaN too.

    Attributes:
      norm_a: norm ‖a‖ of the first rule's gradient, which is the reference.
      norm_b: norm ‖b‖ of the second rule's gradient.
      cosine: cosine of the angle between a and b, from −1 to 1.
      angle: angle between a and b in degrees. If the angle is above 90, a small step
        along −b increases the loss whose gradient is a.
      norm_ratio: ‖b‖ / ‖a‖, norm of b relative to the norm of a.
      sign_agreement: fraction of elements with the same sign in a and b; signs are −1,
        0 and 1.
      relative_error: ‖b − a‖ / ‖a‖, norm of the difference relative to the norm of a.
    """

    norm_a: jax.Array
    norm_b: jax.Array
    cosine: jax.Array
    angle: jax.Array
    norm_ratio: jax.Array
    sign_agreement: jax.Array
    relative_error: jax.Array


class Comparison(NamedTuple):
    """Result of :func:`compare`: agreement of two gradients, for each array of params.

    Attributes:
      total: an :class:`Agreement` for all params together.
      leaves: a tree like params, with an :class:`Agreement` for each array.
    """

    total: Agreement
    leaves: PyTree

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self) -> str:
        """Return text: a line for all params together, then a line for each array."""
        is_agreement = lambda node: isinstance(node, Agreement)
        named = [
            (name, each)
            for name, each in named_leaves(self.leaves, is_agreement)
            if name
        ]
        rows = [["", "‖a‖", "‖b‖", "cosine", "angle", "ratio", "signs", "error"]]
        for name, each in [("total", self.total), *named]:
            rows.append([name, *map(short, each)])
        zero = [
            f"{name}: {which} is zero and has no direction."
            for name, each in [("total", self.total), *named]
            for which, size in (("a", each.norm_a), ("b", each.norm_b))
            if size == 0
        ]
        return "\n".join([aligned(rows), *zero])

    def _words(self) -> str:
        cosine, error = short(self.total.cosine), short(self.total.relative_error)
        return f"cosine {cosine}, relative error {error}"


def compare(
    rule_a: Callable[..., tuple[Any, PyTree]],
    rule_b: Callable[..., tuple[Any, PyTree]],
    params: PyTree,
    *args: PyTree,
    **options: Any,
) -> Comparison:
    """Compare the gradients of two rules, for each array of params.

        cosine ⟨a, b⟩ / (‖a‖ ‖b‖),  angle,  ‖b‖ / ‖a‖,  signs,  ‖b − a‖ / ‖a‖

    Here a is the gradient of `rule_a`, which is the reference, and b is the gradient of
    `rule_b`. Both rules get the same params, args and options. Gradients are scaled
    before their elements are squared, so float32 gradients of 1e-30 do not underflow to
    a norm of 0. `compare` is a pure function that can be jitted. Time: one call of each
    rule.

    Args:
      rule_a: the reference, (params, *args, **options) -> (value, grads), such as
        gradients.bptt(step, loss). The `value` may be of any type.
      rule_b: the rule to compare with rule_a, called with the same arguments. Give a
        random rule its key by `functools.partial(rule, key=key)`. To measure the bias
        and variance of a random rule, use diagnostics.gradient_quality.
      params: parameters θ at which the gradients are compared.
      *args: arguments of both rules after params, such as carry, xs and targets.
      **options: keyword arguments of both rules, such as weights or mask.

    Returns:
      A :class:`Comparison`; `table()` returns it as text.

    Raises:
      ValueError: if params are not floating, or if a rule does not return gradients of
        params' shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> network = lambda w, h, x: (w["h"] * h + w["x"] * x, w["h"] * h + w["x"] * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> args = {"h": 0.5, "x": 2.0}, jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> found = diagnostics.compare(
      ...     gradients.bptt(network, loss),
      ...     gradients.truncated_bptt(network, loss, every=1, lookback=1), *args
      ... )
      >>> print(found.table())
              ‖a‖   ‖b‖ cosine angle ratio signs error
      total 8.846 7.810  .9915 7.485 .8829 1.000 .1696
      ['h'] 6.000 6.000  1.000     0 1.000 1.000     0
      ['x'] 6.500 5.000  1.000     0 .7692 1.000 .2308
    """
    a, b = (
        widen(call_rule(name, rule, params, *args, **options)[1])
        for name, rule in (("rule_a", rule_a), ("rule_b", rule_b))
    )
    agreement = lambda a, b: _agreement([a], [b])
    return Comparison(
        _agreement(jax.tree.leaves(a), jax.tree.leaves(b)),
        jax.tree.map(agreement, a, b),
    )


def _agreement(a: list[jax.Array], b: list[jax.Array]) -> Agreement:
    """Compare two gradients; all arrays of a gradient together are one vector."""
    norm_a, norm_b = norm(a), norm(b)
    known = (norm_a > 0) & (norm_b > 0)
    unit_a, unit_b = unit(norm_a), unit(norm_b)
    one = lambda array, by: array / by.astype(array.dtype)
    product = lambda x, y: jnp.sum((one(x, unit_a) * one(y, unit_b).conj()).real)
    total = lambda terms: sum(
        (term.astype(norm_a.dtype) for term in terms), jnp.zeros((), norm_a.dtype)
    )
    cosine = jnp.clip(total(map(product, a, b)), -1, 1)
    cosine = jnp.where(known | jnp.isnan(cosine), cosine, jnp.nan)
    same = lambda x, y: jnp.sum(jnp.sign(x) == jnp.sign(y))
    reference = jnp.where(norm_a == 0, jnp.nan, norm_a)
    numbers = sum(leaf.size for leaf in a)
    return Agreement(
        norm_a=norm_a,
        norm_b=norm_b,
        cosine=cosine,
        angle=jnp.rad2deg(jnp.arccos(cosine)),
        norm_ratio=norm_b / reference,
        sign_agreement=total(map(same, a, b)) / numbers,
        relative_error=norm([y - x for x, y in zip(a, b, strict=True)]) / reference,
    )
