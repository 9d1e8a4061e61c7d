"""Animations of the README and the gallery: length, size, and the numbers shown."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "animations"
NAMES = ("errors", "relaxation", "rprop", "forgetting")


@pytest.fixture(scope="module")
def animations():
    return importlib.import_module("docs.animations")


@pytest.mark.parametrize("name", NAMES)
def test_animations_are_short_and_small(name):
    path = IMAGES / f"{name}.gif"
    assert path.stat().st_size <= 1_000_000
    with Image.open(path) as film:
        milliseconds = []
        for i in range(film.n_frames):
            film.seek(i)
            milliseconds.append(film.info["duration"])
    assert len(milliseconds) > 10
    assert 3000 < sum(milliseconds) <= 5000


def test_all_animations_are_there(animations):
    assert tuple(animations.ANIMATIONS) == NAMES
    assert {path.stem for path in IMAGES.glob("*.gif")} == set(NAMES)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_equations(animations):
    sums = animations._discounted(np.array([1.0, 2.0, 3.0]), 0.5)
    np.testing.assert_allclose(sums, [1, 2.5, 4.25])
    norms = animations._error_norms(6)
    assert norms.shape == (6,)
    assert all(after < before for before, after in itertools.pairwise(norms))
    states, adjoints, changes = animations._settling(30, 4)
    assert states.shape == adjoints.shape == (30, 4)
    assert all(change[-1] < 1e-2 * change[0] for change in changes)


@pytest.mark.slow
def test_frames_become_a_film(animations, tmp_path):
    frames = itertools.islice(animations.forgetting(), 3)
    animations.save(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3
        colours = film.convert("RGB").getcolors(1 << 20)
        assert len(colours) > 5
