"""Tests of the study forecast, such as that it uses no future values."""

import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.applications.forecast import (
    baselines,
    diebold_mariano,
    learn as forecast_learn,
    network as forecast_network,
    online,
    pictures,
    report,
    scores,
    series as series_of,
    study as forecast,
    user_csv,
)
from experiments.data.tables import read_columns
from experiments.harness.errors import DataError
from experiments.harness.jobs import Way
from tests.experiments.resuming import check_resumed

SMALL: dict = {
    "cell": "tanh",
    "units": 3, "steps": 4, "full_batch_steps": 4, "looks": 2, "batch": 4, "warm": 4,
    "span": 6, "seeds": 2, "passes": 2, "lookback": 3, "rates": (0.01, 0.1),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def make_series(values=None, **changes):
    rng = np.random.default_rng(0)
    steps = np.arange(90)
    if values is None:
        values = np.sin(steps / 3) + 0.3 * rng.normal(size=90)
        values[[20, 75]] = np.nan
    series = series_of.Series(
        "made", "made up", "m", steps, values, rng.normal(size=(90, 1)), steps % 7, 7,
        50, 65, {"a": (65, 80), "b": (80, 90)}, (1, 3), 4, period=7,
    )  # fmt: skip
    return series._replace(**changes)


@pytest.mark.data
def test_quick_beats_persistence(tmp_path, capsys):
    result = forecast.main(forecast.Config(quick=True, out=tmp_path))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    rows = {row["method"]: row for row in result.rows}
    error = {name: row["rmse"]["2015"] for name, row in rows.items()}
    for h, persistence in {"1": 2.91, "7": 4.70}.items():
        assert abs(error["reference"][h][0] - persistence) < 0.005
        assert error["bptt:adam"][h][0] < 0.95 * error["reference"][h][0]
    assert error["ridge"]["1"][0] < 2.78
    assert 84 < rows["bptt:adam"]["coverage"]["2015"]["1"][0] < 96
    for picture in ("seattle-forecasts", "seattle-errors"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 10_000
    assert "elsewhere" in capsys.readouterr().out


@pytest.mark.data
def test_linear_baselines_are_those_measured_elsewhere():
    series = series_of.SERIES["sunspots"]()
    prepared = series_of.prepare(series)
    said = baselines.walk("ar", series, prepared)[0][None]
    row = scores.score(series, prepared, said, series.validation - 1)
    for period, want in {"1921–55": 0.130, "1956–79": 0.368}.items():
        assert abs(report.errors(series, row, period, 1)[0] - want) < 6e-4
    series = series_of.SERIES["vix"]()
    prepared = series_of.prepare(series)
    said = baselines.walk("reference", series, prepared)[0][None]
    row = scores.score(series, prepared, said, series.validation - 1)
    (errors,) = row["rmse"].values()
    assert abs(errors["1"][0] - 0.0787) < 5e-5
    assert [test["statistic"] for test in row["skill"].values()] == [0, 0, 0]
    # New York, one hour and 24 hours ahead: persistence, and autoregression on 48 lags
    series = series_of.SERIES["nyc"]()
    prepared = series_of.prepare(series)
    for kind, wants in {"reference": (1.61, 8.29), "ar": (1.47, 8.06)}.items():
        said = baselines.walk(kind, series, prepared)[0][None]
        errors = scores.score(series, prepared, said, series.validation - 1)["rmse"]
        for hours, want in zip(("1", "24"), wants, strict=True):
            assert abs(errors["last 20 %"][hours][0] - want) < 0.01
    # Hours that are absent from the file become missing values.
    assert np.all(np.diff(series.times).astype(int) == 1)
    assert np.isnan(series.values).sum() > 20


def learned(method, series, tmp_path):
    """Train the networks of the study.

    Return forecasts [seeds, origins, H, 3] in data units, and the first origin.
    """
    config = forecast.Config(**SMALL, blocks=2)
    rule, _, update = method.partition(":")
    way = Way("job", tmp_path, lambda step: None)
    prepared = series_of.prepare(series)
    if online.is_online(rule):
        return online.at_every_step(config, rule, update, series, prepared, way)
    return forecast_learn.by_windows(config, rule, update, series, prepared, way)


@pytest.mark.parametrize("method", ["bptt:irprop_minus", "snap_1:forgetting"])
def test_nothing_after_its_origin_makes_a_difference(method, tmp_path):
    series = make_series()
    one = learned(method, series, tmp_path / "a")
    assert one.first == 49
    assert one.said.shape == (2, 41, 2, 3)
    assert np.all(np.isfinite(one.said))
    later = series.values.copy()
    later[80:] += 5
    others = series.others.copy()
    others[80:] -= 3
    changed = series._replace(values=later, others=others)
    other = learned(method, changed, tmp_path / "b")
    np.testing.assert_array_equal(one.said[:, :31], other.said[:, :31])
    assert not np.allclose(one.said[:, 31:], other.said[:, 31:])


def test_baselines_do_not_look_ahead():
    series, later = make_series(), make_series().values
    later[80:] += 5
    changed = series._replace(values=later)
    for name in baselines.BASELINES:
        one, other = (
            baselines.forecast(name, each, series_of.prepare(each))
            for each in (series, changed)
        )
        np.testing.assert_array_equal(one[:80], other[:80])
        assert np.all(one[64:, :, 1] < one[64:, :, 2])


def test_seasonal_and_linear_baselines_know_what_they_are_for():
    steps = np.arange(90)
    wave = make_series(np.array([3.0, 1, 4, 1, 5, 9, 2])[steps % 7])
    prepared = series_of.prepare(wave)
    for name in ("seasonal", "last_season", "ar"):
        if name == "ar":
            wave = wave._replace(lags=7)
        said = baselines.forecast(name, wave, prepared)[64:-3, 1, 0]
        np.testing.assert_allclose(said, wave.values[67:], atol=1e-9)


def test_what_a_network_is_given():
    series = make_series()
    prepared = series_of.prepare(series)
    # The inputs of a time step are the values of 3 series, a flag for missing values,
    # and 2 values for the phase of the season.
    assert prepared.xs.shape == (90, 3 + 3)
    assert prepared.xs[20, 3] == 1
    assert prepared.xs[20, 0] == prepared.xs[19, 0]
    assert prepared.reference[20] == series.values[19]
    assert not prepared.known[17, 1]
    assert not prepared.known[89].any()
    np.testing.assert_allclose(prepared.xs[:50, :3].std(axis=0), 1, rtol=1e-5)
    back = prepared.reference[30] + prepared.scale[1] * prepared.z[30, 1]
    np.testing.assert_allclose(back, series.values[33], rtol=1e-6)
    with pytest.raises(ValueError, match="constant in its training part"):
        series_of.prepare(make_series(np.arange(90) * (np.arange(90) > 60.0)))
    flat = series_of.prepare(make_series(np.arange(90) % 3 * 1.0))
    assert np.all(flat.z[:87, 1] == 0)
    np.testing.assert_allclose(flat.scale[1], np.sqrt(2 / 3), rtol=0.01)


def test_losses_by_hand():
    said = jnp.array([[1.0, 0.0, 2.0]])
    value = forecast_network.losses(said, jnp.array([3.0]))
    # Losses by hand: ½ · 2² for the forecast of the mean, .05 · 3 for that of the 5 %
    # quantile, and .95 · 1 for that of the 95 % quantile.
    np.testing.assert_allclose(value, [2 + 0.15 + 0.95], rtol=1e-6)
    target = jnp.array([3.0]), jnp.array([1.0])
    assert forecast_network.loss(said.reshape(3), target) == value[0]
    # The loss of the low quantile is smallest at the 5 % quantile, the lower end of a
    # 90 % interval.
    z = jnp.asarray(np.random.default_rng(0).normal(size=999))
    grid = np.linspace(-3, 3, 121)
    said = np.stack([0 * grid, grid, 0 * grid], axis=-1)
    total = forecast_network.losses(said[:, None], z[None]).mean(axis=1)
    assert abs(grid[np.argmin(total)] - np.quantile(z, 0.05)) < 0.05


def test_windows_see_nothing_from_their_cut_on():
    prepared = series_of.prepare(make_series())
    network = forecast_network.make_network("tanh", prepared.xs.shape[1], 3, 2)

    def rule(params, carry, xs, targets, weights, mask):
        seen = {"z": targets[0], "counts": targets[1], "weights": weights, "mask": mask}
        return (jnp.zeros(()), carry), seen

    learn = forecast_network.on_windows(
        rule, network, (1, 3), warm=4, span=6, every=2, draws=False
    )
    learn = jax.jit(learn)
    params = network.init(jax.random.key(0))
    kept = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), params)
    lane = forecast_network.Lane(jnp.array(50), jnp.array(3), kept)
    given = prepared.xs, prepared.z, prepared.known
    (_, lane), seen = learn(params, lane, jnp.array([0, 18, 48]), *given)
    assert lane.count == 4
    np.testing.assert_array_equal(lane.kept["bias"][1], params["bias"])
    # Steps before the start of the series are masked.
    assert not seen["mask"][:4, 0].any()
    assert seen["mask"][4:, 0].all()
    assert not seen["counts"][:4].any()  # losses of warm-up steps have weight 0
    np.testing.assert_array_equal(seen["counts"][4:, 1, 0], [1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(seen["counts"][4:, 2], [[1, 0], *5 * [[0, 0]]])
    np.testing.assert_array_equal(seen["mask"][:, 2], [*6 * [True], *4 * [False]])
    np.testing.assert_array_equal(seen["weights"], seen["counts"].mean(axis=-1))
    np.testing.assert_array_equal(seen["z"][4, 1], prepared.z[18])
    shares = jnp.array([0.0, 0.999])
    _, seen = learn(params, lane, shares, *given)
    np.testing.assert_array_equal(seen["z"][4], prepared.z[jnp.array([0, 43])])


def test_diebold_mariano_by_hand():
    test = diebold_mariano.diebold_mariano
    d = np.random.default_rng(0).normal(0.3, size=40)
    # For forecasts one step ahead, the Diebold–Mariano test equals the t test.
    want = stats.ttest_1samp(d, 0)
    np.testing.assert_allclose(test(d, 1), (want.statistic, want.pvalue), rtol=1e-12)
    # By hand: autocovariances γ_0 = 10/6 and γ_1 = 1/6, variance V = 2/6, correction
    # c² = (6 + 1 − 4 + 2/6)/6 = 5/9, statistic S = 2 √(5/3).
    found = test(np.array([2.0, 0, 1, 3, 2, 4]), 2)
    np.testing.assert_allclose(found.statistic, 2 * np.sqrt(5 / 3), rtol=1e-12)
    # The reference is a table of Student's t with 5 degrees of freedom.
    np.testing.assert_allclose(found.p, 0.0493, atol=5e-5)
    # The variance estimate γ_0 + 2 γ_1 = 1 − 2 · 5/6, from autocovariances γ, is
    # negative. Bartlett's weights are used instead, and give the estimate 1 − 5/6.
    found = test(np.array([1.0, -1, 1, -1, 1, -1]) + 1, 2)
    np.testing.assert_allclose(found.statistic, np.sqrt(5 / 9 * 6 * 6), rtol=1e-12)
    assert test(np.zeros(9), 1) == (0, 1)
    with pytest.raises(ValueError, match=r"more than 2 · horizon.* got 6"):
        test(d[:6], 3)
    with pytest.raises(ValueError, match="must be finite"):
        test(np.array([1.0, np.nan, 2, 3]), 1)


def test_no_skill_is_said_plainly():
    series = make_series(returns=True, price=True, caveat="By construction.")
    row = lambda method, p, gain: {
        "method": method, "skill": {"1": {"p": p, "gain": gain, "statistic": 1.0}}
    }  # fmt: skip
    rows = [row("reference", 1, 0), row("ar", 0.04, 2.0), row("ridge", 0.9, 0.1)]
    # The p-value 0.04 is multiplied by 2, because two comparisons are made.
    said = report.conclusion(series, rows)
    assert said.startswith("made up: no skill shown. Of 2 comparisons none is better")
    rows[1] = row("ar", 0.01, 2.0)
    said = report.conclusion(series, rows)
    assert "1 of 2 comparisons are better" in said
    assert "AR(4) at 1" in said
    assert said.endswith("By construction.")
    rows[1] = row("ar", 0.01, -2.0)
    said = report.skill(series, rows)[0][-1]
    assert said.startswith("worse, no skill: 2.0 % more error than the zero forecast")
    assert "no skill shown. Of 2" in report.conclusion(series, rows)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it has no names of columns"),
        (
            "day,lod\n1,2\n",
            r"'load' of .* not in it; there are: day, lod\. Did you mean",
        ),
        ("load,load\n1,2\n", "is twice or more in it"),
        ("load\n1\n2\n3\n", "has 3 rows; a horizon of 2 needs 40 at least"),
        ("load\n" + "3\n" * 50, "is 3 in all rows: it is constant"),
        ("load\n" + "3\n" * 45 + "4\n" * 5, "is constant in its training part"),
        ("load\n" + "1\n2\n" * 30 + "much\n", "line 62 of .* has 'much'"),
        ("load\n1\ninf\n", "line 3 of .* has 'inf'"),
        ("day,load\n1,2\n1\n", "line 3 of .* has 1 fields, and so no 'load'"),
        (
            "load\n" + "1\n2\n" * 20 + "NA\n" * 10,
            "no number in rows 44 to 49, .* tested",
        ),
        (
            "load\n" + "1\n2\n" * 17 + "NA\n" * 6 + "1\n" * 10,
            "no number in rows 34 to 39",
        ),
        ("load\n" + "1e300\n2e300\n" * 30, r"too large .*, such as 1e\+300"),
        ("load\n" + "NA\n" * 30 + "1\n2\n" * 10, "has only 20 numbers in 50 rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_written(text, message, tmp_path):
    path = write(tmp_path / "my.csv", text)
    config = forecast.Config(
        csv=str(path), column="load", horizon=2, out=tmp_path / "out"
    )
    with pytest.raises(DataError, match=message):
        forecast.main(config)
    assert [each.name for each in tmp_path.iterdir()] == ["my.csv"]


def test_without_any_series_there_is_no_run(tmp_path, monkeypatch):
    def missing():
        raise DataError("there is no such file")

    monkeypatch.setitem(series_of.SERIES, "vix", missing)
    with pytest.raises(DataError, match="no such file"):
        forecast.main(forecast.Config(sets=("vix",), out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_columns_are_read_as_they_are_written(tmp_path):
    read = lambda *given: read_columns(*given).columns
    path = write(
        tmp_path / "a.csv", '\ufeffday;"my load"\n1;1.5\n2;\n\n3; n/a \n4;-2e3\n'
    )
    found = read(path, ["my load"])["my load"]
    np.testing.assert_array_equal(found, [1.5, np.nan, np.nan, -2000])
    path = write(tmp_path / "b.csv", "load\n1\n\n3\n\n\n")
    np.testing.assert_array_equal(read(path, ["load"])["load"], [1, np.nan, 3])
    with pytest.raises(ValueError, match="there is no file"):
        read_columns(tmp_path / "d.csv", ["load"])
    with pytest.raises(ValueError, match=r"horizon must be in 1\.\.200, got 201"):
        user_csv.read_series(path, "load", 201, None)


def test_a_name_with_dollars_is_no_formula(tmp_path):
    series = make_series(title="a $x^$ b", unit="$/h and \\frac in $")
    figure = pictures.draw_own(series, np.ones((3, 3)))
    # Matplotlib raises an error if it takes a title for an invalid formula.
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_german_file_newest_first_with_inputs(tmp_path):
    values = [f"{1000 + 7 * (i % 5)},{i % 10}" for i in range(60)]
    lines = [f"{60 - i}.1.;{v};{i}" for i, v in enumerate(reversed(values))]
    text = "\n".join(["Tag;Last;Wind", *lines])
    days = np.datetime64("2020-01-01") + np.arange(60).astype("timedelta64[D]")
    for i, day in enumerate(days[::-1]):
        text = text.replace(f"{60 - i}.1.;", f"{day.item():%d.%m.%Y};")
    path = write(tmp_path / "my.csv", text)
    series = user_csv.read_series(path, "Last", 2, None, inputs=["Wind"])
    expected = [float(value.replace(",", ".")) for value in values]
    np.testing.assert_array_equal(series.values, expected)
    np.testing.assert_array_equal(series.others[:, 0], np.arange(60)[::-1])
    # The inputs are the value, its change, Wind, and two for the phase of the week.
    assert series_of.prepare(series).xs.shape == (60, 5)
    assert series.season == 7
    assert [*map(user_csv.text_of, series.ahead)] == ["2020-03-01", "2020-03-02"]
    assert "newest row first" in series.notes[0]
    with pytest.raises(ValueError, match="must be different columns, got Last, Last"):
        user_csv.read_series(path, "Last", 2, None, inputs=["Last"])


def test_a_run_is_not_resumed_after_its_file_grew(tmp_path):
    values = np.sin(np.arange(120) / 2).round(3)
    text = "load\n" + "".join(f"{value}\n" for value in values)
    path = write(tmp_path / "my.csv", text)
    given: dict = {"csv": str(path), "column": "load", "horizon": 3}
    given |= {"out": tmp_path / "out", "methods": ("bptt:adam",)}
    before = forecast.main(forecast.Config(**given, **SMALL))
    resumed = forecast.Config(out=tmp_path / "out", resume=True)
    for more, message in {
        "0.5\n": r"had 121 lines \(\d+ bytes\), and has 122 .*; the rest was added",
        "0.5\n" * 10: "and has 131",
    }.items():
        write(path, text + more)
        with pytest.raises(DataError, match=f"--csv: .*{message}"):
            forecast.main(resumed)
    write(path, text)
    assert forecast.main(resumed).rows == before.rows


def test_memory_of_long_files_is_that_of_a_column(tmp_path):
    path = write(
        tmp_path / "long.csv", "day,load,more\n" + "1,2.5,abc\n0,1,x\n" * 100_000
    )
    tracemalloc.start()
    series = user_csv.read_series(path, "load", 12, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    prepared = series_of.prepare(series._replace(horizons=(12,), lags=24))
    baselines.forecast("ar", series._replace(horizons=(12,)), prepared)
    _, peak_of_ar = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(series.values) == 200_000
    column = 200_000 * 8
    assert peak < 8 * column  # reading takes memory for only a few columns
    # The autoregression takes memory for a table of 24 lags, and copies of some
    # columns.
    assert peak_of_ar < 24 * column
    # A long file is split into training and test parts like a short file.
    assert (series.validation, series.test) == (190_000, 195_000)


def test_a_file_of_ones_own(tmp_path, capsys):
    values = np.sin(np.arange(120) / 2).round(3).astype(str)
    values[7::11] = ""
    path = write(tmp_path / "my.csv", "load,x\n" + "".join(f"{v},a\n" for v in values))
    out = tmp_path / "out"
    result = forecast.main(
        forecast.Config(
            csv=str(path), column="load", horizon=3, out=out, methods=("bptt:adam",),
            **SMALL,
        )
    )  # fmt: skip
    methods = [row["method"] for row in result.rows]
    assert methods == ["reference", "ar", "ridge", "bptt:adam"]
    header, *lines = (out / "forecast.csv").read_text().splitlines()
    assert header == "row,ahead,forecast,low_5_percent,high_95_percent"
    numbers = np.array([line.split(",") for line in lines], float)
    np.testing.assert_array_equal(numbers[:, :2], [[120, 1], [121, 2], [122, 3]])
    assert np.all(numbers[:, 3] <= numbers[:, 4])
    # A linear model wins the contest, because the series is a sine: the simpler one.
    conclusion = (out / "conclusion.txt").read_text()
    assert "No difference is shown between AR(12) and ridge on 12 lags" in conclusion
    assert "The simpler method, AR(12), forecasts." in conclusion
    # The answer comes first on the page, and last in the terminal.
    page = (out / "report.html").read_text()
    assert page.index('id="forecast"') < page.index('id="csv-errors"')
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(conclusion.strip()) == 2
    (won,) = [row for row in result.rows if row["method"] == "ar"]
    np.testing.assert_allclose(numbers[:, 2:], won["forecast"], rtol=1e-5)
    assert (out / "forecast.png").stat().st_size > 10_000
    assert not list(out.glob("*.tmp"))
    check_resumed(forecast.main, forecast.Config(out=out), result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("sunspot",)}, "Did you mean 'sunspots'"),
        ({"methods": ("bptt",)}, "must be like rule:update"),
        ({"methods": ("bptt:addam",)}, "Did you mean 'adam'"),
        ({"methods": ("btpp:adam",)}, "Did you mean 'bptt'"),
        ({"methods": ("rtrl:rprop",)}, "rprop is for full batches, and rtrl learns at"),
        ({"column": "a"}, "column is for a file given by csv, got 'a' without one"),
        ({"target": "a", "column": "b", "csv": "c"}, "two names of one option"),
        (
            {"dates": "first"},
            "dates must be one of day-first, month-first; got 'first'",
        ),
        ({"header": 0}, "header is for a file given by csv, got 0"),
        ({"decimal": ","}, "decimal is for a file given by csv, got ','"),
        ({"decimal": ";"}, r"decimal must be one of \., ,; got ';'"),
        ({"cell": "rnn"}, "cell must be one of gru, lstm, rtu, tanh"),
        ({"rates": ()}, "rates must have one value at least"),
        ({"decay": 1.0}, "decay must be in"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        forecast.Config(**options)
