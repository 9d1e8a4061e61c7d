"""Source of the batches of a training, for each kind of argument `data` of `fit`."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bpvariants._checks import check_arrays
from bpvariants._dtypes import is_key
from bpvariants._settings import called, described
from bpvariants.training._placement import is_spread
from bpvariants.types import PyTree


class Source:
    """Data of a training: one batch for all steps, data to sample from, or batches.

    `take(size)` returns the inputs of the next `size` training steps, as a pair (whole,
    stacked). `whole` is data that all steps use; `stacked` contains the batch of each
    step, stacked along a first axis. Either `whole` or `stacked` is None. After the
    last batch, `take` returns None instead of a pair.
    """

    def __init__(self, data: Any, sampled: bool, first: int):
        self.whole = data if sampled or isinstance(data, tuple) else None
        self._batches = None
        if not sampled and not isinstance(data, tuple):
            self._batches = _from(data, first)

    def take(self, size: int) -> tuple[PyTree, PyTree] | None:
        """Return the inputs of `size` steps, or of fewer if the data end first."""
        if self._batches is None:
            return self.whole, None
        stacked = _stack(islice(self._batches, size))
        return None if stacked is None else (None, stacked)


def _from(data, first: int) -> Iterator[tuple]:
    """Return an iterator over the batches, beginning with the batch of step `first`."""
    if _begins_anywhere(data):
        batches = called("data(step)", data, first)
        if not hasattr(batches, "__iter__"):
            raise ValueError(
                "data must return an iterable of batches from a step on, if it is a "
                f"function; data({first}) returned {batches!r}."
            )
        return iter(batches)
    if not hasattr(data, "__iter__"):
        raise ValueError(
            "data must be a tuple, an iterable of tuples, or a function (step) -> such "
            f"an iterable; got {data!r}."
        )
    return islice(iter(data), first, None)


def _begins_anywhere(data) -> bool:
    return callable(data) and not hasattr(data, "__iter__")


def size_of(inputs: tuple[PyTree, PyTree], size: int) -> int:
    """Return how many batches `inputs` has, or `size` if all steps share the data."""
    stacked = jax.tree.leaves(inputs[1])
    return stacked[0].shape[0] if stacked else size


def batch_of(inputs: tuple[PyTree, PyTree], i: int) -> PyTree:
    """Return the batch of step i of a chunk, or the data from which to draw it."""
    whole, stacked = inputs
    return whole if stacked is None else jax.tree.map(lambda leaf: leaf[i], stacked)


def _stack(batches: Iterable[tuple]) -> PyTree | None:
    batches = list(batches)
    for batch in batches:
        if not isinstance(batch, tuple):
            raise ValueError(
                "data must be a tuple, the batch of every step, or an iterable of "
                f"tuples, one for each step; got {described(batch)} as a batch. If a "
                "batch is one array, give (array,). If batches are to be drawn from "
                "the data, give sample=."
            )
    if not batches:
        return None
    check_arrays("data: a batch", batches[0])
    first, *others = [jax.tree.map(jnp.shape, batch) for batch in batches]
    for shapes in others:
        if shapes != first:
            raise ValueError(
                "data must be batches of equal shapes, because one program runs all "
                f"steps of a chunk; got {first} and {shapes}."
            )
    return jax.tree.map(lambda *leaves: _stacked(leaves), *batches)


def _stacked(leaves: tuple) -> Any:
    if is_key(leaves[0]) and not is_spread(leaves[0]):
        return jnp.stack(leaves)  # NumPy arrays cannot hold random keys
    if not is_spread(leaves[0]):
        return np.stack(leaves)
    sharding = leaves[0].sharding
    if isinstance(sharding, NamedSharding):  # keep the sharding of each batch
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    else:
        sharding = None
    return jax.jit(lambda *leaves: jnp.stack(leaves), out_shardings=sharding)(*leaves)
