"""Search for the first update of a training that yields NaN or infinity.

Notation: at iteration t, an optimizer gets the gradient g_t and its old state s_{t−1},
and returns the update Δ_t and its new state s_t. The new parameters are
θ_t = θ_{t−1} + Δ_t. The search checks the arrays of an iteration in the order g_t, s_t,
Δ_t, θ_t.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_floating,
    check_function,
    check_like,
    described,
    first_step,
)
from bpvariants.diagnostics._faults import count_nonfinite, Fault, faults, tabulate
from bpvariants.types import PyTree


class NonFiniteUpdate(NamedTuple):
    """Result of :func:`first_nonfinite_update`: int32 numbers of non-finite elements.

    The attributes count NaN and infinite elements. The counts have shape [T], one for
    each of T updates, or [] for the params and the state before the first update.

    Attributes:
      start_params: a pytree like params with leaves []: the number of NaN and infinite
        elements of each array before the first update.
      start_state: like state, leaves [], counts in the optimizer's state before the
        first update.
      grads: like params, leaves [T], counts in the gradients.
      state: like state, leaves [T], counts in the optimizer's state after each update.
      updates: like params, leaves [T], counts in the updates.
      params: like params, leaves [T], counts in the params after each update.
    """

    start_params: PyTree
    start_state: PyTree
    grads: PyTree
    state: PyTree
    updates: PyTree
    params: PyTree

    @property
    def faults(self) -> list[Fault]:
        """First NaN or infinity of each array, earliest first.

        `faults` does not work within `jit`.
        """
        names = ("grads", "state", "updates", "params")
        return faults(
            [("params", self.start_params), ("state", self.start_state)],
            [(name, getattr(self, name)) for name in names],
        )

    @property
    def first(self) -> Fault | None:
        """Earliest NaN or infinity, or None if all arrays are finite.

        `first` does not work within `jit`.
        """
        return next(iter(self.faults), None)

    def table(self) -> str:
        """Return text, one line for each array with NaN or infinity, earliest first."""
        return tabulate(self.faults)


def first_nonfinite_update(
    update: Any, params: PyTree, state: PyTree, grads: PyTree, **extra: PyTree
) -> NonFiniteUpdate:
    """Find an optimizer's first update with NaN or infinity, and the affected array.

        g_t, s_t, Δ_t, θ_t = θ_{t−1} + Δ_t    for t = 0 … T−1

    The argument `grads` contains the gradients g_t of T successive iterations, along a
    first axis. From these gradients, the optimizer computes the states s_t, the updates
    Δ_t and the params θ_t. The function works within `jit`, because the counts are
    arrays; the result's `first`, `faults` and `table()` work only outside of `jit`.
    Time: as much as T updates. Memory: as much as one update.

    Args:
      update: an optax.GradientTransformation, or its function (grads, state, params) ->
        (updates, state).
      params: parameters θ before the first update.
      state: state of the optimizer before the first update.
      grads: like params, leaves [T, ...].
      **extra: keyword arguments of the update, such as `value`, with leaves [T, ...].

    Returns:
      A :class:`NonFiniteUpdate`. The attribute `first` is the earliest :class:`Fault`,
      and `table()` returns all faults as text.

    Raises:
      ValueError: if params are not floating, or if grads do not have params' shapes
        after a first axis T.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from bpvariants import diagnostics
      >>> optimizer, params = optax.rmsprop(0.1, eps=0.0), {"w": jnp.ones(2)}
      >>> grads = {"w": jnp.array([[1.0, 1.0], [0.5, 1.0], [3e38, 1.0]])}
      >>> state = optimizer.init(params)
      >>> diagnostics.first_nonfinite_update(optimizer, params, state, grads).first
      Fault(direction='forward', time=2, place="state[0].nu['w']", numbers=1)
    """
    check_floating("params", params)
    run = getattr(update, "update", update)
    check_function(
        "update", run, "(grads, state, params) -> (updates, state), or an optimizer"
    )
    check_arrays("grads", grads)
    check_arrays("keyword arguments", extra)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((grads, extra))}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            "grads must have a first axis of T successive iterations, as must the "
            "keyword arguments; for one iteration, give jax.tree.map(lambda g: g[None],"
            f" grads). Got {described(grads)} with leaves that begin with "
            f"{sorted(lengths)}."
        )
    check_like("each of the grads [T, ...]", first_step(grads), "params", params)

    def body(params_and_state, inputs):
        params, state = params_and_state
        grads, extra = inputs
        updates, state = run(grads, state, params, **extra)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        counts = count_nonfinite((grads, state, updates, params))
        return (params, state), counts

    _, counts = jax.lax.scan(body, (params, state), (grads, extra))
    return NonFiniteUpdate(count_nonfinite(params), count_nonfinite(state), *counts)
