"""Sensitivity of Rprop and other updates to noise, badly scaled and redundant inputs.

A small network is trained on full batches of digits, under three difficulties:

    noise     the gradient g becomes g + σ r ε, where ε is normal noise, and r is the
              root mean square of the first gradient
    scales    each pixel is multiplied by its own factor, between 10⁻ˢ and 10ˢ
    copies    each pixel is repeated several times, and each copy has its own noise

Each update rule is tested with two learning rates (for Rprop, initial step sizes). The
first is the best rate without any difficulty; with this rate, the study shows the error
of an update that is not tuned again. The second is the best rate under the difficulty.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants import training
from experiments import choices, data, report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.placement import local_devices
from experiments.harness.study import run_study, TrainingStudy
from experiments.resilient import _rprop_robustness_report
from experiments.resilient._digits_mlp import digits_mlp, PIXELS

OWN_NOISE = 0.1  # standard deviation of the noise in copies; the pixels' is 1
RUNS = "runs.jsonl"


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How sensitive are updates to noise, badly scaled inputs and redundant inputs?"""

    QUICK = {
        "updates": ("irprop_minus", "adam"),
        "rates": (0.01, 0.1),
        "noise": (1.0,),
        "scales": (2.0,),
        "copies": (),
        "steps": 60,
        "seeds": 1,
    }
    CHECKS = {
        "steps block": at_least(1),
        "updates": all_of(given, known(choices.UPDATES)),
        "rates": given,
        "rates noise scales copies": above(0),
    }

    updates: tuple[str, ...] = (
        "irprop_minus",
        "rprop_minus",
        "adam",
        "momentum",
        "sgd",
    )
    """Update rules to compare."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Rates to choose from: learning rates, or initial step sizes for the Rprop
    family."""
    noise: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """Standard deviations σ of the gradient noise, relative to the root mean square of
    the first gradient."""
    scales: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Exponents s; each pixel is multiplied by a factor between 10⁻ˢ and 10ˢ."""
    copies: tuple[int, ...] = (1, 3, 7)
    """Number of additional copies of each pixel."""
    steps: int = 200
    """Number of updates on the full batch."""
    constant: bool = False
    """Constant learning rates. By default, the learning rates of updates outside the
    Rprop family fall to 0 along a cosine, which averages noise away at the end."""
    seeds: int = 3
    """Number of runs with each setting, with different initial weights, gradient noise
    and factors of the pixels."""
    block: int = 64
    """Number of training runs under one vmap."""


class Setting(NamedTuple):
    """Settings of a training run; under jit, only fields of type float are traced."""

    update: str
    rate: float
    noise: float = 0.0
    scales: float = 0.0
    copies: int = 0


AXES = ("noise", "scales", "copies")


def main(config: Config) -> report.Result:
    """Train with all settings; choose rates; show test errors under each difficulty."""
    study = "rprop_robustness"
    return run_study(study, config, _jobs, _finish, free=("block",), check=_check)


def _check(config: Config) -> None:
    """Check that the folder `out` has no run, unless the run is to be resumed."""
    if not config.resume and config.out is not None and (config.out / RUNS).exists():
        raise DataError(
            f"{config.out} holds a run: add --resume to go on with it, or choose "
            "another --out."
        )


def _jobs(config: Config) -> list[Job]:
    trainings = len(make_settings(config)) * config.seeds
    return [Job("trainings", trainings, partial(_train, config))]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _rprop_robustness_report.show(rows, config)
    report.save_picture(folder, "robustness", _rprop_robustness_report.draw(rows))


def _train(config: Config, way: Way) -> list[Row]:
    """Run all trainings whose results are not in the run's folder; return the rows."""
    result = training.sweep(
        make_run(config.steps, config.constant),
        make_settings(config),
        range(config.first_seed, config.first_seed + config.seeds),
        steps=config.steps,
        chunk=config.steps,
        block=config.block,
        devices=None if config.devices is None else local_devices(config.devices),
        path=way.folder / RUNS,
        progress=lambda ended, _runs, _seconds_left: way.advance(ended),
    )
    if result.interrupted:
        raise KeyboardInterrupt
    return summarise(config, result.rows)


def make_settings(config: Config) -> list[Setting]:
    """Return the settings of all trainings of one seed.

    Settings without a difficulty come first.
    """
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
    """Return a function (setting, key) -> (state, advance, evaluate) for one training.

    The functions `advance` and `evaluate` run one update and the final evaluation.
    `training.sweep` calls the returned function for each setting and key.

    Args:
      steps: number of updates of each training.
      constant: whether learning rates are constant, or fall to 0 along a cosine.
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


def summarise(config: Config, runs: list[Row]) -> list[Row]:
    """Return a row of results for each update rule and level of difficulty.

    A row has two test errors: with the rate that is best without difficulties ("kept"),
    and with the rate that is best under the difficulty ("tuned").

    The best rate is the rate with the lowest training loss, averaged over seeds. The
    loss of a diverged run counts as inf.
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
    """Return the fields of a setting as a tuple, which identifies its training runs."""
    return tuple(Setting(update, rate, **given))
