"""Fixed-point iteration for solvers that need each state as one vector."""

from collections.abc import Callable
from typing import Any

import jax

from bpvariants._carries import as_vectors
from bpvariants.gradients.equilibrium._iteration import iterate, Method
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import Outcome
from bpvariants.types import PyTree


def iterate_vectors(
    gap: Callable[[PyTree], PyTree],
    start: PyTree,
    scale: Callable[[PyTree], jax.Array],
    method: Method,
    *,
    batch_ndim: int,
    pull: Callable[[PyTree], PyTree] | None = None,
    **settings: Any,
) -> Outcome:
    """Run `iterate` with the leaves of the state joined into one array [*batch, n]."""
    batch = jax.tree.leaves(start)[0].shape[:batch_ndim]
    vectors, as_tree = as_vectors(start, batch)
    # Vectors are float32 or wider, but the leaves of start may be narrower.
    settings["tol"] = reachable(settings["tol"], start, vectors.dtype)
    if pull is not None:
        settings["pull"] = lambda v: as_vectors(pull(as_tree(v)), batch)[0]
    first, best, last, lost = iterate(
        lambda v: as_vectors(gap(as_tree(v)), batch)[0],
        vectors,
        lambda v: scale(as_tree(v)),
        method,
        batch_ndim=batch_ndim,
        **settings,
    )
    back = lambda pair: (as_tree(pair[0]), pair[1])
    return Outcome(back(first), back(best), back(last), lost)
