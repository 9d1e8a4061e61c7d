"""A run of `forecast` on a user's CSV file: reading, the contest, and the files."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import report
from experiments.applications.forecast import (
    contest,
    learn,
    pictures,
    report as forecast_report,
    user_csv,
)
from experiments.applications.forecast.calibrate import calibrated
from experiments.applications.forecast.series import fill, prepare, Prepared, Series
from experiments.harness import models, novelty
from experiments.harness.errors import DataError

OPTIONS = ("delimiter", "decimal", "encoding", "header", "dates")
METHODS = ("bptt:adam", "bptt:irprop_minus")  # networks of the contest by default


def read(config: Any) -> Series:
    """Return the series of the CSV file, and print the notes about it.

    Raises:
      DataError: if the file has no such column, or the column cannot be forecast.
    """
    given = Path(config.csv), config.column or config.target
    try:
        series = user_csv.read_series(
            *given, config.horizon, config.season, inputs=config.inputs,
            **options_of(config),
        )  # fmt: skip
        prepare(series)
        learn.check_known(series, config.blocks)
    except ValueError as error:
        raise DataError(f"--csv: {error}") from error
    for note in series.notes:
        print(f"--csv: {note}")
    return series


def options_of(config: Any) -> dict[str, Any]:
    """Return the options of reading that the user has set, and None for the others."""
    return {name: getattr(config, name) for name in OPTIONS}


def fields(
    series: Series, prepared: Prepared, said: np.ndarray, first: int, arrays: Any
) -> dict[str, Any]:
    """Return what the contest, the forecast and the saved model need of a method.

    Args:
      series: the series.
      prepared: arrays of the series.
      said: forecasts [1, origins, H, 3] of the method, in units of the series.
      first: the first origin.
      arrays: parameters of the method, a tree.
    """
    out, offsets = calibrated(series, said, prepared.targets[first:], first)
    return {
        "forecast": out[0, -1].tolist(),
        "offsets": offsets[0, -1].tolist(),
        "validation_squares": contest.paired(series, prepared, said, first),
        "arrays": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(arrays)],
        "names": sorted(arrays) if isinstance(arrays, dict) else [],
    }


def finish(folder: Path, config: Any, series: Series, rows: list[dict]) -> str:
    """Hold the contest, print its result, and write the winner's forecast and model.

    Returns:
      The sentence that says which method forecasts; "" if no method was fitted.
    """
    if not rows:
        return ""
    verdict = contest.decide(series, rows)
    contest.show(series, rows, verdict)
    if not report.writes():
        return verdict.sentence
    said = np.array(verdict.winner["forecast"])
    text = user_csv.forecast_text(len(series.values), said, series.ahead)
    user_csv.write_forecast(folder / "forecast.csv", text)
    report.write_atomically(folder / "conclusion.txt", verdict.sentence + "\n")
    name = forecast_report.name_of(series, verdict.winner["method"])
    report.save_picture(folder, "forecast", pictures.draw_own(series, said, name))
    _save(folder, config, series, verdict.winner)
    return verdict.sentence


def _save(folder: Path, config: Any, series: Series, winner: dict) -> None:
    """Save the winner, so that it can forecast from a newer file."""
    scaling = prepare(series).scaling
    params = {
        "arrays": [np.array(leaf) for leaf in winner["arrays"]],
        "offsets": np.array(winner["offsets"]),
        "scaling": [np.array(each) for each in scaling],
    }
    if near := _novelty(series):
        params["novelty"] = near
        last = {"past": windows(series, scaling.mean[0], scaling.deviation[0])[-1:]}
        if novelty.distances(near, last)[0] > 1:
            print(
                f"--csv: the last {series.lags} values are unlike the training part: "
                "do not trust the forecast. Is the last row an error?"
            )
    settings = {
        "method": winner["method"],
        "names": winner["names"],
        "cell": config.cell,
        "units": config.units,
        "column": series.unit,
        "inputs": list(series.inputs),
        "options": options_of(config),
        "horizons": len(series.horizons),
        "lags": series.lags,
        "season": series.season,
        "first": user_csv.label(series, 0),
    }
    models.save_model(folder, "forecast", params, settings)


def windows(series: Series, mean: float, deviation: float) -> np.ndarray:
    """Return the standardised last values at each time step, [N − lags + 1, lags]."""
    values = (fill(series.values) - mean) / deviation
    return np.lib.stride_tricks.sliding_window_view(values, series.lags)


def _novelty(series: Series) -> dict[str, Any]:
    """Return calibrated distances from the training part, {} if there are too few."""
    scaling = prepare(series).scaling
    found = windows(series, scaling.mean[0], scaling.deviation[0])
    border = series.validation - series.lags + 1
    if border <= novelty.NEIGHBOUR:
        return {}
    return novelty.calibrate({"past": found[:border]}, {"past": found[border:]})


def is_own(config: Any) -> bool:
    """Return whether the run is of a user's file."""
    return config.csv is not None


def check(config: Any) -> None:
    """Check that the options for a file are given together with the file."""
    if config.column is not None and config.target is not None:
        raise ValueError(
            f"column and target are two names of one option; got {config.column!r} and "
            f"{config.target!r}."
        )
    if is_own(config):
        return
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in ("column", "target", "inputs", *OPTIONS):
        if (value := getattr(config, name)) != defaults[name]:
            raise ValueError(
                f"{name} is for a file given by csv, got {value!r} without one."
            )
