"""Is Rprop less sensitive to noise and bad scales than other updates? A claim tested.

A small network on handwritten digits, on full batches, made harder in three ways:

    noise     g + σ r ε, with r the root mean square of the first gradient, ε normal
    scales    each pixel times a factor of its own, between 10⁻ˢ and 10ˢ
    copies    each pixel several times more, with a little noise of its own

Each update has the rate that was best without any of it, and then the best for each
difficulty: the first is what it costs not to tune again, the second what tuning mends.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants import training
from experiments import choices, data, report
from experiments.harness import options
from experiments.harness.errors import DataError
from experiments.harness.jobs import check_resume, open_run
from experiments.resilient import _rprop_robustness_report
from experiments.resilient._digits_mlp import digits_mlp, PIXELS

OWN_NOISE = 0.1  # deviation of a copy's, in those of a pixel
RUNS = "runs.jsonl"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train by several updates under difficulties, with and without tuning again."""

    updates: tuple[str, ...] = (
        "irprop_minus",
        "rprop_minus",
        "adam",
        "momentum",
        "sgd",
    )
    """What is compared."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates to choose from; of the Rprop family, first steps."""
    noise: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """Deviations of the noise, in those of the first gradient."""
    scales: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Exponents s: factors of pixels are between 10⁻ˢ and 10ˢ."""
    copies: tuple[int, ...] = (1, 3, 7)
    """How often each pixel is there once more."""
    steps: int = 200
    """Updates on the full batch."""
    constant: bool = False
    """Keep learning rates as they are. Else those of updates that are not of the Rprop
    family fall to 0 along a cosine, which averages noise away at the end."""
    seeds: int = 3
    """Trainings of each kind, of other weights, noise and factors."""
    first_seed: int = 0
    """The seed of the first."""
    block: int = 64
    """Trainings at a time."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out."""
    out: Path | None = None
    """Folder to write to; by default runs/rprop_robustness-<time>."""

    def __post_init__(self):
        """Check the options."""
        options.check_at_least_one(self, "steps", "seeds", "block")
        options.check_known("updates", self.updates, choices.UPDATES)
        if not self.updates:
            raise ValueError("updates must name at least one.")
        for name in ("rates", "noise", "scales", "copies"):
            values = getattr(self, name)
            if not all(value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {values}.")
        if not self.rates:
            raise ValueError("rates must have at least one.")
        check_resume(self)


class Setting(NamedTuple):
    """One training: floats are traced, whatever else has a program of its own."""

    update: str
    rate: float
    noise: float = 0.0
    scales: float = 0.0
    copies: int = 0


AXES = ("noise", "scales", "copies")


def main(config: Config) -> report.Result:
    """Run all trainings, choose rates, show what difficulties cost, and write it."""
    small = {"updates": ("irprop_minus", "adam"), "rates": (0.01, 0.1), "copies": ()}
    small |= {"noise": (1.0,), "scales": (2.0,), "steps": 60, "seeds": 1}
    config = options.at_quick_size(config, **small)
    (config, folder), start = open_folder(config), time.perf_counter()
    settings = make_settings(config)
    with report.Progress(1) as progress:
        progress.begin("trainings", len(settings) * config.seeds)
        done = 0

        def advance(ended: int, _runs: int, _seconds_left: float) -> None:
            nonlocal done
            progress.advance(ended - done)
            done = ended

        result = training.sweep(
            make_run(config.steps, config.constant),
            settings,
            range(config.first_seed, config.first_seed + config.seeds),
            steps=config.steps,
            chunk=config.steps,
            block=config.block,
            path=folder / RUNS,
            progress=advance,
        )
    rows = [] if result.interrupted else summarise(config, result.rows)
    for row in rows:
        report.append_row(folder, row)
    if rows:
        _rprop_robustness_report.show(rows, config)
        report.save_picture(folder, "robustness", _rprop_robustness_report.draw(rows))
    report.say_where(folder, time.perf_counter() - start, result.interrupted)
    return report.Result(rows, folder, result.interrupted)


def open_folder(config: Config) -> tuple[Config, Path]:
    """Make the folder of a run, or with `resume` go on in that of one like it."""
    if not config.resume and config.out is not None and (config.out / RUNS).exists():
        raise DataError(
            f"{config.out} holds a run: add --resume to go on with it, or choose "
            "another --out."
        )
    config, folder = open_run("rprop_robustness", config, free=("block",))
    (folder / "results.jsonl").unlink(missing_ok=True)  # made from the runs
    return config, folder


def make_settings(config: Config) -> list[Setting]:
    """Return all trainings but for their seeds: without a difficulty, then with one."""
    difficulties: list[dict[str, Any]] = [{}]
    for axis in AXES:
        difficulties += [{axis: level} for level in getattr(config, axis)]
    return [
        Setting(update, rate, **difficulty)
        for difficulty in difficulties
        for update in config.updates
        for rate in config.rates
    ]


def make_run(steps: int, constant: bool = False):
    """Return what `training.sweep` wants: a setting's training from a key.

    Args:
      steps: of each training.
      constant: whether learning rates stay as they are.
    """
    (pixels, labels), (shown, asked) = jax.tree.map(jnp.asarray, data.digits())
    mean, deviation = pixels.mean(), pixels.std()

    def run(setting: Setting, key: jax.Array):
        of_weights, of_scales, of_copies, of_noise = jax.random.split(key, 4)
        network = digits_mlp(PIXELS * (1 + setting.copies))
        drawn = jax.random.uniform(of_scales, (PIXELS,), minval=-1.0)
        factors = 10.0 ** (setting.scales * drawn)

        def see(images, key):
            images = factors * (images - mean) / deviation
            repeated = jnp.tile(images, setting.copies)
            own = OWN_NOISE * jax.random.normal(key, repeated.shape)
            return jnp.concatenate([images, repeated + own], axis=1)

        train_key, test_key = jax.random.split(of_copies)
        seen = see(pixels, train_key)
        gradient = jax.value_and_grad(network.loss)
        falls = None if constant else steps
        given = {"steps": falls, "clip": None}
        update = choices.make_update(setting.update, setting.rate, **given)
        weights = network.init(of_weights)
        _, first = gradient(weights, seen, labels)
        size = setting.noise * jnp.sqrt(jnp.mean(first**2))

        def advance(state, t):
            weights, opt_state, seen = state
            loss, grad = gradient(weights, seen, labels)
            own = jax.random.fold_in(of_noise, t)
            grad = grad + size * jax.random.normal(own, grad.shape)
            change, opt_state = update.update(grad, opt_state, weights)
            return (weights + change, opt_state, seen), {"loss": loss}

        def evaluate(state):
            weights, _, seen = state
            right = network.accuracy(weights, see(shown, test_key), asked)
            loss = network.loss(weights, seen, labels)
            return {"train_loss": loss, "test_error": 100 - right}

        return (weights, update.init(weights), seen), advance, evaluate

    return run


def summarise(config: Config, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each update and difficulty, at two choices of its rate.

    Rates are chosen by the mean loss of training; a run that diverged is infinite.
    """
    inf = float("inf")
    found: dict[tuple, list[tuple[float, float]]] = {}
    for run in runs:
        loss, error = run["train_loss"], run["test_error"]
        ended = run["status"] != "diverged" and loss == loss
        name = tuple(run[field] for field in Setting._fields)
        found.setdefault(name, []).append((loss, error) if ended else (inf, 90.0))
    loss_of = lambda name: sum(loss for loss, _ in found[name]) / len(found[name])
    rows = []
    for update in config.updates:
        named = partial(_named, update)
        tuned = min(config.rates, key=lambda rate, named=named: loss_of(named(rate)))
        for axis in (axis for axis in AXES if getattr(config, axis)):
            for level in (0, *getattr(config, axis)):
                given = {axis: level}
                under = partial(named, **given)
                again = min(config.rates, key=lambda r, f=under: loss_of(f(r)))
                row = {"update": update, "axis": axis, "level": level}
                for choice, rate in {"kept": tuned, "tuned": again}.items():
                    losses, errors = zip(*found[under(rate)], strict=True)
                    row |= {f"{choice}_rate": rate, f"{choice}_error": list(errors)}
                    row[f"{choice}_loss"] = [
                        loss if loss < inf else None for loss in losses
                    ]
                rows.append(row)
    return rows


def _named(update: str, rate: float, **given: Any) -> tuple:
    """Return what the trainings of a setting are found by."""
    return tuple(Setting(update, rate, **given))
