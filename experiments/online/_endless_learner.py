"""A network that learns from a stream of numbers, row by row, for ever.

    score:    e_t = (v_t − p_t)²
    learn:    θ ← update(θ, ∇_θ ‖y_t − z_t‖²),    z_t = (v_t − m) / s
    predict:  p_{t+1} = m + s y_{t+1},    y_{t+1} = step(θ, h, z_t)

v_t is a row of the stream, p_t its prediction, and e_t the prediction's error. θ are
the network's parameters, h is its carry, and y_t its output. m and s are the mean and
standard deviation of the rows so far; after 10,000 rows, older rows are forgotten
exponentially, and so are errors. Each row is scored before the network, m and s learn
from it.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments.harness.errors import DataError
from experiments.networks.online import recurrent

LARGEST = 10.0  # standardised values are clipped to ±10
MEMORY = 10_000  # number of rows after which older rows are forgotten


class State(NamedTuple):
    """All that a learner knows; its leaves are arrays."""

    params: PyTree
    opt_state: PyTree
    online: PyTree  # state of the online rule
    rows: jax.Array  # number of rows that were read, at most MEMORY
    last: jax.Array  # [D] the last row
    mean: jax.Array  # [D] running mean of the rows
    variance: jax.Array  # [D] running variance of the rows
    prediction: jax.Array  # [D] prediction of the next row
    errors: jax.Array  # [2] running mean errors: of the network, of persistence


@dataclasses.dataclass(frozen=True)
class Learner:
    """A GRU that predicts the next row of D numbers, and learns by exact RTRL and Adam.

    The function `advance` is (state, row [D]) -> state.
    """

    columns: int
    units: int
    learning_rate: float

    def __post_init__(self):
        """Make the rule and the update, and compile the function `advance`."""
        network = recurrent("gru", self.columns, self.units, self.columns)
        loss = lambda y, z: jnp.sum((y - z) ** 2, axis=-1)
        update = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(self.learning_rate)
        )
        made = network, gradients.rtrl(network.step, loss), update
        object.__setattr__(self, "_made", made)
        object.__setattr__(self, "advance", jax.jit(self._advance))

    def init(self) -> State:
        """Return the state of a learner that has read nothing."""
        network, rule, update = self._made  # type: ignore[attr-defined]
        params, zero = network.init(jax.random.key(0)), jnp.zeros(self.columns)
        online = rule.init(params, network.carry(params), (zero, zero))
        given = params, update.init(params), online, jnp.zeros((), jnp.int32)
        return State(*given, zero, zero, zero, zero, jnp.zeros(2))

    def _advance(self, state: State, row: jax.Array) -> State:
        network, rule, update = self._made  # type: ignore[attr-defined]
        n = state.rows
        errors = jnp.stack([jnp.mean((row - state.prediction) ** 2),
                            jnp.mean((row - state.last) ** 2)])  # fmt: skip
        errors = state.errors + (errors - state.errors) / jnp.maximum(n, 1)
        errors = jnp.where(n > 0, errors, 0.0)  # the first row has no prediction
        deviation = jnp.sqrt(state.variance)
        z, target = (_standard(v, state.mean, deviation) for v in (state.last, row))
        _, grads, online = rule.update(state.params, state.online, z, target)
        change, opt_state = update.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        learned = params, opt_state, online
        before = state.params, state.opt_state, state.online
        pick = lambda new, old: jnp.where(n > 1, new, old)  # two rows give a deviation
        params, opt_state, online = jax.tree.map(pick, learned, before)
        mean = state.mean + (row - state.mean) / (n + 1)
        change = (row - state.mean) * (row - mean) - state.variance
        variance = state.variance + change / (n + 1)
        deviation = jnp.sqrt(variance)
        _, y = network.step(params, online.carry, _standard(row, mean, deviation))
        prediction = jnp.where(n > 1, mean + deviation * y, row)
        n = jnp.minimum(n + 1, MEMORY)
        given = params, opt_state, online, n, row, mean, variance, prediction
        return State(*given, errors)


def _standard(row: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    z = (row - mean) / jnp.where(deviation > 0, deviation, 1.0)
    return jnp.clip(z, -LARGEST, LARGEST)


def save(path: Path, learner: Learner, state: State, place: dict[str, Any]) -> None:
    """Write a learner and its place in the stream; a killed process leaves the old one.

    Args:
      path: file to write.
      learner: the learner; its settings are written.
      state: its state.
      place: JSON values that say where in the stream it is.
    """
    leaves = {f"leaf_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    about = json.dumps({"learner": dataclasses.asdict(learner), "place": place})
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.savez(file, about=np.array(about), **leaves)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def load(path: Path) -> tuple[Learner, State, dict[str, Any]]:
    """Return the learner, the state and the place in a file that :func:`save` wrote.

    Raises:
      DataError: if the file is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            learner = Learner(**about["learner"])
            like, structure = jax.tree.flatten(learner.init())
            leaves = [jnp.asarray(file[f"leaf_{i}"]) for i in range(len(like))]
        shapes = [leaf.shape for leaf in like]
        if [leaf.shape for leaf in leaves] != shapes:
            raise ValueError("it is of another learner")
    except Exception as error:  # damaged files raise many kinds of errors
        raise DataError(
            f"--state: {path} is no learner of this version ({error}): remove it, or "
            "name another file."
        ) from error
    return learner, structure.unflatten(leaves), about["place"]
