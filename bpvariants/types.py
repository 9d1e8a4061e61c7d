"""The contract: what a network, a loss and a gradient rule are.

Shapes: T time steps; *batch any number of batch axes, none included; n numbers in the
carry of one example; p numbers in params. Sequences are time-major, [T, *batch, ...].
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

PyTree: TypeAlias = Any

# (params, carry, x) -> (carry, y): one time step of a network, each example by itself.
Step: TypeAlias = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]

# (y, target) -> losses [*batch]: one loss for each example.
Loss: TypeAlias = Callable[[PyTree, PyTree], jax.Array]


class GradientRule(Protocol):
    """A loss over a sequence and its gradient, shaped as `jax.value_and_grad`'s."""

    def __call__(
        self,
        params: PyTree,
        carry: PyTree,
        xs: PyTree,
        targets: PyTree,
        weights: jax.Array | None = None,
        mask: jax.Array | None = None,
        reset: jax.Array | None = None,
        initial: PyTree | None = None,
    ) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """Return ((value, carry), grads) of the mean loss Σ w·ℓ / Σ w.

        Args:
          params: any pytree of floating arrays.
          carry: state before the first step, leaves [*batch, ...].
          xs: inputs, leaves [T, *batch, ...].
          targets: what the loss compares outputs with, leaves [T, *batch, ...].
          weights: [T, *batch], how much each loss counts. Default: the mask, or all 1.
          mask: [T, *batch] bool, False in padding. There the carry passes through
            unchanged, no loss counts, and nothing is looked at, so it may be NaN.
            Network and loss are shown zeros instead, at which they must be finite.
          reset: [T, *batch] bool, True puts `initial` back before this step, unless
            the step is padding.
          initial: what a reset puts back, like carry. Default: the carry given, which
            is not the start of the episode where windows of a stream are chained.

        Returns:
          value [], float32 or wider, which is 0, as are grads, where Σ w = 0; the carry
          after the last step, from which a next call may continue; and grads, like
          params.

        Raises:
          ValueError: while tracing, if lengths, shapes or dtypes disagree.
        """
        ...


class OnlineRule(NamedTuple):
    """A gradient rule that takes one time step at a time, inside anyone's loop.

        state = rule.init(params, carry, initial=None, batch_shape=None, inputs=None)
        value, grads, state = rule.update(
            params, state, x, target, weight=None, mask=None, reset=None
        )

    Arguments are those of a :class:`GradientRule` at one step, so that weight, mask and
    reset are [*batch], and keywords; value and grads are those of the weighted mean
    over the batch. `state.carry` is the carry of the network. A reset puts back the
    `initial` given to `init`, by default its carry. A rule that draws at random takes
    `key=` in `update`. A rule whose state depends on the batch shape, or on what the
    network does with its inputs, takes `batch_shape=`, or `inputs=`, the arrays or
    shapes (x, target) of one step, in `init`.
    """

    init: Callable[..., Any]
    update: Callable[..., tuple[jax.Array, PyTree, Any]]
