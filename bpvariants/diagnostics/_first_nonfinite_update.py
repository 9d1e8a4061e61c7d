"""Search for the first update of a training with NaN or infinity.

Notation: at iteration t an update takes the gradient g_t and its state s_{t−1}, and
returns Δ_t and s_t. Then θ_t = θ_{t−1} + Δ_t. The arrays are checked in the order g_t,
s_t, Δ_t, θ_t.
"""

from typing import Any, NamedTuple

import jax

from bpvariants._checks import check_floating, check_lengths, check_like, first_step
from bpvariants.diagnostics._faults import count_nonfinite, Fault, faults, tabulate
from bpvariants.types import PyTree


class NonFiniteUpdate(NamedTuple):
    """Number of NaN and infinite elements of each array, int32, by update [T] or [].

    Attributes:
      start_params: like params, [], the given params.
      start_state: like state, [], the given state.
      grads: like params, [T].
      state: like state, [T], after the update.
      updates: like params, [T].
      params: like params, [T], after the update.
    """

    start_params: PyTree
    start_state: PyTree
    grads: PyTree
    state: PyTree
    updates: PyTree
    params: PyTree

    @property
    def faults(self) -> list[Fault]:
        """The first fault of each array, in order. Not within `jit`."""
        names = ("grads", "state", "updates", "params")
        return faults(
            [("params", self.start_params), ("state", self.start_state)],
            [(name, getattr(self, name)) for name in names],
        )

    @property
    def first(self) -> Fault | None:
        """The first of all faults, or None if all is finite. Not within `jit`."""
        return next(iter(self.faults), None)

    def table(self) -> str:
        """Return a line for each array that has a fault, in order."""
        return tabulate(self.faults)


def first_nonfinite_update(
    update: Any, params: PyTree, state: PyTree, grads: PyTree, **extra: PyTree
) -> NonFiniteUpdate:
    """Find the first update of an optimizer, and the array, with NaN or infinity.

        g_t, s_t, Δ_t, θ_t = θ_{t−1} + Δ_t    for t = 0 … T−1

    Give the gradients of the iterations in question, with a first axis of length T. The
    counts are arrays, so they work within `jit`; `first`, `faults` and `table()` work
    only outside. Time: T updates. Memory: one update.

    Args:
      update: an optax.GradientTransformation, or its function (grads, state, params) ->
        (updates, state).
      params: θ before the first update.
      state: state of the optimizer before the first update.
      grads: like params, leaves [T, ...].
      **extra: keyword arguments of the update, such as value, leaves [T, ...].

    Returns:
      A :class:`NonFiniteUpdate`, whose `first` is a :class:`Fault`, and whose `table()`
      is text.

    Raises:
      ValueError: if params are not floating, or grads are not like params with a first
        axis T.

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
    check_lengths(grads, **extra)
    check_like("each of the grads [T, ...]", first_step(grads), "params", params)
    run = getattr(update, "update", update)

    def body(params_and_state, inputs):
        params, state = params_and_state
        grads, extra = inputs
        updates, state = run(grads, state, params, **extra)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        counts = count_nonfinite((grads, state, updates, params))
        return (params, state), counts

    _, counts = jax.lax.scan(body, (params, state), (grads, extra))
    return NonFiniteUpdate(count_nonfinite(params), count_nonfinite(state), *counts)
