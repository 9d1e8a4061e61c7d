"""Tests of the Yin-Yang points: sizes, classes, and the order of the draws."""

import math

import numpy as np
import pytest

from experiments import data
from experiments.data import _yin_yang


def test_the_first_points_follow_from_the_draws():
    """Draw from the legacy generator in the published order, without the loader."""
    random = np.random.RandomState(42)
    inputs, classes = data.yin_yang().train
    for found, label in zip(inputs[:25], classes[:25], strict=True):
        wanted = random.randint(3)
        candidates = (random.rand(2) for _ in range(10_000))
        point = next(
            (x, y)
            for x, y in candidates
            if math.dist((x, y), (0.5, 0.5)) <= 0.5 and _class(x, y) == wanted
        )
        assert label == wanted
        np.testing.assert_array_equal(found[:2], np.float32(point))
    np.testing.assert_allclose(inputs[:, 2:], 1 - inputs[:, :2], atol=1e-7)


def _class(x, y):
    """Return the class of one point, from the areas of the symbol."""
    left, right = math.dist((x, y), (0.25, 0.5)), math.dist((x, y), (0.75, 0.5))
    if left < 0.1 or right < 0.1:
        return 2
    if left <= 0.25:  # the bulge of yin, with a dot cut out
        return 1
    if right <= 0.25:  # the bulge of yang
        return 0
    return 1 if y > 0.5 else 0


def test_sizes_and_shares():
    parts = data.yin_yang()
    assert [len(labels) for _, labels in parts] == [5000, 1000, 1000]
    for inputs, labels in parts:
        assert inputs.shape == (len(labels), 4)
        assert inputs.dtype == np.float32
        from_middle = np.linalg.norm(inputs[:, :2] - 0.5, axis=1)
        assert from_middle.max() <= 0.5 + 1e-7
        shares = np.bincount(labels) / len(labels)
        # three standard deviations of a share of 1/3
        assert np.abs(shares - 1 / 3).max() < 3 * math.sqrt(2 / 9 / len(labels))
    points = np.concatenate([inputs for inputs, _ in parts])
    assert len(np.unique(points, axis=0)) == 7000  # no point is in two parts


def test_the_symbol_is_its_own_negative():
    """Turn the symbol by half a turn: yin and yang change places, dots stay."""
    x, y = np.random.default_rng(0).random((2, 20_000))
    inside = np.hypot(x - 0.5, y - 0.5) < 0.5
    found = _yin_yang.class_of(x[inside], y[inside])
    turned = _yin_yang.class_of(1 - x[inside], 1 - y[inside])
    np.testing.assert_array_equal(turned, np.array([1, 0, 2])[found])
    shares = np.bincount(found) / len(found)
    area = 2 * 0.1**2 / 0.5**2  # of the dots
    np.testing.assert_allclose(
        shares, [0.5 - area / 2, 0.5 - area / 2, area], atol=0.01
    )


def test_the_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        data.yin_yang().train[0][0, 0] = 1.0
