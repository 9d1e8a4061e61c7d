"""Run compiled gradient rules, and compare pytrees."""

import re
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_programs.build import Problem


class Unfit(Exception):
    """There is no reference result for a random program."""


class Refused(Exception):
    """A gradient rule raised the documented error for an unsupported program."""


@contextmanager
def refusals(pattern: str | None):
    """Raise `Refused` in place of a ValueError whose message matches `pattern`."""
    try:
        yield
    except ValueError as error:
        if pattern is None or not re.search(pattern, str(error)):
            raise
        raise Refused(str(error)) from error


def assert_close(got: Any, want: Any, tolerance: float = 1e-9) -> None:
    """Check that two pytrees agree, relative to the largest element of `want`."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    wanted = jax.tree.map(numbers, want)
    floats = [leaf for leaf in jax.tree.leaves(wanted) if leaf.dtype.kind == "f"]
    scale = 1 + max((np.max(np.abs(leaf), initial=0) for leaf in floats), default=0)
    pairs = jax.tree.leaves_with_path(got), jax.tree.leaves(wanted)
    for (path, a), b in zip(*pairs, strict=True):
        a, name = numbers(a), jax.tree_util.keystr(path)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if b.dtype.kind == "f":
            error = np.max(np.abs(a - b), initial=0) / scale
            assert error < tolerance, f"{name} is wrong by {error:.2g}"
        else:
            assert np.array_equal(a, b), name


def numbers(leaf: Any) -> np.ndarray:
    """Return a leaf as a NumPy array; return a random key as its integers."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def call(rule: Callable, problem: Problem, **more: Any) -> Any:
    """Run a compiled gradient rule on a problem."""
    return jax.jit(partial(rule, **more))(*problem.args, **problem.options)
