"""Rprop that reverts steps exactly, even if another transformation changed them.

Rprop⁺ and iRprop⁺ revert a step by a step of the same length in the opposite direction.
Both optimizers take the length of the reverting step from the stored step size. This
length is wrong if a later transformation changed the length of the step to be reverted.
The optimizer in this file applies the transformation `after` itself, and stores the
previous params θ_{t−1}. With gradient g_t and step length D_t, a reverted step returns
to θ_{t−1}:

    θ_{t+1} = θ_{t−1}                          where the step is reverted
              θ_t + after(−D_t sign(g_t))      elsewhere.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants.updates._params import as_grads, check_state
from bpvariants.updates.resilient._rprop import array_rule_of, compare, kept_leaves
from bpvariants.updates.resilient._rprop_layouts import RpropLayout


class RestoringState(NamedTuple):
    """State of rprop_plus and irprop_plus with `after`."""

    rprop: Any  # a ScaleByRpropState
    after: optax.OptState
    last_params: optax.Params  # the previous params θ_{t−1}


def restoring(
    rule: optax.GradientTransformationExtraArgs,
    layout: RpropLayout,
    after: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that applies `after` to all steps except reverted steps."""
    if not isinstance(after, optax.GradientTransformation):
        raise ValueError(
            "after must be an optax.GradientTransformation, such as optax.clip(1.0), "
            f"got {after!r}."
        )
    after = optax.with_extra_args_support(after)

    def init(params):
        rprop = rule.init(params)  # first, because `rule` checks params
        copy = jax.tree.map(jnp.array, params)
        return RestoringState(rprop, after.init(params), copy)

    def update(updates, state, params=None, *, value=None, **extra_args):
        if params is None:
            raise ValueError(
                "rprop with after needs params, because it returns to earlier ones: "
                "call optimizer.update(grads, state, params)."
            )
        check_state(f"{layout.variant} with after", state, RestoringState)
        params = as_grads(params, state.last_params, "params")
        result: Any = rule.update(updates, state.rprop, params, value=value)
        moves, rprop = result
        steps, new_after = after.update(
            jax.tree.map(jnp.negative, moves),
            state.after,
            params,
            value=value,
            **extra_args,
        )
        worse = True
        if layout.variant == "irprop_plus":
            worse, _ = compare(value, state.rprop.last_value)

        see = array_rule_of(layout).see
        leaves, structure = jax.tree.flatten(steps)
        trees = map(jax.tree.leaves, (moves, params, state.last_params))
        restored = []
        for step, move, here, last, kept in zip(
            leaves, *trees, kept_leaves(rprop), strict=True
        ):
            back = see(kept, layout).flipped & ~jnp.isnan(move) & worse
            restored.append(jnp.where(back, _difference(last, here), step))
        steps = structure.unflatten(restored)
        return steps, RestoringState(rprop, new_after, params)

    return optax.GradientTransformationExtraArgs(init, update)


def _difference(target, here):
    """Return target − here, corrected so that adding it to `here` rounds to target."""
    difference = target - here
    return difference + (target - (here + difference))
