"""Checks of single values and of calls; descriptions of values for error messages."""

import os
import reprlib
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class UsageError(ValueError):
    """Error whose message is complete, so that callers raise it again unchanged."""


def described(value: Any) -> str:
    """Return a few words that say what a value is, such as "an array float32[2, 3]"."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    if isinstance(value, tuple | list | dict) and type(value).__module__ == "builtins":
        return f"a {type(value).__name__} of {len(value)}"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return reprlib.repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def check_number(
    name: str, setting: Any, per_leaf: bool = False, remedy: str = ""
) -> None:
    """Check that a setting is a number or an array; with `per_leaf`, also a pytree."""
    lone = jax.tree_util.all_leaves([setting])
    end = f"; {remedy}." if remedy else "."
    if setting is None or not (lone or per_leaf):
        raise ValueError(f"{name} must be a number, got {setting!r}{end}")
    for leaf in jax.tree.leaves(setting):
        is_array = isinstance(leaf, jax.Array | np.ndarray)
        is_number = isinstance(leaf, Real) and not isinstance(leaf, bool | np.bool_)
        if not is_array and not is_number:
            raise ValueError(f"{name} must be a number, got {leaf!r}{end}")


def check_scalar(name: str, setting: Any, remedy: str = "") -> None:
    """Check that a setting is one number, which may be an array of shape ()."""
    check_number(name, setting, remedy=remedy)
    if jnp.ndim(setting):
        raise ValueError(
            f"{name} must be one number, got {described(setting)}"
            + (f"; {remedy}." if remedy else ".")
        )


def check_no_text(**settings: Any) -> None:
    """Check that no setting of a registered dataclass is text or a container.

    Other values are accepted, because JAX calls the constructor of a registered
    dataclass also with tracers and with placeholders.
    """
    for name, setting in settings.items():
        if isinstance(setting, str | bytes | list | tuple | dict):
            raise ValueError(
                f"{name} must be a number, got {setting!r}; to keep the default, leave "
                f"{name} out."
            )


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def check_one_of(name: str, value: object, known: Iterable[str]) -> None:
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {known}, got {value!r}.")


def check_path(name: str, value: object) -> None:
    """Check that a value is a path, and not empty."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"{name} must be a path, got {value!r}.")


def module_remedy(value: Any) -> str:
    """Return advice: how to make a step of a Flax or Equinox module; else ""."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    homes = {kind.__module__.split(".")[0]: kind.__module__ for kind in kinds}
    if "flax" in homes and any(".linen" in kind.__module__ for kind in kinds):
        return "of a Linen module, give its method, module.apply"
    if "flax" in homes and any(".nnx" in kind.__module__ for kind in kinds):
        return "of an NNX module, use step, params = adapters.from_nnx(module)"
    if "equinox" in homes:
        return "of an Equinox module, use step, params = adapters.from_equinox(module)"
    return ""


def called(
    form: str,
    function: Callable[..., Any],
    *arguments: Any,
    remedy: str = "give a function of these arguments",
) -> Any:
    """Call the user's function; if the arguments do not fit it, raise a clear error."""
    try:
        return function(*arguments)
    except TypeError as error:
        # If the arguments do not fit, the traceback of the error has one entry, this
        # call. If the error arose in the function's body, the traceback has more
        # entries. Flax and Equinox modules wrap their calls, so their errors always
        # have more entries; for a module, the error's text is checked instead.
        of_module = module_remedy(function)
        within = error.__traceback__ is None or error.__traceback__.tb_next is not None
        if within and not (of_module and "positional argument" in str(error)):
            raise
        name = form.partition("(")[0]
        message = f"{name} cannot be called as {form}: {error}; {of_module or remedy}."
        raise UsageError(message) from error
