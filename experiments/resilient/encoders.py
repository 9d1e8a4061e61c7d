"""Encoder problems of the first Rprop paper: number of epochs to learn them.

Numbers of epochs are compared with the published numbers. An N-H-N encoder maps each of
N unit vectors to itself through H < N logistic units. A run has solved the problem at
the first epoch at which all outputs are right. An output is right if it is below 0.4
for the target 0, and above 0.6 for the target 1.

The output y of each unit is clipped to an interval within (0, 1). The slope y(1 − y) of
the unit is computed from the clipped y. Without clipping, runs get stuck where slopes
are nearly zero. The paper mentions no clipping, and does not state the initial weights.
The study therefore tries several clipping intervals, and several ranges of initial
weights.
"""

import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpvariants import updates
from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, known, within
from experiments.harness.study import run_study, Study

VARIANTS = ("rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus", "half_back")
# {(encoder, initial step size Δ₀): (mean, standard deviation)} of the numbers of epochs
# of 10 runs, in Riedmiller & Braun 1993. For the standard Δ₀ = 0.1, the paper states
# only the mean. The second Δ₀ of each encoder is the best Δ₀ in the paper.
PUBLISHED = {
    ("10-5-10", 0.1): (30, None),
    ("10-5-10", 2.0): (19, 3),
    ("12-2-12", 0.1): (367, None),
    ("12-2-12", 1.0): (322, 112),
}


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How many epochs does each variant of Rprop take to learn two encoder problems?"""

    QUICK = {
        "variants": ("rprop_plus", "irprop_minus"),
        "seeds": 4,
        "weights": (0.5,),
        "clip": (0.001,),
        "max_epochs": 300,
    }
    CHECKS = {
        "variants": known(VARIANTS),
        "max_epochs": at_least(1),
        "clip": within(0, 0.4, ends="[)"),
        "weights": above(0),
    }

    variants: tuple[str, ...] = ()
    """Variants of Rprop; by default all five."""
    seeds: int = 20
    """Number of runs of each setting, from different initial weights; all runs of a
    setting train together."""
    weights: tuple[float, ...] = (0.5, 1.0)
    """Bounds to try; initial weights are uniform between −bound and bound. The
    paper does not state the bound."""
    clip: tuple[float, ...] = (0.001, 0.01)
    """Values of clip to try; outputs are clipped to [clip, 1 − clip], and 0 means
    no clipping. The paper mentions no clipping."""
    max_epochs: int = 3000
    """Number of epochs after which a run without a solution counts as stuck."""


def main(config: Config) -> report.Result:
    """Train with all settings; show our numbers of epochs, and those in the paper."""
    return run_study("encoders", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    return [
        Job(
            f"{sizes}, {variant}, Δ₀ {first}, ±{weights}, clip {clip}",
            1,
            partial(_row, config, sizes, first, variant, weights, clip),
        )
        for sizes, first in PUBLISHED
        for variant in config.variants or VARIANTS
        for weights, clip in _grid(config)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _show(rows, config)
    report.save_picture(folder, "encoders", _draw(rows, config))


def _row(
    config: Config,
    sizes: str,
    first: float,
    variant: str,
    weights: float,
    clip: float,
    way: Way,
) -> Row:
    """Train with one setting from all seeds; return the row of results."""
    epochs = _epochs(config, sizes, first, variant, weights, clip)
    row = {"encoder": sizes, "first_step": first, "variant": variant}
    return row | {"weights": weights, "clip": clip, "epochs": epochs.tolist()}


def _epochs(config, sizes, first, variant, weights, clip) -> np.ndarray:
    """Return each run's number of epochs; it is max_epochs if the run got stuck."""
    shape = tuple(map(int, sizes.split("-")))
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    numbers = jnp.float32(first), jnp.float32(weights), jnp.float32(clip)
    return np.asarray(_run_all(shape, variant, config.max_epochs, keys, *numbers))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run_all(shape, variant, max_epochs, keys, first, weights, clip):
    optimizer = optax.with_extra_args_support(getattr(updates, variant)(first))
    targets = jnp.eye(shape[0])

    def outputs(params):
        y = targets
        for matrix, bias in params:
            y = clipped_logistic(y @ matrix + bias, clip)
        return y

    loss = lambda params: jnp.sum((outputs(params) - targets) ** 2) / 2

    def solved(params):
        y = outputs(params)
        return jnp.all(jnp.where(targets == 1, y > 0.6, y < 0.4))

    def epoch(run):
        params, state, count = run
        value, grads = jax.value_and_grad(loss)(params)
        change, state = optimizer.update(grads, state, params, value=value)
        return optax.apply_updates(params, change), state, count + 1

    def train(key):
        uniform = partial(jax.random.uniform, minval=-weights, maxval=weights)
        params = []
        for i, pair in enumerate(itertools.pairwise(shape)):
            keys = jax.random.split(jax.random.fold_in(key, i))
            params.append((uniform(keys[0], pair), uniform(keys[1], pair[1:])))
        go_on = lambda run: ~solved(run[0]) & (run[2] < max_epochs)
        start = params, optimizer.init(params), jnp.int32(0)
        return jax.lax.while_loop(go_on, epoch, start)[2]

    return jax.vmap(train)(keys)


@jax.custom_jvp
def clipped_logistic(s: jax.Array, clip: jax.Array) -> jax.Array:
    """Return the logistic function of s, clipped to the interval [clip, 1 − clip]."""
    return jnp.clip(jax.nn.sigmoid(s), clip, 1 - clip)


@clipped_logistic.defjvp
def _slope(primals, tangents):
    y = clipped_logistic(*primals)
    return y, y * (1 - y) * tangents[0]  # the slope is above 0 even where y is clipped


def _show(rows: list[Row], config: Config) -> None:
    lines = {}
    for row in rows:
        name = row["encoder"], row["first_step"], row["variant"]
        pair = row["weights"], row["clip"]
        lines.setdefault(name, {})[pair] = _cell(row, config)
    table = []
    for (encoder, first, variant), cells in lines.items():
        mean, deviation = PUBLISHED[encoder, first]
        paper = f"{mean} ± {deviation}" if deviation else str(mean)
        table.append(
            [
                f"{encoder}, Δ₀ {first}, {variant}",
                *(cells.get(pair, "") for pair in _grid(config)),
                paper if variant == "rprop_plus" else "",
            ]
        )
    report.show_table(
        "Epochs to learn an encoder",
        ["", *(f"±{weights}, clip {clip}" for weights, clip in _grid(config)), "paper"],
        table,
        f"Mean ± standard deviation of {config.seeds} runs (lower is better), for "
        "initial weights and clips that the paper does not state.\n"
        f"+ n: n runs were stuck after {config.max_epochs} epochs; the mean leaves "
        "them out.\nPaper: Riedmiller & Braun 1993, 10 runs of Rprop⁺; it gives no "
        "deviation for Δ₀ 0.1.",
    )
    for encoder, first in PUBLISHED:
        _conclude(encoder, first, rows, config)


def _conclude(encoder: str, first: float, rows: list[Row], config: Config) -> None:
    """Say which variants and settings take the fewest epochs, and compare the paper."""
    mine = [r for r in rows if (r["encoder"], r["first_step"]) == (encoder, first)]
    scores = {
        f"{row['variant']} at ±{row['weights']}, clip {row['clip']}": row["epochs"]
        for row in mine
        if len(_solved(row, config)) == config.seeds
    }
    said = []
    if scores:
        said.append(report.verdict("number of epochs", scores, higher_is_better=False))
    said.append(
        report.against(
            "the paper's mean of Rprop⁺, taken as exact",
            PUBLISHED[encoder, first][0],
            scores,
            higher_is_better=False,
            unit=" epochs",
        )
    )
    if len(scores) < len(mine):
        stuck = len(mine) - len(scores)
        said.append(f"Left out, as runs were stuck: {stuck} of {len(mine)} settings.")
    told = " ".join(filter(None, said))
    report.conclude(f"{encoder} with Δ₀ = {first:g}. {told}")


def _grid(config: Config) -> list[tuple[float, float]]:
    """Return all pairs (bound of the initial weights, value of clip) to try."""
    return list(itertools.product(config.weights, config.clip))


def _solved(row: Row, config: Config) -> np.ndarray:
    """Return the numbers of epochs of the runs that solved the problem."""
    epochs = np.asarray(row["epochs"], float)
    return epochs[epochs < config.max_epochs]


def _cell(row: Row, config: Config) -> str:
    solved = _solved(row, config)
    stuck = config.seeds - len(solved)
    more = f" + {stuck}" if stuck else ""
    return (report.mean_sd(solved.tolist()) if len(solved) else "–") + more


def _draw(rows: list[Row], config: Config) -> Figure:
    """Draw each run's number of epochs, and the paper's mean and standard deviation."""
    variants = {row["variant"] for row in rows}
    shown = [variant for variant in VARIANTS if variant in variants]
    height = 1.2 + 0.5 * len(shown)
    figure, axes = report.panels(2, 2, width=5.8, height=height)
    for axis, (encoder, first) in zip(axes.flat, PUBLISHED, strict=True):
        mean, deviation = PUBLISHED[encoder, first]
        axis.axvline(mean, color="black", linewidth=1.2)
        if deviation:
            axis.axvspan(mean - deviation, mean + deviation, color="#e4e4e4", zorder=0)
        for row in rows:
            if (row["encoder"], row["first_step"]) == (encoder, first):
                _draw_runs(axis, row, config, shown.index(row["variant"]))
        axis.set(title=f"{encoder}, initial step size Δ₀ = {first}", xlabel="epochs")
        report.log_ticks(axis, "x")
        axis.set_yticks(range(len(shown)), shown)
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
    names = {"paper's Rprop⁺, mean ± sd": {"color": "black", "linewidth": 1.2}}
    for (weights, clip), style in zip(_grid(config), _dots(config), strict=True):
        names[f"first weights ±{weights:g}, clip {clip:g}"] = style
    names["mean of runs"] = {"marker": "|", "color": "black", "linestyle": ""}
    report.legend_below(figure, names)
    return figure


def _dots(config: Config) -> list[dict[str, Any]]:
    """Return the style of the dots for each pair in the grid of settings."""
    return [
        {"color": report.COLOURS[j % 8], "marker": "osD^v"[j // 8 % 5], "linestyle": ""}
        | {"markersize": 4}
        for j in range(len(_grid(config)))
    ]


def _draw_runs(axis: Axes, row: Row, config: Config, i: int) -> None:
    """Draw the numbers of epochs with one setting: a dot per run, a bar as the mean."""
    grid = _grid(config)
    j = grid.index((row["weights"], row["clip"]))
    solved, height = _solved(row, config), i + 0.8 * (j + 0.5) / len(grid) - 0.4
    axis.plot(solved, [height] * len(solved), alpha=0.6, **_dots(config)[j])
    if len(solved):
        axis.plot(solved.mean(), height, "|", color="k", markersize=10)
