"""Types of the functions in this library: step, loss, gradient rule and online rule.

Letters in shapes: T is the number of time steps. *batch is any number of batch axes; it
may be empty. n is the number of array elements in the carry of one example, p the
number of array elements in params. Sequences are time-major, [T, *batch, ...].
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

import jax

PyTree: TypeAlias = Any

# (params, carry, x) -> (carry, y): one time step of a network. The examples of a batch
# do not affect each other.
Step: TypeAlias = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]

# (y, target) -> losses [*batch]: one real floating number for each example.
Loss: TypeAlias = Callable[[PyTree, PyTree], jax.Array]


class GradientRule(Protocol):
    """Function that returns a sequence's loss, and its exact or estimated gradient."""

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

        In the sums, ℓ is the loss of one example at one time step, and w its weight.

        Args:
          params: any pytree of floating arrays.
          carry: state before the first step, leaves [*batch, ...].
          xs: inputs, leaves [T, *batch, ...].
          targets: arrays that the loss compares with outputs, leaves [T, *batch, ...].
          weights: [T, *batch] real, the weight of each loss. Default: 0 in padding,
            else 1. Where a weight is 0, the step still runs, but the target may be
            missing (NaN). A loss with weight 0 is left out of value and grads if the
            loss or its target is not finite.
          mask: [T, *batch] bool, False in padding. In padding, the carry does not
            change, and no loss counts. Inputs, targets and weights in padding are
            ignored, so they may be NaN. Inputs in padding are replaced by zeros, so
            step and its derivative must be finite for zero inputs.
          reset: [T, *batch] bool. True sets the carry to `initial` before the step,
            unless the step is padding.
          initial: the carry after a reset, with the shapes of `carry`. Default:
            `carry`. With resets, give `initial` if `carry` comes from an earlier call,
            because `carry` is then not the start of an episode.

        Returns:
          The mean loss `value`, a scalar in float32 or wider; the carry after the last
          step, with which the next call may continue; and grads, a pytree like params.
          If all weights are 0, value and grads are 0.

        Raises:
          ValueError: while tracing, if lengths, shapes or dtypes disagree.
        """
        ...


class KeyedGradientRule(GradientRule, Protocol):
    """Gradient rule that takes the argument `key`, as it may use random numbers."""

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
        *,
        key: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """Return ((value, carry), grads); `key` is a `jax.random.key`."""
        ...


class InitOnline(Protocol):
    """The `init` of an :class:`OnlineRule`."""

    def __call__(
        self,
        params: PyTree,
        carry: PyTree,
        inputs: PyTree,
        *,
        initial: PyTree | None = None,
    ) -> Any:
        """Return the rule's state before the first step.

        Args:
          params: any pytree of floating arrays.
          carry: state of the network before the first step, leaves [*batch, ...].
          inputs: (x, target) of one step, as arrays or `jax.ShapeDtypeStruct`s.
          initial: the carry after a reset, with the shapes of `carry`. Default:
            `carry`.
        """
        ...


class UpdateOnline(Protocol):
    """The `update` of an :class:`OnlineRule`."""

    def __call__(
        self,
        params: PyTree,
        state: Any,
        x: PyTree,
        target: PyTree,
        *,
        weight: jax.typing.ArrayLike | None = None,
        mask: jax.typing.ArrayLike | None = None,
        reset: jax.typing.ArrayLike | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, PyTree, Any]:
        """Take one step; return (value, grads, state).

        Args:
          params: params with the shapes of those given to `init`.
          state: the rule's state, which `init` or the previous `update` returned.
          x: input, leaves [*batch, ...].
          target: arrays that the loss compares with the output, leaves [*batch, ...].
          weight: [*batch] real, the weight of each loss. Default: 0 in padding, else 1.
            Where the weight is 0, the target may be missing (NaN).
          mask: [*batch] bool, False in padding.
          reset: [*batch] bool. True sets the carry to `initial` before the step.
          key: a `jax.random.key`, different at each step. A rule that uses random
            numbers raises an error without a key; other rules ignore the key.
        """
        ...


class OnlineRule(NamedTuple):
    """A gradient rule that takes one time step at a time, inside your own loop.

        state = rule.init(params, carry, (x, target), initial=None)
        value, grads, state = rule.update(
            params, state, x, target, weight=None, mask=None, reset=None, key=None
        )

    Every online rule takes exactly these arguments. The arguments mean the same as
    those of a :class:`GradientRule`, but for one time step instead of a sequence. The
    value is the weighted mean loss over the batch, and grads are the gradient of this
    mean or an estimate of it. `state.carry` is the carry of the network.
    """

    init: InitOnline
    update: UpdateOnline

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a TypeError that says how to use the rule."""
        raise TypeError(
            "an online rule cannot be called. For a sequence, give rule = "
            "gradients.over_sequence(rule); for one step, call rule.init and "
            "rule.update."
        )
