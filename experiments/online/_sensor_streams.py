"""Two streams of sensor data; the preprocessing of a value uses no later values.

Inputs are scaled by fixed constants. Means and standard deviations of a stream are not
used, because they depend on the later values of the stream.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data

IMPOSSIBLE = np.datetime64("2013-05-09T02")  # 13 °F in this hour, but 57 °F around it
CHANGE = 2.0  # targets are changes of temperature in units of 2 °F per hour
HERTZ = 9  # readings of the robot per second
LAGS = {"robot": 10, "weather": 48}  # number of time steps that linear models read


class Stream(NamedTuple):
    """Inputs and targets of a stream, and functions that score predictions y."""

    xs: np.ndarray  # [T, d], inputs
    targets: np.ndarray  # [T] class labels, or real values
    mask: np.ndarray  # [T]: False at steps with a missing measurement
    reset: np.ndarray  # [T]: True after a gap in the data
    outputs: int
    loss: Callable[[jax.Array, jax.Array], jax.Array]  # (y, target) -> loss []
    error: Callable[[jax.Array, jax.Array], jax.Array]  # (y, target) -> error []
    held_out: int  # first step of the test part in published results
    times: np.ndarray  # [T], time of each step
    unit: str  # unit of `times`


def robot(steps: int | None = None) -> Stream:
    """Return the robot's stream: inputs are 24 distances, targets are four actions.

    The target of a time step is the action of the robot in this step. Actions are not
    among the inputs.
    """
    readings, actions = data.wall_following()
    steps = len(actions) if steps is None else min(steps, len(actions))
    return Stream(
        xs=(readings[:steps] - 2.5) / 2.5,  # distances are between 0 and 5 m
        targets=actions[:steps],
        mask=np.ones(steps, bool),
        reset=np.zeros(steps, bool),
        outputs=len(data.ACTIONS),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        error=lambda y, action: (jnp.argmax(y, axis=-1) != action).astype(float),
        held_out=4092,
        times=np.arange(steps) / (60 * HERTZ),
        unit="minutes",
    )


def weather(steps: int | None = None) -> Stream:
    """Return the stream of hourly weather at JFK airport.

    The target of an hour is the change of temperature until the next hour. Missing
    hours, and one hour with an impossible value, are masked. After masked hours, the
    carry of a network is reset.
    """
    found = data.nyc_weather("JFK")
    hour = (found.hours - found.hours[0]).astype(int)
    total = int(hour[-1]) + 1
    table = np.full((total, len(found) - 1), np.nan)
    table[hour] = np.stack(found[1:], axis=1)
    table[hour[found.hours == IMPOSSIBLE]] = np.nan
    temperature = table[:, 0]
    change = temperature[1:] - temperature[:-1]
    mask = np.isfinite(change)
    before = np.r_[True, np.isfinite(temperature[:-2])]
    angle = 2 * np.pi * np.arange(total) / 24
    xs = np.concatenate(
        [
            (_last_known(table) - MEANS) / SCALES,
            np.stack([np.sin(angle), np.cos(angle)], 1),
        ],
        axis=1,
    )
    cut = slice(None, None if steps is None else min(steps, total - 1))
    return Stream(
        xs=xs[:-1][cut].astype(np.float32),
        targets=np.where(mask, change / CHANGE, 0)[cut].astype(np.float32),
        mask=mask[cut],
        reset=(mask & ~before)[cut],
        outputs=1,
        loss=lambda y, target: (y[..., 0] - target) ** 2,
        error=lambda y, target: CHANGE**2 * (y[..., 0] - target) ** 2,
        held_out=total * 8 // 10,
        times=np.arange(total - 1)[cut] / 24,
        unit="days",
    )


# Typical means and scales in a temperate climate, rounded, for temperature, dew point,
# humidity, wind speed, precipitation and pressure.
MEANS = np.array([50, 40, 60, 10, 0, 1015.0])
SCALES = np.array([20, 20, 20, 10, 0.1, 10.0])
STREAMS = {"robot": robot, "weather": weather}


def lagged(stream: Stream, name: str) -> np.ndarray:
    """Return the inputs of linear models, [T, features]; the last feature is 1.

    For the stream of the robot, the features are all inputs of the last few time steps.
    For the weather, the features are all inputs of the current hour, and the
    temperatures of past hours.
    """
    shown = stream.xs if name == "robot" else stream.xs[:, :1]
    parts = [stream.xs] + [
        np.concatenate([np.repeat(shown[:1], lag, axis=0), shown[:-lag]])
        for lag in range(1, LAGS[name])
        if lag < len(shown)
    ]
    return np.concatenate([*parts, np.ones((len(shown), 1), np.float32)], axis=1)


def _last_known(table: np.ndarray) -> np.ndarray:
    """Replace a missing value by the last known value, or by the mean in `MEANS`.

    The mean replaces missing values at the start, where no value is known yet.
    """
    index = np.where(np.isfinite(table), np.arange(len(table))[:, None], 0)
    index = np.maximum.accumulate(index, axis=0)
    filled = np.take_along_axis(table, index, axis=0)
    return np.where(np.isfinite(filled), filled, MEANS)
