"""Calls of the user's rule and `sample`, with checks of their results."""

import re
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_like, check_real
from bpvariants._settings import called, described
from bpvariants.types import PyTree

UNFIT = re.compile(
    "required (positional|keyword-only) arg|unexpected keyword|takes .*arg"
)


def draw_batch(sample: Any, key: jax.Array | None, data: PyTree) -> tuple:
    """Return the batch that `sample` draws; check that it is a tuple."""
    batch = called("sample(key, data)", sample, key, data)
    if not isinstance(batch, (tuple, list)):
        raise ValueError(
            "sample must return a tuple, the batch: the arguments of the rule after "
            f"params, such as (xs, targets); got {described(batch)}."
        )
    return tuple(batch)


def call_rule(
    rule: Any, params: PyTree, carries: tuple, batch: tuple, options: dict[str, Any]
) -> tuple[tuple[jax.Array, PyTree], PyTree]:
    """Call a rule; check the shapes of the gradients and of the new carry, if any."""
    try:
        result = rule(params, *carries, *batch, **options)
    except Exception as error:
        told = _told(carries, batch, options)
        unfit = isinstance(error, TypeError) and UNFIT.search(str(error))
        asks = "key must be given" in str(error) or (unfit and "'key'" in str(error))
        if asks and not options:
            raise ValueError(
                "rule draws random numbers, but fit has no key for it; give fit "
                f"draws=True and key=jax.random.key(seed). ({error})"
            ) from error
        if unfit:
            raise ValueError(f"rule cannot be called: {error}. {told}") from error
        error.add_note(told)
        raise
    match result:
        case ((value, aux), grads) if jnp.ndim(value) == 0:
            pass
        case _:
            raise ValueError(
                "rule must return ((value, aux), grads) with a scalar value, as "
                "gradient rules and jax.value_and_grad(..., has_aux=True) do; got a "
                f"result of shapes {jax.tree.map(jnp.shape, result)}."
            )
    shapes = lambda tree: jax.tree.map(lambda leaf: [*jnp.shape(leaf)], tree)
    if jax.tree.structure(grads) != jax.tree.structure(params) or (
        shapes(grads) != shapes(params)
    ):
        raise ValueError(
            "rule must return grads of the structure and the shapes of params, "
            f"{shapes(params)}; got {shapes(grads)}."
        )
    check_real("the value of rule", value, "take the real part, or jnp.abs.")
    for (path, grad), param in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(params), strict=True
    ):
        if jnp.iscomplexobj(grad) and not jnp.iscomplexobj(param):
            raise ValueError(
                f"grads{jax.tree_util.keystr(path)} of rule must be real, as params "
                f"are, got {jnp.result_type(grad)}."
            )
    if carries:
        check_like("the aux that rule returns", aux, "the carry", carries[0])
    return (value, aux), grads


def _told(carries: tuple, batch: tuple, options: dict[str, Any]) -> str:
    """Return text for errors: how `fit` calls the rule, and how to change the call."""
    carry, key = ", carry" * bool(carries), ", key=key" * bool(options)
    count = f"{len(batch)} {'entry' if len(batch) == 1 else 'entries'}"
    about_carry = (
        "fit passes carry= on by itself, so a batch must not hold it."
        if carries
        else "If the rule takes a carry, give carry=, or put it first in each batch."
    )
    about_key = (
        "If the rule does not draw random numbers, leave draws=True out."
        if options
        else "If the rule draws random numbers, give draws=True and key=."
    )
    return (
        f"fit calls rule(params{carry}, *batch{key}), here with a batch of {count}, of "
        f"shapes {jax.tree.map(jnp.shape, batch)}. {about_carry} {about_key}"
    )
