"""Task `sunspots` of `compare`: online learning by RTRL with a forgetting factor."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients, updates
from experiments import data
from experiments.compare.job import Job, Part, Reference, Task
from experiments.compare.kinds import FORGETTING

UNITS, PASSES, LAGS = 8, 20, 12
NETWORK = f"tanh RNN {UNITS}"
PERIODS = {"1700–1920": (1700, 1920), "1921–55": (1921, 1955), "1956–79": (1956, 1979)}

ABOUT = (
    "Yearly sunspot numbers; the years to 1920 are for training, the two later periods "
    "for test. Scores are mean squared errors of the forecast for the next year, "
    "relative to the variance of 1700–1979. The online jobs change the parameters "
    "every year. RTRL computes the gradient of the current year's error, and the "
    "forgetting factor adds past gradients, as in the tutorial's equation. The printed "
    "form of the equation applies the learning rate to the newest gradient alone. The "
    "printed form is stable only for a factor as small as 0.01, and then close to sgd."
)


def sunspots(steps: int | None = None) -> Task:
    """Return the task `sunspots` with its jobs (trainings).

    If `steps` is given, it is the number of updates of every job.
    """
    years, numbers = data.sunspots()
    scale = float(np.std(numbers[years <= 1920]))
    series = jnp.asarray(numbers / scale)
    xs, targets = series[:-1, None], series[1:]
    train = int(np.sum(years[1:] <= 1920))  # number of targets in the training part
    relative = _relative_variance(years, numbers / scale)
    evaluate = lambda params: relative(_predict(params, xs))
    pairs = xs[:train], targets[:train]
    return Task(
        name="sunspots",
        title="Sunspots of the next year",
        about=ABOUT,
        value="squared error / variance of 1700–1920",
        score="1921–55",
        measure="relative squared error, 1921–55",
        higher_is_better=False,
        parts=[Part(FORGETTING, lambda row: True)],
        jobs=[
            *_online_jobs(*pairs, steps, evaluate),
            _resilient_job(*pairs, steps, evaluate),
        ],
        references=[
            Reference("last year's number", relative(xs[:, 0])),
            Reference(f"autoregression on {LAGS} lags", relative(_ar(series, train))),
        ],
    )


def _online_jobs(
    xs: jax.Array, targets: jax.Array, steps: int | None, evaluate: Callable
) -> list[Job]:
    """Return one job for each update rule, with an update after every year of data."""
    online = gradients.rtrl(_step, _squared_error)

    def one_year(params, state, x, target, reset):
        value, grads, state = online.update(params, state, x, target, reset=reset)
        return (value, state), grads

    begins = jnp.arange(len(xs)) == 0
    passes = [(xs[t], targets[t], begins[t]) for t in range(len(xs))] * PASSES
    optimizers = {
        "forgetting(0.001, 0.9)": updates.forgetting(0.001, 0.9),
        "forgetting(0.01, 0.01), as printed": updates.forgetting(
            0.01, 0.01, scale_past=False
        ),
        "sgd(0.01)": optax.sgd(0.01),
        "adam(0.001)": optax.adam(0.001),
    }
    return [
        Job(
            kind="forward in time",
            network=NETWORK,
            rule="rtrl, online",
            update=update,
            init=_init,
            evaluate=evaluate,
            gradient=one_year,
            optimizer=optimizer,
            data=passes,
            carry=lambda params: online.init(
                params, jnp.zeros(UNITS), (xs[0], targets[0])
            ),
            steps=steps or len(passes),
            batch="1 year",
        )
        for update, optimizer in optimizers.items()
    ]


def _resilient_job(
    xs: jax.Array, targets: jax.Array, steps: int | None, evaluate: Callable
) -> Job:
    """Return the job that trains by iRprop⁻, with all training years in one batch."""
    return Job(
        kind="resilient, through time",
        network=NETWORK,
        rule="bptt",
        update="irprop_minus(0.001)",
        init=_init,
        evaluate=evaluate,
        gradient=gradients.bptt(_step, _squared_error),
        optimizer=updates.irprop_minus(0.001),
        data=(jnp.zeros(UNITS), xs, targets),
        steps=steps or 200,
    )


def _init(key: jax.Array):
    keys = jax.random.split(key, 3)
    normal = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    return {
        "input": normal(keys[0], 1, UNITS),
        "recurrent": 0.5 * normal(keys[1], UNITS, UNITS),
        "bias": jnp.zeros(UNITS),
        "readout": normal(keys[2], UNITS),
        "readout_bias": jnp.ones(()),
    }


def _step(params, h, x):
    h = jnp.tanh(h @ params["recurrent"] + x @ params["input"] + params["bias"])
    return h, h @ params["readout"] + params["readout_bias"]


def _squared_error(y, target):
    return (y - target) ** 2


def _predict(params, xs: jax.Array) -> jax.Array:
    return gradients.unroll(_step, params, jnp.zeros(UNITS), xs)[1]


def _relative_variance(years: np.ndarray, series: np.ndarray) -> Callable:
    """Return a function that scores forecasts: one score for each of the `PERIODS`.

    The function takes forecasts of all years after the first one. A score is the mean
    squared error in a period, divided by the variance of the series until 1979.
    """
    variance = np.var(series[years <= 1979])
    inside = {
        name: jnp.asarray((first <= years[1:]) & (years[1:] <= last))
        for name, (first, last) in PERIODS.items()
    }

    def relative(forecasts):
        errors = (forecasts - series[1:]) ** 2
        # The first years have no forecast by autoregression (NaN); leave them out.
        mean = lambda part: jnp.nanmean(jnp.where(part, errors, jnp.nan))
        return {name: mean(part) / variance for name, part in inside.items()}

    return relative


def _ar(series: jax.Array, train: int) -> np.ndarray:
    """Forecast each year by a linear autoregression on the LAGS years before it.

    The coefficients of the autoregression are fitted to the training years.
    """
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(series)[:-1], LAGS)
    inputs = np.column_stack([windows, np.ones(len(windows))])
    targets = np.asarray(series)[LAGS:]
    known = train - LAGS + 1
    coefficients, *_ = np.linalg.lstsq(inputs[:known], targets[:known], rcond=None)
    return np.concatenate([np.full(LAGS - 1, np.nan), inputs @ coefficients])
