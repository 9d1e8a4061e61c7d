"""Types of the functions that `backprop` and `feedback_alignment` return."""

from collections.abc import Sequence
from typing import Protocol

import jax

from bpvariants.gradients.static._layer_info import BackpropInfo
from bpvariants.types import PyTree


class BackpropRule(Protocol):
    """Function that :func:`backprop` returns: loss, factors and gradient of layers."""

    def __call__(
        self,
        params: Sequence[PyTree],
        x: PyTree,
        target: PyTree,
        weights: jax.typing.ArrayLike | None = None,
    ) -> tuple[tuple[jax.Array, BackpropInfo], tuple[PyTree, ...]]:
        """Return ((value, info), grads) of the weighted mean loss Σ w·ℓ / Σ w.

        Args:
          params: one entry for each layer; each is a pytree of floating arrays.
          x: inputs of the first layer, leaves [*batch, ...].
          target: the values that the loss compares with the last layer's y, leaves
            [*batch, ...].
          weights: [*batch] real, the weight w of each loss. Default: 1.

        Returns:
          The mean loss `value` []; a :class:`BackpropInfo` with an entry for each
          layer; and grads, one entry for each layer.
        """
        ...


class FeedbackAlignmentRule(Protocol):
    """Function that :func:`feedback_alignment` returns."""

    def __call__(
        self,
        params: Sequence[PyTree],
        x: PyTree,
        target: PyTree,
        weights: jax.typing.ArrayLike | None = None,
        *,
        feedback: Sequence[PyTree] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, BackpropInfo], tuple[PyTree, ...]]:
        """Return ((value, info), grads), as a :class:`BackpropRule` does.

        Args:
          params: one entry for each layer; each is a pytree of floating arrays.
          x: inputs of the first layer, leaves [*batch, ...].
          target: the values that the loss compares with the last layer's y, leaves
            [*batch, ...].
          weights: [*batch] real, the weight w of each loss. Default: 1.
          feedback: one entry for each layer, as :func:`alignment_weights` returns them;
            for the kinds "fa", "dfa" and "frsf".
          key: a `jax.random.key`, a new one for each batch; for the kind "brsf".
        """
        ...
