"""Tests of the study drift, and of the equations of its methods."""

import json

import numpy as np
import pytest

from experiments import data
from experiments.data import _seattle_weather
from experiments.forgetting import drift
from experiments.forgetting._online_regression import follow, METHODS
from experiments.harness.errors import DataError
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def weather_file(days):
    """Return a weather file in the format of the data set, with seasonal maxima."""
    start = np.datetime64("2012-01-01")
    numbers = np.random.default_rng(0).normal(size=(days, 4))
    lines = ["date,precipitation,temp_max,temp_min,wind,weather"]
    for n, (rain, high, low, wind) in enumerate(numbers):
        mean = 12 - 10 * np.cos(2 * np.pi * n / 365)
        values = abs(rain), mean + high, mean - 8 + low, abs(wind)
        lines.append(",".join([str(start + n), *(f"{v:.1f}" for v in values), "sun"]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def weather(monkeypatch, tmp_path):
    """Replace the weather data by a generated file."""
    path = tmp_path / "weather.csv"
    path.write_text(weather_file(1461), "ascii")
    monkeypatch.setattr(_seattle_weather, "find", lambda *_: path)
    monkeypatch.setattr(drift, "RATES", (0.01, 0.1))
    monkeypatch.setattr(drift, "DECAYS", (0.9,))


def test_the_study_runs_and_writes_what_it_shows(tmp_path, weather, capsys):
    config = drift.Config(steps=60, burn_in=20, seeds=2, out=tmp_path / "out")
    result = drift.main(config)
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert len(result.rows) == 5 + 2 * 7
    for row in result.rows[5:]:
        assert len(row["errors"]) == len(row["days"]) == 1460
        assert 0 < row["2015"] < 20
    for picture in ("drift", "seattle"):
        assert (result.folder / f"{picture}.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "A linear model under drift" in shown
    assert "no temperatures" in shown
    assert "error on random walks, each method at its best η: " in shown
    assert "left out" not in shown
    pictures = ["drift.png", "seattle.png"]
    check_resumed(drift.main, config, result, lost=2, pictures=pictures)


def test_what_cannot_be_had_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    def nothing():
        raise DataError("seattle-weather.csv could not be had")

    monkeypatch.setattr(data, "seattle_weather", nothing)
    sizes = {"steps": 6, "burn_in": 2, "seeds": 1, "rates": (0.2,), "horizon": 2}
    result = drift.main(drift.Config(**sizes, out=tmp_path))
    assert [row["stream"] for row in result.rows] == 5 * ["random walk"]
    assert "seattle-weather.csv could not be had" in capsys.readouterr().out
    assert not (tmp_path / "seattle.png").exists()


def test_walks_follow_from_the_first_seed():
    sizes = {"steps": 4, "burn_in": 0}
    both = drift.walks(drift.Config(seeds=2, **sizes))
    second = drift.walks(drift.Config(seeds=1, first_seed=1, **sizes))
    for several, one in zip(both, second, strict=True):
        np.testing.assert_array_equal(several[1:], one)


def test_the_methods_are_their_equations():
    """Compare each method with its equation in NumPy, on one random walk."""
    config = drift.Config(steps=50, seeds=1, burn_in=0)
    xs, ys, _ = (np.asarray(part[0], float) for part in drift.walks(config))
    rate, decay, horizon = 0.3, 0.9, 7

    def gradient(name, n, w, old):
        slope = lambda k, w: (xs[k] @ w - ys[k]) * xs[k]
        past = {"sgd": 1, "replay": horizon}.get(name, n + 1)
        ks = range(max(0, n + 1 - past), n + 1)
        at = lambda k: slope(k, old[k] if name == "stored" else w)
        total = sum(decay ** (n - k) * at(k) for k in ks)
        return total if name == "sgd" else (1 - decay) * total

    for name in METHODS:
        w, old, want = np.zeros(5), [], []
        for n in range(50):
            want.append(ys[n] - xs[n] @ w)
            old.append(w)
            if name == "rls":
                fade = decay ** np.arange(n, -1, -1)
                moments = (xs[: n + 1].T * fade) @ xs[: n + 1]
                prior = decay ** (n + 1) / 100 * np.eye(5)
                w = np.linalg.solve(
                    moments + prior, (xs[: n + 1].T * fade) @ ys[: n + 1]
                )
            else:
                w = w - rate * gradient(name, n, w, old)
        got, _ = follow(name, xs, ys, rate, decay, horizon)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_the_measured_table_is_reproduced():
    """Compare errors and diverging cases with a table measured without this library.

    The tolerance is as large as the differences between the means of several sets of
    five random walks.
    """
    config, rates = drift.Config(), np.array([0.05, 0.2, 0.5, 1.0])
    xs, ys, _ = drift.walks(config)
    errors = {
        name: drift._follow_walks(config, name, xs, ys, rates)[0] for name in METHODS
    }
    for name, measured in drift._drift_report.MEASURED.items():
        for mine, value in zip(errors[name].T, measured, strict=True):
            if value is None:
                assert np.isinf(mine).any()
            else:
                assert mine.mean() == pytest.approx(value, rel=0.12)
    assert errors["rls"].mean() < errors["replay"][:, 2].mean() * 1.05


@pytest.mark.data
def test_the_data_are_those_of_their_description():
    weather = data.seattle_weather()
    assert len(weather.dates) == 1461
    assert set(np.diff(weather.dates).astype(int)) == {1}
    scored = weather.dates[1:] >= np.datetime64("2015-01-01")
    persistence = drift.rms(np.diff(weather.temp_max), scored)
    assert persistence == pytest.approx(2.91, abs=5e-3)
    # The mean of the same day in the three years before
    days = np.array([str(date)[5:] for date in weather.dates])
    test = weather.dates >= np.datetime64("2015-01-01")
    same = [weather.temp_max[~test & (days == day)].mean() for day in days[test]]
    error = np.sqrt(np.mean((weather.temp_max[test] - same) ** 2))
    assert error == pytest.approx(4.42, abs=5e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"burn_in": 2000}, "0 <= burn_in < steps = 2000, got 2000"),
        ({"decay": 1.0}, r"decay must be in \(0, 1\), got 1.0"),
        ({"rates": (0.1, -0.1)}, "rates must be positive"),
    ],
)
def test_options_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        drift.Config(**wrong)
