"""Checks, resets and padding for one time step, used by all online rules."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import one_example, over_batch
from bpvariants._checks import check_arrays, check_floating, check_like, check_real
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import (
    as_arrays,
    check_step,
    counted,
    effective_weights,
    normalised,
)
from bpvariants._masking import blank, keep, restart
from bpvariants._settings import described
from bpvariants.types import PyTree, Step


class OnlineStep(NamedTuple):
    """Checked and prepared arguments of an online rule at one step.

    Attributes:
      example: function (params, carry, (x, target)) -> (new carry, loss) for one
        example, whose leaves have no batch axes.
      examples: the same function for the whole batch, by `jax.vmap`.
      shares: normalised weights of the losses, w / Σ w, [*batch]; or, without weights
        and mask, the scalar 1 / (number of losses).
      start: the carry at the start of the step, after resets.
      inputs: (x, target), which are zeros in padding. If there are weights, the target
        is `Counted`.
      batch: shape of the batch.
      dtype: dtype of the losses.
      mask: [*batch], False in padding; or None.
      reset: [*batch], True at a reset; or None.
    """

    example: Step
    examples: Step
    shares: jax.Array
    start: PyTree
    inputs: PyTree
    batch: tuple[int, ...]
    dtype: Any
    mask: jax.Array | None
    reset: jax.Array | None

    def restarted(self, state: PyTree, fresh: PyTree | None = None) -> PyTree:
        """Replace `state` by `fresh` for examples that are reset at this step.

        `state` and `fresh` have leaves [*batch, ...]. By default, `fresh` is zeros.
        """
        fresh = jax.tree.map(jnp.zeros_like, state) if fresh is None else fresh
        return restart(state, fresh, self.mask, self.reset)

    def kept(self, new: PyTree, old: PyTree) -> PyTree:
        """Replace `new` by `old` for examples that are padding at this step."""
        return keep(new, old, self.mask)


def check_state(rule: str, state: object, kind: type) -> None:
    if not isinstance(state, kind):
        raise ValueError(
            f"state must be what {rule}'s init or update returned, got "
            f"{type(state).__name__}; call rule.init(params, carry, (x, target)) first."
        )


def check_fits(rule: str, part: str, got: PyTree, want: PyTree) -> None:
    shapes = lambda tree: list(map(jnp.shape, jax.tree.leaves(tree)))
    structure = jax.tree.structure
    if structure(got) != structure(want) or shapes(got) != shapes(want):
        raise ValueError(
            f"state must be what {rule}'s init or update returned for this network and "
            f"these settings, with a state.{part} of shapes {shapes(want)} in "
            f"{structure(want)}; got {shapes(got)} in {structure(got)}. Make it with "
            "this rule's init(params, carry, (x, target))."
        )


def enter_first_step(
    advance: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    initial: PyTree | None,
) -> tuple[OnlineStep, PyTree]:
    """Check the arguments of an online rule's init; return (first step, initial).

    `inputs` may be `jax.ShapeDtypeStruct`s. The returned `initial` is the carry after a
    reset.
    """
    if not isinstance(inputs, tuple | list) or len(inputs) != 2:
        raise ValueError(
            "inputs must be the pair (x, target) of one step, arrays or their shapes "
            f"(jax.ShapeDtypeStruct); got {described(inputs)}."
        )
    check_floating("params", params)
    check_real("params", params)
    for name, tree in {"carry": carry, "initial": initial}.items():
        check_arrays(name, tree)
    check_real("carry", carry)
    carry = jax.tree.map(jnp.asarray, carry)
    initial = carry if initial is None else initial
    check_like("initial", initial, "carry", carry)
    x, target = inputs
    flags = (None, None, None)
    return enter_step(advance, params, carry, initial, x, target, *flags), initial


def enter_step(
    advance: Step,
    params: PyTree,
    carry: PyTree,
    initial: PyTree,
    x: PyTree,
    target: PyTree,
    weight: jax.typing.ArrayLike | None,
    mask: jax.typing.ArrayLike | None,
    reset: jax.typing.ArrayLike | None,
) -> OnlineStep:
    """Check and prepare the arguments of an online rule's update.

    `advance` is the network's step, with the loss as output.
    """
    for name, tree in {"x": x, "target": target}.items():
        check_arrays(name, tree)
    weight, mask, reset = as_arrays(weight=weight, mask=mask, reset=reset)
    losses = check_step(
        advance, params, carry, x, target, weight=weight, mask=mask, reset=reset
    )
    advance = with_stored_operands(advance, params, carry, (x, target))
    example = one_example(advance, losses.ndim)
    return OnlineStep(
        example=example,
        examples=over_batch(example, losses.ndim),
        shares=normalised(effective_weights(weight, mask), losses.shape, losses.dtype),
        start=restart(carry, initial, mask, reset),
        inputs=blank((x, counted(target, weight, mask)), carry, mask),
        batch=losses.shape,
        dtype=losses.dtype,
        mask=mask,
        reset=reset,
    )
