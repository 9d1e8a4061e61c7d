"""Checks of the map f(params, h, x) -> h: its result, and the order of its arguments.

State comes before input, as in `step`. Where h and x have the same shapes, a reversed
order cannot be told from the right one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import check_like
from bpvariants.types import PyTree


def check_map(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    h: PyTree,
    x: PyTree,
    name: str,
) -> None:
    """Check that f(params, h, x) has the structure, shapes and dtypes of h.

    If it has not, the error says whether one of the two orders is reversed.
    """
    try:
        new = jax.eval_shape(f, params, h, x)
        check_like("what f returns", new, name, h)
    except Exception as error:
        shapes = f"{name} of shapes {_shapes(h)} and x of shapes {_shapes(x)}"
        if _returns(f, (params, x, h), like=h):
            raise ValueError(
                "f must take the state before the input, f(params, h, x), as a step "
                f"does; with {shapes} only f(params, x, h) returns the like of {name}. "
                "Exchange the last two parameters of f."
            ) from error
        orders = (params, h, x), (params, x, h)
        # An f that broadcasts returns the like of x in both orders: init is too small.
        if sum(_returns(f, order, like=x) for order in orders) == 1:
            raise ValueError(
                f"{name} must come before x, and f must be f(params, h, x): the state "
                f"before the input. With {shapes} f returns the like of x, not of "
                f"{name}. Exchange {name} and x."
            ) from error
        raise


def _returns(f: Callable, args: tuple[PyTree, ...], like: PyTree) -> bool:
    try:
        check_like("", jax.eval_shape(f, *args), "", like)
    except Exception:
        return False
    return True


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
