"""A model of `identify` that predicts the next measurement of the tanks."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.applications.identify import tanks
from experiments.applications.identify.methods import gru, observer
from experiments.harness import models, novelty
from experiments.harness.errors import DataError
from experiments.harness.jobs import Row

LENGTH = 60  # number of steps by which measurements are compared with others
WARM = 20  # number of steps after which prediction errors are counted
PLANTS = 300  # number of simulated plants for the calibration


def read_columns(path: str | Path) -> np.ndarray:
    """Read the columns u and y of a CSV file with a header, [T, 2].

    Raises:
      DataError: if the file cannot be read, or has no such columns.
    """
    try:
        found = np.genfromtxt(path, delimiter=",", names=True, dtype=float)
        return np.atleast_1d(np.stack([found["u"], found["y"]], axis=-1)).reshape(-1, 2)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise DataError(
            f"--csv: {path} cannot be read: {error}. It must have a header with the "
            "columns u (input of the pump) and y (measured level), and commas."
        ) from error


READS = {"csv": read_columns}


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that predicts the next measurement y.

    The argument is an array [T, 2] of the pump's input u and the measured level y, in
    order of time. The model has learned from the stream of the run until its end, and
    does not learn from the argument. Fewer than 60 steps have no distance.
    """
    own = saved.settings["model"], saved.settings["units"]
    params = jax.tree.map(jnp.asarray, saved.params["learned"])

    def predict(x: Any) -> models.Answer:
        xs = np.asarray(x, np.float32)
        if xs.ndim != 2 or xs.shape[1] != 2 or not len(xs):
            raise ValueError(f"u and y must be [T, 2], got {list(xs.shape)}.")
        if not np.all(np.isfinite(xs)):
            raise ValueError("u and y must be finite, got NaN or inf.")
        ys = _predictions(own, params, xs[None])[0]
        value = round(float(ys[-1]), 4)
        if len(xs) < LENGTH:
            return models.Answer(value)
        views = _views(own, params, xs[None, -LENGTH:])
        return models.answer(saved, value, None, views)

    return predict


def _predictions(own: tuple[str, int], params: Any, xs: np.ndarray) -> np.ndarray:
    """Return the prediction after each step of N streams xs [N, T, 2].

    Args:
      own: name of the model, and number of units of the GRU.
      params: parameters of the model.
      xs: the streams.
    """
    return np.asarray(_run(*own)(params, xs))


@cache
def _run(name: str, units: int) -> Callable:
    model = observer() if name == "observer" else gru(units)

    def run(params, xs):
        step = lambda carry, x: model.step(params, carry, x)
        return jax.lax.scan(step, model.carry(params), xs)[1]

    return jax.jit(jax.vmap(run, in_axes=(None, 0)))


def _views(own: tuple[str, int], params: Any, xs: np.ndarray) -> novelty.Views:
    """Return the vectors by which streams [N, T, 2] are compared.

    The vectors are mean, standard deviation and mean change of u and y, and the
    logarithm of the prediction error.
    """
    errors = (_predictions(own, params, xs)[:, :-1] - xs[:, 1:, 1])[:, WARM:]
    level = np.log(np.sqrt(np.mean(errors**2, axis=1)) + 1e-6)
    change = np.abs(np.diff(xs, axis=1)).mean(axis=1)
    found = [xs.mean(axis=1), xs.std(axis=1), change]
    return {"stream": np.concatenate(found, axis=1), "error": level[:, None]}


def save(config: Any, folder: Path, rows: list[Row]) -> None:
    """Save the model that predicts best without learning on.

    The models are compared on simulated plants with the parameters after the change.
    A model that forgets quickly can be good while it learns, and bad when it stops.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
    """
    rows = [row for row in rows if "learned" in row]
    if not rows:
        return
    keys = jax.random.split(jax.random.key(977), 2 * PLANTS)
    plants = jax.vmap(lambda key: tanks.simulate(key, 3 * LENGTH, 0))(keys)
    xs = np.asarray(plants.xs[:, -LENGTH:])
    found = []
    for row in rows:
        own = row["job"].split(",")[0], config.units
        params = _as_arrays(row["learned"])
        errors = _predictions(own, params, xs)[:, WARM:-1] - xs[:, WARM + 1 :, 1]
        error = np.mean(errors**2)
        found.append((error if np.isfinite(error) else np.inf, own, params))
    _, own, params = min(found, key=lambda each: each[0])
    views = _views(own, params, xs)
    learned, held_out = (
        {name: view[i::2] for name, view in views.items()} for i in (0, 1)
    )
    saved = {"learned": params, "novelty": novelty.calibrate(learned, held_out)}
    settings = {"model": own[0], "units": own[1]}
    models.save_model(folder, "identify", saved, settings)


def _as_arrays(params: Any) -> Any:
    """Return nested dicts of lists of numbers as dicts of arrays."""
    if isinstance(params, dict):
        return {name: _as_arrays(part) for name, part in params.items()}
    return jnp.asarray(params, jnp.float32)
