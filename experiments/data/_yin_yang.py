"""The Yin-Yang data set: points in the plane, drawn by a seeded generator.

The symbol is a circle of radius ½ around (½, ½). Around (¼, ½) and (¾, ½), there are
two dots of radius 0.1. The classes are yang (0), yin (1), and the dots (2).
"""

from functools import cache
from typing import NamedTuple

import numpy as np

RADIUS, DOT = 0.5, 0.1
LEFT, RIGHT = (0.5 * RADIUS, RADIUS), (1.5 * RADIUS, RADIUS)  # centres of the dots
SIZES = {"train": (5000, 42), "validation": (1000, 41), "test": (1000, 40)}


class YinYang(NamedTuple):
    """Inputs [N, 4] (x, y, 1 − x and 1 − y of each point), and classes [N] in 0..2."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


@cache
def yin_yang() -> YinYang:
    """Return the three parts, with the published sizes and seeds.

    The arrays are drawn once, and cannot be written to.

    References:
      Kriener, Göltz, Petrovici, "The Yin-Yang dataset", NICE 2022,
      doi:10.1145/3517343.3517380.
    """
    parts = {name: points(*given) for name, given in SIZES.items()}
    for arrays in parts.values():
        for array in arrays:
            array.flags.writeable = False
    return YinYang(**parts)


def points(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points by rejection: first a class, then points until one is of this class.

    The three classes are therefore equally frequent on average. The draws are those of
    NumPy's legacy generator, which are the same in all versions of NumPy.

    Args:
      number: number of points N.
      seed: seed of the generator.

    Returns:
      Inputs [N, 4] in float32, and classes [N].

    Example:
      >>> inputs, classes = points(3, seed=42)
      >>> inputs[:, :2].astype(float).round(3).tolist(), classes.tolist()
      ([[0.68, 0.45], [0.098, 0.684], [0.755, 0.425]], [2, 1, 2])
    """
    random = np.random.RandomState(seed)
    inputs, classes = np.empty((number, 4), np.float32), np.empty(number, np.int32)
    for i in range(number):
        wanted = random.randint(3)
        while True:
            x, y = 2 * RADIUS * random.rand(2)
            inside = np.hypot(x - RADIUS, y - RADIUS) <= RADIUS
            if inside and class_of(x, y) == wanted:
                break
        inputs[i], classes[i] = (x, y, 1 - x, 1 - y), wanted
    return inputs, classes


def class_of(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Return the class of points inside the circle: 0 yang, 1 yin, 2 dots.

    Example:
      >>> class_of(np.array([0.25, 0.5, 0.5]), np.array([0.5, 0.9, 0.1])).tolist()
      [2, 1, 0]
    """
    left, right = (np.hypot(x - a, y - b) for a, b in (LEFT, RIGHT))
    yin = (right <= DOT) | ((left > DOT) & (left <= 0.5 * RADIUS))
    yin |= (y > RADIUS) & (right > 0.5 * RADIUS)
    return np.where((left < DOT) | (right < DOT), 2, yin)
