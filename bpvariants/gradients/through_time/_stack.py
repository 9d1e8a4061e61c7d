"""Recurrent networks of several layers: a stack of steps that is itself a step.

Notation: K layers have parameters θ^l, carries h^l_t and outputs y^l_t, for layers
l = 1 … K. With the input x_t of the stack as y^0_t, the output of the stack is y_t:

    h^l_t, y^l_t = step^l(θ^l, h^l_{t−1}, y^{l−1}_t),    l = 1 … K,    y_t = y^K_t.
"""

from collections.abc import Iterable
from typing import Any

from bpvariants._checks import check_function
from bpvariants.gradients._stacked import StackedStep
from bpvariants.types import Step


def stack(steps: Iterable[Step]) -> Step:
    """Stack layers into one step: each layer's y is the next layer's x.

    The stack is an ordinary step: every gradient rule, :func:`unroll`,
    :func:`bidirectional` and `stack` itself accept it. Each time step of the stack runs
    one time step of every layer. Time and memory are the sums of the times and memories
    of the layers. :func:`rtrl` stores the influence of a layer's parameters only on
    this layer and on the layers above it. :func:`layerwise_rtrl` stores only the
    influence on this layer.

    Args:
      steps: the layers, lowest first, such as the `apply` of Linen cells. The y of a
        layer may be any pytree that is a valid x of the next layer.

    Returns:
      A step (params, carry, x) -> (carry, y). Its params (a tuple or list) and its
      carry (a tuple) have one entry for each layer; y is the y of the last layer.

    Raises:
      ValueError: if there are no steps, or if a step is not a function. The stack
        raises a ValueError if params or carry do not have one entry for each layer. The
        stack also raises a ValueError if a layer's new and old carry differ in
        structure, shapes or dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> twice = gradients.stack([integrate, integrate])
      >>> start = jnp.array(0.0), jnp.array(0.0)
      >>> last, ys = gradients.unroll(twice, (1.0, 2.0), start, jnp.ones(3))
      >>> [h.item() for h in last], ys.tolist()  # 1, 2, 3 added up, and doubled
      ([3.0, 12.0], [2.0, 6.0, 12.0])
    """
    return StackedStep(_layers(steps))


def _layers(steps: Any) -> tuple[Step, ...]:
    if callable(steps) or not isinstance(steps, Iterable):
        raise ValueError(
            f"steps must be a list of functions step(params, carry, x), got {steps!r}; "
            "for a single layer, give [step]."
        )
    layers = tuple(steps)
    if not layers:
        raise ValueError("steps must have at least one layer, got none.")
    for i, layer in enumerate(layers):
        check_function(f"steps[{i}]", layer, "(params, carry, x) -> (carry, y)")
    return layers
