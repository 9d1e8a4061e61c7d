"""Interface between the loop of all fixed-point solvers and their update rules."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree


class Method(NamedTuple):
    """Update rule of a solver, with a memory of earlier steps."""

    init: Callable[[PyTree], PyTree]  # start -> memory, leaves [*batch, ...]
    # Update rule: (memory, h, g(h) − h, step) -> the new (h, memory). The memory must
    # not change for examples where the mask `step.moves` is False.
    move: Callable[..., tuple[PyTree, PyTree]]
    may_rise: bool = False  # whether GROWTH is relative to the first residual
    # memory -> damping of a relaxation, [*batch] or []
    damping: Callable[[PyTree], jax.Array] | None = None
    # (memory, mask [*batch]) -> memory with the damping halved where the mask is True
    halve: Callable[[PyTree, jax.Array], PyTree] | None = None

    # memory -> mask [*batch] of the examples that Anderson acceleration iterates
    accelerated: Callable[[PyTree], jax.Array] | None = None


class Step(NamedTuple):
    """What an update rule knows about the current step, besides h and g(h) − h."""

    size: jax.Array  # [*batch]: ‖g(h) − h‖
    moves: jax.Array  # bool [*batch]: whether the example takes the step
    ahead: jax.Array  # [*batch]: relative residual divided by the tolerance


def when(flag: jax.Array, change: Callable[[Any], Any], state: Any) -> Any:
    """Return change(state) if the flag is True; else skip it and return the state."""
    once = lambda pair: (jnp.zeros_like(flag), change(pair[1]))
    return jax.lax.while_loop(lambda pair: pair[0], once, (flag, state))[1]
