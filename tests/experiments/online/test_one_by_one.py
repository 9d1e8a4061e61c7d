"""Tests of learners with the interface of river, on breathing and weather."""

import numpy as np
import pytest

from bpvariants import training
from experiments import data
from experiments.benchmarks._learner import export
from experiments.online import one_by_one
from experiments.online.one_by_one import Stream

pytestmark = pytest.mark.slow


@pytest.mark.data
def test_targets_of_breathing_are_the_next_changes():
    stream, positions = one_by_one.breathing(), data.breathing()
    assert len(stream.parts) == len(positions) == 9
    for part, each in zip(stream.parts, positions.values(), strict=True):
        z = each[:, 2]
        np.testing.assert_allclose([y for _, y in part], z[1:] - z[:-1])
        shown = np.array([x["1_z"] for x, _ in part])
        np.testing.assert_allclose(shown, (z[:-1] - z[0]) / 5)
        changes = np.array([x["1_z_change"] for x, _ in part])
        np.testing.assert_allclose(changes[1:], np.diff(z[:-1]))
        assert changes[0] == 0
        assert all(len(x) == 18 for x, _ in part)


@pytest.mark.data
def test_missing_hours_of_weather_have_no_target():
    (part,) = one_by_one.weather().parts
    missing = sum(y is None for _, y in part)
    assert 0 < missing < len(part) / 2
    assert all([*x] == one_by_one.WEATHER for x, _ in part)
    assert all(np.isfinite([*x.values()]).all() for x, _ in part)


class Last:
    """A model that predicts the last target, times a rate; it notes what it did."""

    def __init__(self, rate):
        self.rate, self.last, self.did = rate, 0.0, []

    def predict_one(self, x):
        self.did.append(("predict", x["a"]))
        return self.rate * self.last

    def learn_one(self, x, y):
        self.did.append(("learn", x["a"]))
        self.last = y


def test_each_prediction_is_scored_before_the_model_learns():
    model = Last(1.0)
    pairs = [({"a": 0}, 3.0), ({"a": 1}, None), ({"a": 2}, 5.0)]
    assert [*one_by_one.errors_of(model, pairs)] == [9.0, 4.0]
    assert model.did == [("predict", 0), ("learn", 0), ("predict", 2), ("learn", 2)]


def test_the_rate_is_chosen_on_the_first_fifth_and_scored_on_the_rest(monkeypatch):
    """The targets are equal at first, so that rate 1 is best; then they alternate."""
    targets = 10 * [2.0] + 20 * [2.0, -2.0]
    stream = Stream([[({"a": 0}, y) for y in targets]], "mm", 10.0)
    monkeypatch.setattr(one_by_one, "RATES", (0.0, 1.0, -1.0, float("inf")))
    name, rate, error, _ = one_by_one.row("last", stream, Last)
    assert (name, rate) == ("last", "1")
    # Of the last 40 targets, the first follows an equal one; the others change by 4.
    assert float(error) == pytest.approx(10 * np.sqrt(39 * 16 / 40), abs=1e-3)
    _, rate, error, _ = one_by_one.row("persistence", stream, None)
    assert (rate, float(error)) == ("", 20.0)


def test_a_learner_begins_again_with_each_rate(tmp_path, plain_jax):
    """Both start from the state of the file; only the learning rate differs."""
    with plain_jax():
        check_that_a_learner_begins_again(tmp_path)


def check_that_a_learner_begins_again(tmp_path):
    export("snap, order 1", tmp_path / "gru.learner", 2)
    learner = training.load_learner(tmp_path / "gru.learner")
    start = learner.state
    make = one_by_one.recurrent(learner, ["a", "b"])
    x, errors = {"a": 0.5, "b": -1.0}, {}
    for rate in (0.0, 1e-2, 0.0):
        model = make(rate)
        pairs = 30 * [(x, 0.3)]
        errors.setdefault(rate, []).append([*one_by_one.errors_of(model, pairs)])
    assert errors[0.0][0] == errors[0.0][1]
    assert errors[1e-2][0][0] == errors[0.0][0][0]
    assert errors[1e-2][0][-1] < 0.1 * errors[0.0][0][-1]
    for name in [name for name in start if name.startswith("params")]:  # rate 0
        np.testing.assert_array_equal(learner.state[name], start[name])
