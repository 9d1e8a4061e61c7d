"""Size of a parameter update, compared with each array of the parameters.

Notation: Δ is the update of an array θ of the parameters. If elements of Δ are exactly
0, units may be dead, or the loss may not depend on some parameters. The ratio ‖Δ‖/‖θ‖
is the relative change of the array.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating
from bpvariants._dtypes import widen
from bpvariants._examples import norm
from bpvariants._tables import aligned, named_leaves, short
from bpvariants.diagnostics._faults import count_nonfinite
from bpvariants.types import PyTree


class UpdateMeasures(NamedTuple):
    """Measures of :func:`update_report` for one array of params, or for all params.

    Attributes:
      norm: norm ‖Δ‖ of the update Δ; not finite if an element of Δ is not finite.
      largest: max |Δ|, the largest absolute value of an element; not finite if an
        element is not finite.
      zeros: fraction of elements of Δ that are exactly 0.
      nonfinite: number of elements of Δ that are NaN or infinite.
      ratio: ‖Δ‖ / ‖θ‖, norm of the update relative to the norm of the params; NaN if
        θ = 0.
    """

    norm: jax.Array
    largest: jax.Array
    zeros: jax.Array
    nonfinite: jax.Array
    ratio: jax.Array


class UpdateReport(NamedTuple):
    """Result of :func:`update_report`: measures of the update of each array.

    Attributes:
      total: :class:`UpdateMeasures` for all arrays together.
      leaves: a tree like params, with :class:`UpdateMeasures` for each array.
    """

    total: UpdateMeasures
    leaves: PyTree

    def table(self) -> str:
        """Return text: a line for all params together, then a line for each array."""
        is_measures = lambda node: isinstance(node, UpdateMeasures)
        named = named_leaves(self.leaves, is_measures)
        rows = [["", "‖Δ‖", "max |Δ|", "zeros", "not finite", "‖Δ‖/‖θ‖"]]
        for name, each in [("total", self.total), *named]:
            if name:
                size, largest, zeros, nonfinite, ratio = each
                cells = [f"{float(zeros):.1%}", str(int(nonfinite)), short(ratio)]
                rows.append([name, short(size), short(largest), *cells])
        return aligned(rows)


def update_report(updates: PyTree, params: PyTree) -> UpdateReport:
    """Compare updates, or gradients, with each array of the parameters.

        ‖Δ‖,  max |Δ|,  share of zeros,  elements not finite,  ‖Δ‖ / ‖θ‖

    Here Δ is the update, or gradient, of an array θ. `update_report` is a pure function
    that can be jitted. Time: about as long as reading all array elements twice.

    Args:
      updates: updates Δ from an optimizer, or gradients; a tree like params.
      params: parameters θ before the update.

    Returns:
      An :class:`UpdateReport`; `table()` returns it as text.

    Raises:
      ValueError: if an array of updates or params is not floating, or if their
        structures or shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> params = {"hidden": jnp.array([3.0, 4.0]), "readout": jnp.ones(2)}
      >>> updates = {"hidden": jnp.array([0.0, -0.5]), "readout": jnp.zeros(2)}
      >>> print(diagnostics.update_report(updates, params).table())
                    ‖Δ‖ max |Δ|  zeros not finite ‖Δ‖/‖θ‖
      total       .5000   .5000  75.0%          0  .09623
      ['hidden']  .5000   .5000  50.0%          0   .1000
      ['readout']     0       0 100.0%          0       0
    """
    check_floating("updates", updates)
    check_floating("params", params)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if shapes(updates) != shapes(params):
        raise ValueError(
            "updates must have the structure and shapes of params, "
            f"{shapes(params)}; got {shapes(updates)}."
        )
    leaves = jax.tree.map(lambda u, p: _measure([u], [p]), updates, params)
    total = _measure(jax.tree.leaves(updates), jax.tree.leaves(params))
    return UpdateReport(total, leaves)


def _measure(updates: list[jax.Array], params: list[jax.Array]) -> UpdateMeasures:
    size, unit = norm(updates), norm(params)
    dtype = jnp.result_type(size)
    number = max(sum(u.size for u in updates), 1)
    largest = [jnp.max(jnp.abs(widen(u)), initial=0).astype(dtype) for u in updates]
    zeros = [jnp.sum(u == 0, dtype=dtype) for u in updates]
    return UpdateMeasures(
        norm=size,
        largest=jnp.max(jnp.stack(largest)),
        zeros=jnp.sum(jnp.stack(zeros)) / number,
        nonfinite=jnp.sum(jnp.stack(count_nonfinite(updates))),
        ratio=size / jnp.where(unit == 0, jnp.nan, unit).astype(dtype),
    )
