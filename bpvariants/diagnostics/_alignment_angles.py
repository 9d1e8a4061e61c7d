"""Angles between approximate and exact error signals and gradients of each layer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import widen
from bpvariants._examples import norm
from bpvariants._settings import described
from bpvariants._tables import aligned, short
from bpvariants.gradients.static._layer_info import BackpropInfo
from bpvariants.types import PyTree


class AlignmentAngles(NamedTuple):
    """Result of :func:`alignment_angles`: an angle in degrees for each layer.

    Attributes:
      deltas: angle between the approximate and the exact error signal δ_l of each layer
        l; the error signals of all examples together are one vector.
      grads: angle between the approximate and the exact gradient ∂E/∂w_l of the loss E
        with respect to the weights w_l of each layer l.
    """

    deltas: jax.Array
    grads: jax.Array

    def table(self) -> str:
        """Return the angles as text, one line per layer; does not work within `jit`."""
        rows = [["layer", "∠δ", "∠∂E/∂w"]]
        for number, angles in enumerate(zip(*map(np.asarray, self), strict=True), 1):
            rows.append([str(number), *(short(float(angle)) for angle in angles)])
        return aligned(rows)


def alignment_angles(info: BackpropInfo, exact: BackpropInfo) -> AlignmentAngles:
    """Measure the angles between approximate and exact error signals and gradients.

        angle(a, b) = 2 arctan(‖â − b̂‖ / ‖â + b̂‖),    â = a / ‖a‖

    Here a is the approximate error signal or gradient of a layer, from feedback
    alignment, and b is the exact error signal or gradient of the layer. The vectors â
    and b̂ are a and b, scaled to norm 1. Unlike an arc cosine, the arctangent is also
    accurate for angles near 0 and 180 degrees. If the angle between the approximate and
    the exact gradient is below 90 degrees, a small step along the negative approximate
    gradient lowers the loss. `alignment_angles` works under `jit`, also within a
    training loop that is a `lax.scan`.

    Args:
      info: the `info` that a rule made by :func:`feedback_alignment` returned.
      exact: the `info` that a rule made by :func:`backprop` returned for the layers,
        params and examples that gave `info`.

    Returns:
      :class:`AlignmentAngles`, in degrees. An angle is NaN if one of its two vectors is
      0.

    Raises:
      ValueError: if `info` and `exact` differ in their layers or shapes.

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
    for name, each in {"info": info, "exact": exact}.items():
        if not isinstance(each, BackpropInfo):
            raise ValueError(
                f"{name} must be the info that a rule returns, as in (value, info), "
                f"grads = gradients.backprop(layers, loss)(…); got {described(each)}."
            )
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
    """Scale a pytree to norm 1; if its norm is 0, return NaN."""
    tree = widen(tree)
    size = norm(tree)
    size = jnp.where(size == 0, jnp.nan, size)
    return jax.tree.map(lambda leaf: leaf / size.astype(leaf.dtype), tree)
