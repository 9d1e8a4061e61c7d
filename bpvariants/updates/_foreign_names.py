"""Errors for argument names of other libraries, such as PyTorch's `lr`."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TORCH_RPROP = {
    "lr": "learning_rate",
    "etas": "eta_minus and eta_plus",
    "step_sizes": "min_step_size and max_step_size",
}


def refuses(**ours: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a function reject PyTorch's argument names."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name, value in kwargs.items():
                if name in ours:
                    raise TypeError(
                        f"{getattr(function, '__name__', '')} has no argument {name}, "
                        f"as in PyTorch, got {name}={value!r}; use {ours[name]}."
                    )
            return function(*args, **kwargs)

        return checked

    return decorate
