"""Checks of the map f(params, h, x) -> h: its result, and the order of its arguments.

The state h comes before the input x, as in the step of a recurrent network. If h and x
have the same shapes, a map that takes x before h cannot be detected.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_function,
    check_like,
    ONLY_ARRAYS,
)
from bpvariants.types import PyTree


def check_map_function(f: object) -> None:
    """Check that f is a function."""
    check_function("f", f, "(params, h, x) -> h")


def check_map(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    h: PyTree,
    x: PyTree,
    name: str,
) -> None:
    """Check that f(params, h, x) has the structure, shapes and dtypes of h.

    The error message says if f takes x before h, if the caller exchanged h and x, or if
    f returns a tuple, as the step of a recurrent network does. `name` is the caller's
    name for h.
    """
    check_arrays("params", params, ONLY_ARRAYS)
    check_arrays("x", x)
    new = None
    try:
        new = jax.eval_shape(f, params, h, x)
        check_like("the result of f", new, name, h)
    except Exception as error:
        shapes = f"{name} of shapes {_shapes(h)} and x of shapes {_shapes(x)}"
        if _returns(f, (params, x, h), like=h):
            raise ValueError(
                "f must take the state before the input, f(params, h, x), as a step "
                f"does; with {shapes} only f(params, x, h) returns a result like "
                f"{name}. Exchange the last two parameters of f."
            ) from error
        orders = (params, h, x), (params, x, h)
        # If f broadcasts h, the result has the shape of x in both orders of h and x.
        if sum(_returns(f, order, like=x) for order in orders) == 1:
            raise ValueError(
                f"{name} must come before x, and f must be f(params, h, x): the state "
                f"before the input. With {shapes} f returns a result like x, not like "
                f"{name}. Exchange {name} and x."
            ) from error
        if new is None and isinstance(error, TypeError | ValueError):
            raise ValueError(
                f"f(params, {name}, x) cannot be evaluated with {shapes}: {error} "
                f"{name} must have the shapes of the state that f takes and returns."
            ) from error
        if isinstance(new, tuple) and len(new) > 1 and _is_like(new[0], h):
            raise ValueError(
                f"f must return the state alone, like {name}; got a tuple of "
                f"{len(new)} whose first entry is like {name}. Of a step, give "
                "lambda params, h, x: step(params, h, x)[0]."
            ) from error
        raise


def _returns(f: Callable, args: tuple[PyTree, ...], like: PyTree) -> bool:
    try:
        return _is_like(jax.eval_shape(f, *args), like)
    except Exception:
        return False


def _is_like(tree: PyTree, like: PyTree) -> bool:
    try:
        check_like("", tree, "", like)
    except ValueError:
        return False
    return True


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
