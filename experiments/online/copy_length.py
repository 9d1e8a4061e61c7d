"""How long a string each rule learns to copy, from the same number of steps.

L random bits are shown, and then asked for, in L steps more. Whenever the loss of the
bits asked for is below a share of ln 2, what a guess costs, the string grows by one: so
that the length after so many steps says how well a rule learns, in the style of the
copy task of Menick et al. 2020. Online rules learn from each bit that is asked for, and
so does truncated BPTT(h; h′) every h′ steps; BPTT once, at the end of the sequence.

References:
  Menick et al., "A practical sparse approximation for real time recurrent learning",
  2020, arXiv:2006.07232.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import PyTree
from experiments import report
from experiments.harness.options import check_at_least_one
from experiments.networks import online
from experiments.networks.cells import DENSE
from experiments.online import _copy_length_report, _rules
from experiments.online._copy_learners import learners, RULES

GUESS = math.log(2)  # the loss of who remembers nothing
REMEMBERED = 0.9  # of the mean of losses, from one sequence to the next


@dataclasses.dataclass(frozen=True)
class Config:
    """Copy ever longer strings, by online rules, truncated and whole BPTT."""

    cells: tuple[str, ...] = ("tanh", "gru")
    """Of tanh, gru and lstm."""
    rules: tuple[str, ...] = tuple(RULES)
    """Online rules, of those in experiments/online/_rules.py and forward_gradient; of
    LSTMs alone also eprop."""
    truncations: tuple[tuple[int, int], ...] = ((1, 4), (1, 16))
    """Pairs (h′, h) of truncated BPTT: errors travel back h steps, every h′."""
    units: int = 16
    """Of each cell."""
    batch: int = 4
    """Sequences at a time, of the same length."""
    steps: int = 40_000
    """Of each stream of sequences, two for each bit."""
    share: float = 0.15
    """The string grows when the loss is below this share of ln 2."""
    longest: int = 32
    """Bits of the longest string."""
    learning_rate: float = 3e-3
    """Of Adam, for all."""
    seeds: int = 3
    """Independent networks, together."""
    chunk: int = 100
    """Sequences of one call, and of a point of the curves."""
    out: Path | None = None
    """Folder to write to; by default runs/copy_length-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "units", "batch", "steps", "longest", "seeds", "chunk")
        unknown = [cell for cell in self.cells if cell not in DENSE]
        if unknown:
            raise ValueError(
                f"cells must be some of {', '.join(DENSE)}; got {', '.join(unknown)}."
            )
        for every, lookback in self.truncations:
            if not 1 <= every <= lookback:
                raise ValueError(
                    "truncations must be pairs (h′, h) with 1 ≤ h′ ≤ h; got "
                    f"{(every, lookback)}."
                )
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in 0 < share < 1, got {self.share}.")
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )
        _rules.check_rules(self.rules, _rules.of_cells(self.cells, RULES))


class Course(NamedTuple):
    """Where one training has got to."""

    pair: PyTree  # params, opt_state
    length: jax.Array  # bits of the string
    loss: jax.Array  # mean of late, of this length
    steps: jax.Array  # taken


def main(config: Config) -> report.Result:
    """Train each cell by each rule, show the lengths, and write them."""
    folder = report.make_folder("copy_length", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    adam = optax.adam(config.learning_rate)
    chosen = learners(config.rules, config.truncations, adam)
    try:
        with report.Progress(len(config.cells) * len(chosen)) as progress:
            for cell in config.cells:
                network = online.network(cell, 3, config.units, 1)
                course, carry = jax.jit(partial(_begin, config, network))()
                for name, make_learn in chosen.items():
                    progress.begin(f"{cell} by {name}", config.steps)
                    learn = make_learn(network)
                    for row in _rows(config, learn, course, carry, progress.advance):
                        rows.append({"cell": cell, "rule": name} | row)
                        report.append_row(folder, rows[-1])
    except KeyboardInterrupt:
        interrupted = True
    _copy_length_report.show(rows, config)
    if rows:
        picture = _copy_length_report.draw(rows)
        report.save_picture(folder, "copy_length", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def draw_sequence(
    key: jax.Array, length: jax.Array, batch: int, longest: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return xs [2·longest, B, 3], targets, weights and mask [2·longest, B].

    x is one-hot: bit 0, bit 1, or that a bit is asked for.
    """
    bits = jax.random.bernoulli(key, 0.5, (longest, batch)).astype(int)
    t = jnp.arange(2 * longest)
    asked, mask = t >= length, t < 2 * length
    shown = jnp.where(asked[:, None], 2, bits[jnp.minimum(t, longest - 1)])
    targets = bits[jnp.clip(t - length, 0, longest - 1)].astype(float)
    both = lambda flags: jnp.broadcast_to(flags[:, None], targets.shape)
    weights = (asked & mask).astype(float)
    return jax.nn.one_hot(shown, 3), targets, both(weights), both(mask)


def follow(
    config: Config, learn: Callable, carry: PyTree, size: int, course: Course, key
) -> tuple[Course, tuple[jax.Array, ...]]:
    """Take one sequence, of at most `size` bits, unless all steps have been taken."""
    of_task, of_rule = jax.random.split(key)
    sequence = draw_sequence(of_task, course.length, config.batch, size)
    value, pair = learn(course.pair, carry, *sequence, of_rule)
    mean = REMEMBERED * course.loss + (1 - REMEMBERED) * value
    grows = (mean < config.share * GUESS) & (course.length < size)
    new = Course(
        pair,
        course.length + grows,
        jnp.where(grows, GUESS, mean),
        course.steps + 2 * course.length,
    )
    goes = course.steps < config.steps
    new = jax.tree.map(lambda a, b: jnp.where(goes, a, b), new, course)
    return new, (new.steps, new.length, new.loss)


def _rows(
    config: Config, learn: Callable, course: Course, carry: PyTree, advance: Callable
) -> Iterator[dict[str, Any]]:
    """Yield one row, also if Ctrl-C comes before the end but after a first chunk."""

    @partial(jax.jit, static_argnums=2)
    def run(course, i, size):
        def of_seed(course, key):
            body = partial(follow, config, learn, carry, size)
            course, taken = jax.lax.scan(
                body, course, jax.random.split(key, config.chunk)
            )
            return course, [part[-1] for part in taken]

        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), config.seeds)
        return jax.vmap(of_seed)(course, keys)

    reached, interrupted, start = [], False, time.perf_counter()
    try:
        for i in itertools.count():
            size = _size(int(course.length.max()), config.longest)
            course, taken = run(course, i, size)
            reached.append(np.asarray(taken, float))
            done = int(course.steps.min())
            advance(done)
            if done >= config.steps:
                break
    except KeyboardInterrupt:
        interrupted = True
    if reached:
        steps, lengths, losses = np.moveaxis(np.array(reached), 0, -1)
        yield {
            "length": lengths[:, -1].astype(int).tolist(),
            "steps": steps.astype(int).tolist(),
            "lengths": lengths.astype(int).tolist(),
            "losses": losses.tolist(),
            "seconds": time.perf_counter() - start,
        }
    if interrupted:
        raise KeyboardInterrupt


def _begin(config: Config, network: online.Network) -> tuple[Course, PyTree]:
    """Return where all trainings begin, and the carry of each sequence."""
    adam = optax.adam(config.learning_rate)

    def of_seed(key):
        params = network.init(key)
        pair = params, adam.init(params)
        course = Course(pair, jnp.array(1), jnp.array(GUESS), jnp.array(0))
        return course, network.carry(params, (config.batch,))

    keys = jax.random.split(jax.random.key(0), config.seeds)
    course, carries = jax.vmap(of_seed)(keys)
    return course, jax.tree.map(lambda leaf: leaf[0], carries)


def _size(length: int, longest: int) -> int:
    """Return how many bits a program is compiled for, with room to grow."""
    size = 8
    while size < length + 2:
        size *= 2
    return min(size, longest)
