"""Cache of compiled functions, kept as long as the user's functions exist.

A second call of `fit` with the same rule, update and `sample`, and with arguments of
the same shapes, dtypes and shardings, takes its compiled functions from this cache. An
entry refers to the user's functions weakly, and is dropped when any of them is garbage
collected. Only compiled functions are stored, because traced functions would keep the
user's functions alive.
"""

import itertools
import weakref
from collections.abc import Callable, Hashable, Sequence
from types import MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants.types import PyTree

MOST = 64  # number of entries; the entry that was used least recently is dropped first
_kept: dict[Hashable, tuple[tuple[weakref.ref, ...], Any]] = {}
_numbers = itertools.count()


def recall(
    owners: Sequence[Any], kind: Hashable, arguments: PyTree, make: Callable[[], Any]
) -> Any:
    """Return the stored result of `make`, or call `make` and store its result.

    Results are stored for each combination of the owners (compared by identity), of
    `kind`, of the types of `arguments`, and of JAX's settings. If an owner has no weak
    references, nothing is stored.
    """
    parts = [part for owner in owners for part in _parts(owner)]
    key = tuple(map(id, parts)), kind, _type_of(arguments), _context()
    found = _kept.pop(key, None)
    if found is None:
        forget = lambda _: _kept.pop(key, None)
        try:
            references = tuple(weakref.ref(part, forget) for part in parts)
        except TypeError:  # for example, an instance of a class with __slots__
            return make()
        found = references, make()
    _kept[key] = found  # the last entry is the one used most recently
    while len(_kept) > MOST:
        _kept.pop(next(iter(_kept)), None)
    return found[1]


def _parts(owner: Any) -> Sequence[Any]:
    """Return the objects that identify an owner and can be weakly referenced."""
    if isinstance(owner, MethodType):  # Python makes a new method at each access
        return owner.__self__, owner.__func__
    if isinstance(owner, tuple):  # an optax.GradientTransformation
        return [part for each in owner for part in _parts(each)]
    return () if owner is None else (owner,)


def _type_of(arguments: PyTree) -> Hashable:
    """Return structure, shapes, dtypes and shardings of the arguments of a function."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, *map(_type_of_leaf, leaves)


def _type_of_leaf(leaf: Any) -> Hashable:
    if isinstance(leaf, jax.Array):
        weak = getattr(leaf, "weak_type", False)  # random keys have no such attribute
        return leaf.shape, leaf.dtype, weak, leaf.sharding, leaf.committed
    kind = type(leaf) if isinstance(leaf, bool | int | float | complex) else np.ndarray
    return jnp.shape(leaf), jnp.result_type(leaf), kind


@jax.jit
def _traced() -> jax.Array:
    return jnp.int32(next(_numbers))


def _context() -> int:
    """Return a number that identifies the settings under which JAX traces functions.

    JAX traces a function again, and so takes the next number, if its settings have
    changed (such as the precision of products), or after `jax.clear_caches()`.
    """
    return int(_traced())
