"""Call of the user's gradient rule, with checks of the rule and of its result."""

from typing import Any

import jax

from bpvariants._checks import check_floating, check_like
from bpvariants.types import OnlineRule, PyTree


def call_rule(
    name: str, rule: Any, params: PyTree, *args: PyTree, **options: Any
) -> tuple[jax.Array, PyTree]:
    """Call a gradient rule; return its value and gradient, but not its carry."""
    check_floating("params", params)
    if isinstance(rule, OnlineRule) or not callable(rule):
        raise ValueError(
            f"{name} must be a function that returns (value, grads), got "
            f"{type(rule).__name__}; gradients.over_sequence makes a rule from an "
            "online rule."
        )
    result = rule(params, *args, **options)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(
            f"{name} must return (value, grads) or ((value, anything), grads), as a "
            "gradient rule or jax.value_and_grad of a function does; got "
            f"{type(result).__name__}."
        )
    value, grads = result
    check_like(f"the gradient that {name} returns", grads, "params", params)
    return value[0] if isinstance(value, tuple) else value, grads
