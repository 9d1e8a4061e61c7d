"""Angles between a rule's errors and gradients and those of backpropagation."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import widen
from bpvariants._examples import norm
from bpvariants._tables import aligned, short
from bpvariants.gradients.static._layer_info import BackpropInfo
from bpvariants.types import PyTree


class AlignmentAngles(NamedTuple):
    """Angles in degrees, [Λ] for Λ layers, as :func:`alignment_angles` returns them.

    Attributes:
      deltas: angle between the two δ_l, as vectors over all examples together.
      grads: angle between the two ∂E/∂w_l.
    """

    deltas: jax.Array
    grads: jax.Array

    def table(self) -> str:
        """Return a line of text for each layer. Not within `jit`: it needs values."""
        rows = [["layer", "∠δ", "∠∂E/∂w"]]
        for number, angles in enumerate(zip(*map(np.asarray, self), strict=True), 1):
            rows.append([str(number), *(short(float(angle)) for angle in angles)])
        return aligned(rows)


def alignment_angles(info: BackpropInfo, exact: BackpropInfo) -> AlignmentAngles:
    """Measure the angles between a rule's deltas and gradients and the exact ones.

        angle(a, b) = 2 arctan(‖â − b̂‖ / ‖â + b̂‖),    â = a / ‖a‖

    Unlike the arc cosine, this formula is also accurate at 0 and 180 degrees. If the
    angle is below 90 degrees, a small step against the rule's gradient lowers the loss.
    The function works under `jit`, and within a training under `lax.scan`.

    Args:
      info: the info that :func:`feedback_alignment` returned.
      exact: the info that :func:`backprop` returned for the same layers, params and
        examples.

    Returns:
      :class:`AlignmentAngles`, in degrees; NaN where one of the two vectors is 0.

    Raises:
      ValueError: if the two differ in their layers or shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> layers = [(lambda w, y: y @ w, lambda s: s)] * 2
      >>> loss = lambda y, target: jnp.sum(y * target, -1)
      >>> params = jnp.eye(2), jnp.eye(2)
      >>> x, target = jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0])
      >>> rule = gradients.feedback_alignment(layers, loss)
      >>> turned = None, jnp.array([[0.0, 1.0], [-1.0, 0.0]])
      >>> (_, info), _ = rule(params, x, target, feedback=turned)
      >>> (_, exact), _ = gradients.backprop(layers, loss)(params, x, target)
      >>> print(diagnostics.alignment_angles(info, exact).table())
      layer    ∠δ ∠∂E/∂w
      1     90.00  90.00
      2         0      0

    References:
      Lillicrap et al. 2016, doi:10.1038/ncomms13276.
    """
    shapes = lambda info: [
        jax.tree.map(jnp.shape, (layer.delta, layer.grad)) for layer in info
    ]
    if shapes(info) != shapes(exact):
        raise ValueError(
            "info and exact must be of the same layers, params and examples; got δ and "
            f"∂E/∂w of shapes {shapes(info)} and {shapes(exact)}."
        )
    pairs = list(zip(info, exact, strict=True))
    return AlignmentAngles(
        jnp.stack([_angle(a.delta, b.delta) for a, b in pairs]),
        jnp.stack([_angle(a.grad, b.grad) for a, b in pairs]),
    )


def _angle(a: PyTree, b: PyTree) -> jax.Array:
    a, b = _unit(a), _unit(b)
    apart = norm(jax.tree.map(jnp.subtract, a, b))
    along = norm(jax.tree.map(jnp.add, a, b))
    return jnp.arctan2(apart, along) * (2 * 180 / math.pi)


def _unit(tree: PyTree) -> PyTree:
    """Return the tree scaled to norm 1; NaN if its norm is 0."""
    tree = widen(tree)
    size = norm(tree)
    size = jnp.where(size == 0, jnp.nan, size)
    return jax.tree.map(lambda leaf: leaf / size.astype(leaf.dtype), tree)
