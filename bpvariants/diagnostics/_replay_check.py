"""Result of `check_replay`: differences between a rollout and its replay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._tables import aligned, named_leaves, short
from bpvariants.types import PyTree


class ReplayDifference(NamedTuple):
    """First difference of one array between a rollout and its replay.

    Attributes:
      place: name of the array, such as "outputs['log_prob']" or "carries[0]".
      time: first time step at which the array differs, counted from 0.
      example: index of the first example that differs at this step, one number for each
        batch axis; () without batch axes.
      difference: largest difference |stored − replayed| of the array, over all steps.
      ratio: exp(difference). If the array holds log-probabilities, it is the largest
        ratio of a stored and a replayed probability, or the inverse of the ratio.
    """

    place: str
    time: int
    example: tuple[int, ...]
    difference: float
    ratio: float


class ReplayCheck(NamedTuple):
    """Result of :func:`check_replay`: differences between a rollout and its replay.

    Attributes:
      outputs: like the given outputs, [T, *batch]: largest |stored − replayed| of each
        example at each step. It is 0 in padding and ∞ for NaN; for integers it is 1 if
        they differ. None if no outputs were given.
      carries: the same for the carries.
      tol: the tolerance: an element differs if |stored − replayed| is larger than
        tol · max(1, |stored|).
      outputs_differ: a pytree like outputs, of bool arrays [T, *batch]: True where any
        element of the example differs at the time step.
      carries_differ: the same for the carries.
      agrees_if_later: [] bool, whether nothing differs if every reset comes one step
        later. False if the replay already agrees, or if it has no resets.
      agrees_if_earlier: [] bool, the same for resets that come one step earlier.
    """

    outputs: PyTree
    carries: PyTree
    tol: float | jax.Array
    outputs_differ: PyTree
    carries_differ: PyTree
    agrees_if_later: jax.Array
    agrees_if_earlier: jax.Array

    @property
    def largest_ratio(self) -> jax.Array:
        """Largest ratio of probabilities, if the outputs are log-probabilities.

        It is exp of the largest difference of all outputs, and 1 without outputs. If it
        is far from 1 before the first update, in PPO for example, the replay is wrong.
        """
        largest = jnp.zeros((), jnp.float32)
        for leaf in jax.tree.leaves(self.outputs):
            largest = jnp.maximum(largest, jnp.max(leaf).astype(jnp.float32))
        return jnp.exp(largest)

    @property
    def differences(self) -> list[ReplayDifference]:
        """Arrays that differ, in the order of their first steps. Not within `jit`."""
        found = []
        for kind in ("outputs", "carries"):
            flags = jax.tree.leaves(getattr(self, f"{kind}_differ"))
            named = named_leaves(getattr(self, kind))
            for (name, sizes), differ in zip(named, flags, strict=True):
                if np.any(differ):
                    time, *example = map(int, np.argwhere(differ)[0])
                    size = float(np.max(sizes))
                    ratio = float(np.exp(size))
                    found.append(
                        ReplayDifference(kind + name, time, tuple(example), size, ratio)
                    )
        return sorted(found, key=lambda each: each.time)

    @property
    def first(self) -> ReplayDifference | None:
        """Earliest difference, or None if the replay agrees. Not within `jit`."""
        return next(iter(self.differences), None)

    def table(self) -> str:
        """Return text: a line for each array that differs, and what would mend it."""
        if self.first is None:
            return f"The replay agrees with the rollout (tol = {float(self.tol):g})."
        rows = [["", "first step", "example", "largest difference", "ratio"]]
        for place, time, example, difference, ratio in self.differences:
            index = ", ".join(map(str, example)) or "–"
            rows.append([place, str(time), index, short(difference), short(ratio)])
        lines = [aligned(rows)]
        if bool(self.agrees_if_later):
            lines += [
                "The replay agrees if every reset comes one step later;",
                "gradients.resets_from_dones(dones) makes such resets.",
            ]
        if bool(self.agrees_if_earlier):
            lines += [
                "The replay agrees if every reset comes one step earlier; flags that",
                "mark the first steps of episodes are resets as they are.",
            ]
        return "\n".join(lines)
