"""Chaotic series to predict: Hénon, Mackey–Glass and Lorenz.

    Hénon          u ← 1 − a u² + v,  v ← b u;                         a = 1.4, b = .3
    Mackey–Glass   u_{t+1} = u_t + β u_{t−τ} / (1 + u_{t−τ}ᵐ) − γ u_t;
                   β = .2, γ = .1, m = 10, τ = 17
    Lorenz         u̇ = 10 (v − u),  v̇ = u (28 − w) − v,  ẇ = u v − 8/3 w; Euler's method
                   with steps of .01; every second value is kept

The letters u, v and w are state variables; a network reads only u. Each
system has several streams (trajectories), which start from random states close to each
other. The first 1000 steps of each stream are dropped. After these steps, each stream
is on the attractor of the system, and the streams are far apart.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

LEFT_OUT = 1000  # number of steps dropped at the start of each stream
HISTORY = 18  # number of values that Mackey–Glass stores: u_{t−17} … u_t


class System(NamedTuple):
    """Title of a system, and a function that yields its values u [streams] forever."""

    title: str
    run: Callable[[np.random.Generator, int], Iterator[np.ndarray]]


def henon(generator: np.random.Generator, streams: int) -> Iterator[np.ndarray]:
    """Yield the first coordinate u [streams] of Hénon's map at each step."""
    u, v = generator.uniform(-0.1, 0.1, (2, streams))
    while True:
        yield u
        u, v = 1 - 1.4 * u**2 + v, 0.3 * u


def mackey_glass(generator: np.random.Generator, streams: int) -> Iterator[np.ndarray]:
    """Yield the value u [streams] of the Mackey–Glass equation at each step."""
    history = list(generator.uniform(0.8, 1.2, (HISTORY, streams)))  # oldest first
    while True:
        yield history[-1]
        delayed = history.pop(0)
        u = history[-1]
        history.append(u + 0.2 * delayed / (1 + delayed**10) - 0.1 * u)


def lorenz(generator: np.random.Generator, streams: int) -> Iterator[np.ndarray]:
    """Yield the first coordinate u [streams] of the Lorenz system.

    One value is yielded for every two steps of Euler's method.
    """
    u, v, w = generator.normal(size=(3, streams)) + np.array([[1.0], [1.0], [25.0]])
    while True:
        yield u
        for _ in range(2):
            du, dv, dw = 10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w
            u, v, w = u + 0.01 * du, v + 0.01 * dv, w + 0.01 * dw


SYSTEMS = {
    "henon": System("Hénon", henon),
    "mackey_glass": System("Mackey–Glass", mackey_glass),
    "lorenz": System("Lorenz", lorenz),
}


def series(name: str, steps: int, streams: int, seed: int = 0) -> np.ndarray:
    """Return the values u of a system, [steps, streams], with mean 0 and variance 1."""
    run = SYSTEMS[name].run(np.random.default_rng(seed), streams)
    for _ in range(LEFT_OUT):
        next(run)
    u = np.stack([next(run) for _ in range(steps)])
    return (u - u.mean()) / u.std()
