"""Calls of the user's rule and `sample`, with checks of their results."""

import re
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_like, check_real, KeyNotTaken
from bpvariants._settings import called, described
from bpvariants.types import PyTree

UNFIT = re.compile(
    "required (positional|keyword-only) arg|unexpected keyword|takes .*arg"
)
NO_KEY = re.compile(
    "unexpected keyword argument 'key'|takes no keyword arguments"
    "|multiple values for argument 'key'"  # the key of the rule is part of its batch
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


def takes_key(
    recipe: Any, state: Any, key: jax.Array, inputs: PyTree, runs: int | None
) -> bool:
    """Return whether a rule accepts `key`; the rule is traced if it does.

    `state` is the state of the training, and `inputs` are the inputs of a chunk of
    steps. A rule without an argument `key` raises an error before it is traced.
    """

    def call(state, key, inputs):
        whole, stacked = inputs
        first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
        if runs is not None:
            state = first(state)
        batch = whole if stacked is None else first(stacked)
        if recipe.sample is not None:
            batch = draw_batch(recipe.sample, key, whole)
        carries = (state.carry,) if recipe.stateful else ()
        recipe.rule(state.params, *carries, *batch, key=key)

    try:
        jax.eval_shape(call, state, key, inputs)
    except KeyNotTaken:
        return False
    except TypeError as error:
        return not NO_KEY.search(str(error))
    except Exception:  # the training raises this error again, with advice
        return True
    return True


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
                f"key=jax.random.key(seed). ({error})"
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
        "If the rule must not get a key, give draws=False."
        if options
        else "If the rule draws random numbers, give key=."
    )
    return (
        f"fit calls rule(params{carry}, *batch{key}), here with a batch of {count}, of "
        f"shapes {jax.tree.map(jnp.shape, batch)}. {about_carry} {about_key}"
    )
