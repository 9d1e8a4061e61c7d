"""The encoders of the first Rprop paper: epochs to learn them, beside its figures.

An N-H-N encoder maps each of N unit vectors to itself through H < N logistic units. A
run is solved at the first epoch where every output is below 0.4 for a target of 0 and
above 0.6 for 1. Outputs are clipped away from 0 and 1, and the slope is y(1 − y) of the
clipped y, without which runs get stuck where slopes vanish. The paper states neither
the limit of the clip nor the initial weights: here they are options, and varied.
"""

import dataclasses
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from bpvariants import updates
from experiments import report

VARIANTS = ("rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus", "half_back")
# Riedmiller & Braun 1993: mean and standard deviation of 10 runs at the best Δ_0, and
# the mean at the standard one, 0.1, of which no deviation is given.
PUBLISHED = {
    ("10-5-10", 0.1): (30, None),
    ("10-5-10", 2.0): (19, 3),
    ("12-2-12", 0.1): (367, None),
    ("12-2-12", 1.0): (322, 112),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn the 10-5-10 and 12-2-12 encoders with every variant of Rprop."""

    seeds: int = 20
    """How many runs of each setting, from different initial weights, under vmap."""
    weights: tuple[float, ...] = (0.5, 1.0)
    """Initial weights are uniform in ± this; the paper does not say."""
    clip: tuple[float, ...] = (0.001, 0.01)
    """Outputs are clipped to this and 1 minus this; 0 is without; not in the paper."""
    max_epochs: int = 3000
    """After how many epochs a run counts as stuck."""
    out: Path | None = None
    """Folder to write to; by default runs/encoders-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "max_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not all(0 <= clip < 0.4 for clip in self.clip):
            raise ValueError(f"clip must be within 0 <= clip < 0.4, got {self.clip}.")
        if not all(limit > 0 for limit in self.weights):
            raise ValueError(f"weights must be positive, got {self.weights}.")


def main(config: Config) -> report.Result:
    """Run all settings, show them beside the paper, and write them to a folder."""
    folder = report.make_folder("encoders", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    settings = [(*task, *more) for task in PUBLISHED for more in _settings(config)]
    try:
        with report.Progress(len(settings)) as progress:
            for sizes, first, variant, weights, clip in settings:
                progress.begin(f"{sizes}, {variant}, Δ₀ {first}", 1)
                epochs = _epochs(config, sizes, first, variant, weights, clip)
                rows.append(
                    {"encoder": sizes, "first_step": first, "variant": variant}
                    | {"weights": weights, "clip": clip, "epochs": epochs.tolist()}
                )
                report.append_row(folder, rows[-1])
                progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    _show(rows, config)
    if rows:
        report.save_picture(folder, "encoders", _draw(rows, config))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _settings(config):
    for variant in VARIANTS:
        for weights in config.weights:
            for clip in config.clip:
                yield variant, weights, clip


def _epochs(config, sizes, first, variant, weights, clip) -> np.ndarray:
    """Return the epochs that each run took, max_epochs where it did not succeed."""
    shape = tuple(map(int, sizes.split("-")))
    keys = jax.random.split(jax.random.key(0), config.seeds)
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
    """Return the logistic function of s within [clip, 1 − clip]."""
    return jnp.clip(jax.nn.sigmoid(s), clip, 1 - clip)


@clipped_logistic.defjvp
def _slope(primals, tangents):
    y = clipped_logistic(*primals)
    return y, y * (1 - y) * tangents[0]  # and not 0 where it is clipped


def _show(rows: list[dict[str, Any]], config: Config) -> None:
    table, shown = (
        [],
        dict.fromkeys(
            (row["encoder"], row["first_step"], row["variant"]) for row in rows
        ),
    )
    for encoder, first, variant in shown:
        mine = [
            row
            for row in rows
            if (row["encoder"], row["first_step"], row["variant"])
            == (encoder, first, variant)
        ]
        cells = {(row["weights"], row["clip"]): _cell(row, config) for row in mine}
        mean, deviation = PUBLISHED[encoder, first]
        paper = "" if variant != "rprop_plus" else f"{mean} ({deviation or '?'})"
        grid = [cells.get(pair, "") for pair in _grid(config)]
        table.append([f"{encoder}, Δ₀ {first}, {variant}", *grid, paper])
    report.show_table(
        "Epochs to learn an encoder",
        ["", *(f"±{weights}, clip {clip}" for weights, clip in _grid(config)), "paper"],
        table,
        f"Means (standard deviations) of {config.seeds} runs for initial weights and "
        f"clips that the paper does not state; + n: n runs were stuck after "
        f"{config.max_epochs} epochs, and are left out. Paper: Riedmiller & Braun "
        "1993, 10 runs of Rprop⁺ (at Δ₀ 0.1 without a deviation).",
    )


def _grid(config):
    return [(weights, clip) for weights in config.weights for clip in config.clip]


def _solved(row, config):
    epochs = np.asarray(row["epochs"], float)
    return epochs[epochs < config.max_epochs]


def _cell(row, config):
    solved = _solved(row, config)
    stuck = config.seeds - len(solved)
    more = f" + {stuck}" if stuck else ""
    if len(solved) < 2:
        return (f"{solved[0]:.0f}" if len(solved) else "-") + more
    return f"{solved.mean():.1f} ({solved.std(ddof=1):.1f}){more}"


def _draw(rows: list[dict[str, Any]], config: Config) -> Figure:
    """Draw each run as a dot, and the paper's mean and deviation behind them."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for axis, ((encoder, first), (mean, deviation)) in zip(
        axes, PUBLISHED.items(), strict=True
    ):
        axis.axvline(mean, color="black", linewidth=1, label="paper, Rprop⁺")
        if deviation:
            axis.axvspan(mean - deviation, mean + deviation, color="#ddd")
        for i, variant in enumerate(VARIANTS):
            for j, (weights, clip) in enumerate(_grid(config)):
                for row in rows:
                    same = (row["encoder"], row["first_step"]) == (encoder, first)
                    at = (row["variant"], row["weights"], row["clip"])
                    if not same or at != (variant, weights, clip):
                        continue
                    solved = _solved(row, config)
                    height = i + 0.8 * (j + 0.5) / len(_grid(config)) - 0.4
                    style = {"color": f"C{j % 10}", "markersize": 3, "alpha": 0.5}
                    label = f"±{weights}, clip {clip}" if i == 0 else None
                    line = axis.plot(solved, [height] * len(solved), "o", **style)
                    line[0].set_label(label or "_")
                    if len(solved):
                        axis.plot(solved.mean(), height, "|", color="k", markersize=10)
        axis.set(title=f"{encoder}, Δ₀ = {first}", xlabel="epochs", xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.set_yticks(range(len(VARIANTS)), VARIANTS)
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return figure
