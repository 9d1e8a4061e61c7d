"""Training and testing of recurrent networks on windows of streams.

Several studies use this module. The networks of all seeds are trained together. Losses
on held-out data are logged during training. An interrupted training can be resumed.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import choices
from experiments.harness.jobs import Way
from experiments.networks import recurrent
from experiments.networks.recurrent import Network, Window

RECENT = 50  # the logged training loss is a mean over this number of updates


@dataclasses.dataclass(frozen=True)
class Windows:
    """Training windows of a long sequence, which is cut into streams read in parallel.

    Args:
      xs: [N, …], inputs at the N steps of the sequence.
      targets: [N], targets at the N steps of the sequence.
      streams: number of streams that the sequence is cut into.
      window: number of time steps of each stream in a window.
      keeps: whether the network's state is kept from one window to the next. If False,
        the state is set to zeros before each window.
      seed: seed of the random positions at which the passes through the sequence begin.
    """

    xs: np.ndarray
    targets: np.ndarray
    streams: int
    window: int
    keeps: bool
    seed: int

    def __call__(self, start: int) -> Iterator[Window]:
        """Yield windows endlessly; the first `start` windows are skipped.

        Each pass through the sequence begins at a random position.
        """
        usual = len(self.xs) // self.streams
        count = (usual - self.window + 1) // self.window  # windows in a pass
        number, left_out = divmod(start, count)
        xs, targets = self._cut(self.xs, usual), self._cut(self.targets, usual)
        while True:
            rng = np.random.default_rng((self.seed, number))
            begin = int(rng.integers(self.window))
            for i in range(left_out, count):
                part = slice(begin + i * self.window, begin + (i + 1) * self.window)
                reset = np.zeros((self.window, self.streams), bool)
                reset[0] = not self.keeps or i == 0
                yield Window(xs[part], targets[part], None, None, reset)
            number, left_out = number + 1, 0

    def _cut(self, sequence: np.ndarray, usual: int) -> np.ndarray:
        parts = sequence[: usual * self.streams]
        return parts.reshape(self.streams, usual, *sequence.shape[1:]).swapaxes(0, 1)


class Scores:
    """Mean losses of the networks of all seeds on one window of held-out data.

    Each network starts from a state of zeros.
    """

    def __init__(self, network: Network, window: Window):
        self._zeros = network.zeros(window.xs.shape[1:2])
        self._window = jax.tree.map(jnp.asarray, window)
        score = lambda params, *given: _score(network, params, *given)
        self._score = jax.jit(jax.vmap(score, in_axes=(0, None, None)))
        self._known = (0, [])

    def __call__(self, params: PyTree) -> list[float]:
        """Return the mean loss of each seed's network.

        The leaves of `params` have the shape [seeds, …].
        """
        return self._score(params, self._zeros, self._window).tolist()

    def of(self, metrics: dict[str, Any]) -> list[float]:
        """Return the mean losses of the networks whose params are in `metrics`.

        The function `training.fit` passes `metrics` to its log functions. The losses
        are cached until the number of updates changes.
        """
        step = metrics["values"].shape[-1]
        if self._known[0] != step:
            self._known = step, self(metrics["params"])
        return self._known[1]

    def mean(self, metrics: dict[str, Any]) -> float:
        """Return the mean loss over seeds, by which the best checkpoint is chosen."""
        return float(np.mean(self.of(metrics)))


def _score(network: Network, params, zeros, window: Window) -> jax.Array:
    def step(params, carry, pair):
        carry, y = network.step(params, carry, (pair[0], None))
        return carry, network.loss(y, pair[1])

    marks = {"mask": window.mask, "reset": window.reset, "initial": zeros}
    pairs = window.xs, window.targets
    _, losses = gradients.unroll(step, params, zeros, pairs, **marks)
    if window.weights is None:
        return jnp.mean(losses)
    return jnp.sum(jnp.where(window.weights, losses, 0)) / jnp.sum(window.weights)


def init(config: Any, network: Network) -> PyTree:
    """Draw the parameters of the networks of all seeds."""
    key = jax.random.fold_in(jax.random.key(config.first_seed), 1)
    return jax.vmap(network.init)(jax.random.split(key, config.seeds))


def train(
    config: Any,
    way: Way,
    network: Network,
    windows: Callable[[int], Iterator[Window]],
    scores: Scores,
    *,
    best: bool,
) -> tuple[PyTree, dict[str, Any]]:
    """Train the networks of all seeds, or continue their training.

    Args:
      config: options of the study.
      way: :class:`~experiments.harness.jobs.Way` of the job.
      network: network to train.
      windows: function (n) -> iterator over training windows, without the first n
        windows, which the first n updates have used.
      scores: function that returns the losses on held-out data; called after each chunk
        of updates.
      best: True to return the parameters with the lowest mean held-out loss, False to
        return the parameters after the last update.

    Returns:
      Trained parameters with leaves [seeds, …], and fields of the job's result row.

    Raises:
      KeyboardInterrupt: after Ctrl-C; the training so far is saved in a checkpoint.
    """
    draws = choices.draws(config.rule)
    random = draws or config.dropout > 0
    params = init(config, network)
    zeros = network.zeros((config.streams,))
    repeated = lambda leaf: jnp.broadcast_to(leaf, (config.seeds, *leaf.shape))
    key = jax.random.fold_in(jax.random.key(config.first_seed), 2)
    result = way.fit(
        _make_rule(config, network, zeros),
        choices.make_update(config.update, config.learning_rate, steps=config.steps),
        params,
        windows,
        steps=config.steps,
        chunk=min(config.chunk, config.steps),
        key=key if random else None,
        carry=jax.tree.map(repeated, zeros),
        runs=config.seeds,
        look=lambda _, metrics: _line(metrics, scores),
        best=scores.mean if best else None,
        over=(1,) * len(recurrent.Window._fields),
    )
    step, params = way.best(params) if best else (result.steps, result.params)
    row = {"rule": config.rule, "update": config.update, "steps": result.steps}
    row |= {"params": recurrent.count(params) // config.seeds, "best_step": step}
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    return params, row | _curves(way.curve(), step)


def _make_rule(config: Any, network: Network, zeros: PyTree) -> Any:
    rule = choices.make_rule(
        config.rule,
        network.step,
        network.loss,
        lookback=config.lookback,
        visible=network.visible,
    )
    return recurrent.over_windows(
        rule,
        zeros,
        draws=choices.draws(config.rule),
        dropout=config.dropout,
        units=network.units,
    )


def _line(metrics: dict[str, Any], scores: Scores) -> dict[str, Any]:
    recent = metrics["values"][:, -RECENT:].mean(axis=-1)
    return {"score": scores.of(metrics), "recent": recent}


def _curves(lines: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return training and held-out losses after each chunk of updates.

    The losses are lists [chunks][seeds].

    Also return the training loss after the update number `step`.
    """
    steps = [line["step"] for line in lines]
    recent = [line["recent"] for line in lines]
    row = {"train": recent[steps.index(step)], "curve_steps": steps}
    return row | {"curve": [line["score"] for line in lines], "train_curve": recent}
