"""Tests of `forecast --csv`: the contest, calibrated intervals, and later questions."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import experiments
from experiments.applications.forecast import (
    baselines,
    calibrate,
    contest,
    coverage,
    diebold_mariano,
    series as series_of,
    study as forecast,
    user_csv,
)
from experiments.asking import answer, Ask
from experiments.harness.errors import DataError
from tests.experiments.applications.test_forecast import make_series, SMALL, write


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_paired_interval_is_that_of_the_test():
    d = np.random.default_rng(0).normal(0.3, size=40)
    found = diebold_mariano.paired_interval(d, 1)
    expected = stats.t.interval(0.95, 39, d.mean(), stats.sem(d))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for shift in (0.1, 0.2, 0.3, 0.4, 0.5):
        low, high = diebold_mariano.paired_interval(d - shift, 3)
        p = diebold_mariano.diebold_mariano(d - shift, 3).p
        # The interval is at least as wide as the test needs.
        assert low <= 0 <= high or p < 0.05
    assert diebold_mariano.paired_interval(d[:6], 3) == (-np.inf, np.inf)


def intervals(values, half, horizons=(1, 2), step=calibrate.STEP):
    """Calibrate intervals 0 ± half of a series with 60 validation rows."""
    n = len(values)
    series = make_series(
        values, horizons=horizons, validation=20, test=80, period=0,
        periods={"test": (80, n)},
    )  # fmt: skip
    targets = np.full((n, len(horizons)), np.nan)
    for i, h in enumerate(horizons):
        targets[:-h, i] = values[h:]
    said = np.zeros((1, n - 19, len(horizons), 3)) + np.array([0, -half, half])
    out, offsets = calibrate.calibrated(series, said, targets[19:], 19, step)
    return out[0], offsets[0]


def test_calibration_by_hand():
    values = np.zeros(120)
    values[20:80] = np.random.default_rng(0).permutation(np.arange(1, 61))
    # There are 60 scores one step ahead, |value| − 2. The 90 % quantile of split
    # conformal prediction is the 55th smallest, as ⌈.9 · 61⌉ = 55, so q is 53.
    out, offsets = intervals(values, half=2.0, step=0.0)
    assert np.all(offsets[:, 0] == 53)
    np.testing.assert_array_equal(out[60, 0], [0, -55, 55])
    # With adaptation, the unit of the scores is e. It begins with the mean of the 60
    # values, 30.5, and each value that becomes known moves it by a twentieth.
    e = [30.5]
    for value in values[20:82]:
        e.append(0.95 * e[-1] + 0.05 * value)
    q = sorted((values[20 + t] - 2) / e[t] for t in range(60))[54]
    out, offsets = intervals(values, half=2.0)
    np.testing.assert_allclose(offsets[:61, 0], q * np.array(e[:61]))
    np.testing.assert_allclose(out[60, 0], [0, -2 - q * e[60], 2 + q * e[60]])
    # The first value of the test part is known at the step 80, and is a hit: q falls by
    # α η, and e falls, too.
    np.testing.assert_allclose(offsets[61, 0], (q - 0.1 * 0.2) * e[61])
    np.testing.assert_allclose(offsets[62, 0], (q - 0.1 * 0.4) * e[62])
    # Two steps ahead, the value at the step 80 moves e, but not yet q.
    np.testing.assert_allclose(offsets[61, 1], 0.95 * offsets[60, 1])
    # Intervals that are much too wide shrink, but the ends do not cross.
    out, _ = intervals(values, half=100.0)
    assert np.all(out[..., 1] <= out[..., 2])
    assert out[60, 0, 2] < 70


def test_intervals_of_a_series_that_changes_have_the_right_coverage():
    rng = np.random.default_rng(1)
    values = rng.normal(size=1080) * np.where(np.arange(1080) < 80, 1, 3)
    inside = {}
    for step in (0.0, calibrate.STEP):
        out, _ = intervals(values, half=0.1, step=step)
        y = values[81:]
        ends = out[61:-1, 0]
        inside[step] = np.mean((ends[:, 1] <= y) & (y <= ends[:, 2]))
    assert inside[0.0] < 0.6
    assert 0.87 < inside[calibrate.STEP] < 0.93
    # No interval depends on values after its origin.
    later = values.copy()
    later[500:] += 9
    one, other = (intervals(each, half=0.1)[0] for each in (values, later))
    np.testing.assert_array_equal(one[: 500 - 19], other[: 500 - 19])
    assert not np.array_equal(one[500:], other[500:])


@pytest.mark.slow
def test_intervals_of_a_series_that_grows_have_the_right_coverage():
    """The values grow from 1 to 10 000, also within the validation part."""
    n = 1080
    growth = 10.0 ** (4 * np.arange(n) / n)
    values = growth * np.random.default_rng(2).normal(size=n)
    out, _ = intervals(values, half=0.1)
    y, ends = values[81:], out[61:-1, 0]
    assert 0.87 < np.mean((ends[:, 1] <= y) & (y <= ends[:, 2])) < 0.93
    # If the values stand still, no number becomes infinite, and no ends cross.
    values[300:700] = 0.0
    out, _ = intervals(values, half=0.0)
    assert np.isfinite(out).all()
    assert np.all(out[..., 1] <= out[..., 2])
    assert np.isfinite(intervals(np.zeros(200), half=1.0)[0]).all()


def row(method, errors, test=1.0):
    squares = [float(error) ** 2 for error in errors]
    return {
        "method": method,
        "validation_squares": [*squares, None],
        "validation_rmse": [float(np.sqrt(np.mean(squares)))],
        "test_rmse": [test],
    }


def test_the_best_method_wins_or_the_simplest_of_equals():
    rng = np.random.default_rng(0)
    noise = 1 + 0.3 * rng.random(100)
    series = make_series(horizons=(1, 2))
    decide = lambda *rows: contest.decide(series, rows)
    verdict = decide(
        row("bptt:adam", 7.6 * noise), row("ar", 4.8 * noise, 5.0),
        row("reference", 9 * noise),
    )  # fmt: skip
    assert verdict.winner["method"] == "ar"
    assert verdict.sentence.startswith("A linear model is better here: AR(4) has an")
    # The network is the rival.
    low, high = verdict.against["bptt:adam"][2:]
    told = "an error of 5.61 against 8.88 of bptt × adam (95 % interval of the "
    words = " to ".join(f"{float(f'{each:.2g}'):.15g}" for each in (low, high))
    assert f"{told}difference: {words})" in verdict.sentence
    assert low < (7.6 - 4.8) * noise.mean() < high
    assert verdict.sentence.endswith("On the test part: 5 against 1.")
    # Errors that differ by chance: the simplest method forecasts, however the methods
    # are ordered.
    equal = [row("bptt:adam", noise), row("ridge", 1.001 * np.roll(noise, 9))]
    verdict = decide(*equal, row("reference", 1.002 * np.roll(noise, 3)))
    assert verdict.winner["method"] == "reference"
    assert verdict.sentence.startswith("No difference is shown between persistence and")
    assert "The simpler method, persistence, forecasts." in verdict.sentence
    verdict = decide(*equal, row("reference", 3 * noise))
    assert verdict.winner["method"] == "ridge"
    verdict = decide(row("reference", 9 * noise), row("bptt:adam", noise))
    assert verdict.sentence.startswith("A network is better here: bptt × adam has")
    # A long horizon and few rows: nothing can be said.
    short = make_series(horizons=tuple(range(1, 13)))
    verdict = contest.decide(short, [row("ar", [1.0]), row("reference", [2.0])])
    assert verdict.winner["method"] == "reference"
    assert "too short for an interval" in verdict.sentence


def test_persistence_of_the_last_season():
    week = np.array([3.0, 1, 4, 1, 5, 9, 2])
    values = np.tile(week, 13)[:90] + np.repeat(np.arange(13), 7)[:90]
    series = make_series(values, horizons=(1, 3, 8))
    said = baselines.forecast("last_season", series, series_of.prepare(series))[..., 0]
    np.testing.assert_array_equal(said[50], [values[44], values[46], values[44]])
    assert baselines.names(series._replace(period=0, phase=np.full(90, -1))) == [
        "reference", "ar", "ridge"
    ]  # fmt: skip


def table(n=160, *, months=False, seed=0):
    """Return the lines of a table with dates, a column a that leads v, and text."""
    rng = np.random.default_rng(seed)
    a = np.sin(np.arange(n) / 3) + rng.normal(0, 0.1, n)
    v = 10 + 2 * np.roll(a, 2) + rng.normal(0, 0.1, n)
    start = np.datetime64("2020-01-01")
    days = (start.astype("datetime64[M]") if months else start) + np.arange(n)
    return [
        f"{day.astype('datetime64[D]')};{x:.3f};{y:.3f};ok".replace(".", ",")
        for day, x, y in zip(days, v, a, strict=True)
    ]


def config(path, **options):
    return forecast.Config(
        csv=str(path), out=path.parent / "out", horizon=2, methods=("bptt:adam",),
        **(SMALL | options),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("winner", [None, "reference", "last_season", "seasonal", "ar"])
def test_a_run_can_be_asked_tomorrow(winner, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "my.csv", "\n".join(["day;v;a;note", *table()]) + "\n")
    if winner:  # make this method win
        decide = contest.decide
        monkeypatch.setattr(
            contest,
            "decide",
            lambda series, rows: decide(
                series, [each for each in rows if each["method"] == winner]
            ),
        )
        monkeypatch.setattr(contest, "show", lambda *given: None)
    run, folder = config(path, column="v", inputs=("all",)), tmp_path / "out"
    forecast.main(run)
    out = capsys.readouterr().out
    assert "inputs beside 'v': a." in out
    assert "a season of 7 rows is tried" in out
    text = (folder / "forecast.csv").read_text()
    assert text.startswith("row,time,ahead,forecast,low_5_percent,high_95_percent\n")
    assert text.splitlines()[1].startswith("160,2020-06-09,1,")
    said = experiments.load(folder).predict(path)
    assert str(said.value) == text.rstrip()
    assert not said.unlike
    # One day later, the forecast begins one day later.
    later = write(tmp_path / "later.csv", path.read_text() + "2020-06-09;11;0,5;ok\n")
    said = answer(Ask(folder, csv=str(later)))
    assert "\n161,2020-06-10,1," in str(said)
    wrong = write(tmp_path / "wrong.csv", "day;v\n2020-01-01;1,5\n")
    with pytest.raises(DataError, match=r"--csv: column 'a' of .* not in it"):
        answer(Ask(folder, csv=str(wrong)))
    lines = path.read_text().splitlines(keepends=True)
    short = write(tmp_path / "short.csv", "".join(lines[:6]))
    with pytest.raises(DataError, match=r"5 numbers in 5 rows; .* needs 16 rows"):
        answer(Ask(folder, csv=str(short)))
    with pytest.raises(ValueError, match=r"values without dates do not say where"):
        experiments.load(folder).predict(np.zeros((100, 2)))


@pytest.mark.slow
def test_a_network_that_won_can_be_asked(tmp_path, monkeypatch):
    path = write(tmp_path / "my.csv", "\n".join(["day;v;a;note", *table(320)]) + "\n")
    decide = contest.decide
    monkeypatch.setattr(contest, "show", lambda *given: None)
    monkeypatch.setattr(
        contest, "decide", lambda series, rows: decide(series, rows[-1:])
    )
    run = config(path, target="v", inputs=("a",), season=1)
    folder = tmp_path / "out"
    forecast.main(run)
    lines = (folder / "forecast.csv").read_text().splitlines()[1:]
    numbers = np.array([line.split(",")[3:] for line in lines], float)
    model = experiments.load(folder)
    # The network begins at another row than in the run, so its state differs a little.
    np.testing.assert_allclose(model.predict(path).value.values, numbers, atol=0.02)
    values = [
        [float(x.replace(",", ".")) for x in line.split(";")[1:3]]
        for line in table(320)
    ]
    said = model.predict(np.array(values)).value
    assert said.times is None
    np.testing.assert_allclose(said.values, numbers, atol=0.02)
    far = np.array(values) + np.array([1000.0, 0])
    assert model.predict(far).unlike
    with pytest.raises(ValueError, match=r"values \[T, 2\] of v, a; got the shape"):
        model.predict(np.zeros(50))


HOURS = np.datetime64("2021-03-20T00", "h") + np.arange(400).astype("timedelta64[h]")
AUTUMN = HOURS + np.timedelta64(24 * 217, "h")


def csv_of(times, values, head="t,v", mark=","):
    lines = [f"{t}{mark}{v}" for t, v in zip(times, values, strict=True)]
    return "\n".join([head, *lines]) + "\n"


def wave(n, scale=10.0):
    return np.round(scale * (3 + np.sin(np.arange(n) / 4)), 2)


# {what is unusual: (content, options, length or message, notes that must be printed)}
TABLES = {
    "semicolons and decimal commas": (
        csv_of(range(60), [f"{x:.2f}".replace(".", ",") for x in wave(60)], "t;v", ";"),
        {}, 60, (),
    ),
    "BOM": ("\ufeff" + csv_of(range(60), wave(60)), {}, 60, ()),
    "UTF-16": (csv_of(range(60), wave(60), "t,größe").encode("utf-16"),
               {"name": "größe"}, 60, ()),
    "umlauts": (csv_of(range(60), wave(60), "t,größe").encode("latin-1"),
                {"name": "größe"}, 60, ("is not UTF-8; it is read as cp1252",)),
    "thousands": (csv_of(range(60), [f'"{x:,.2f}"' for x in wave(60, 1000)]),
                  {}, 60, ()),
    "thousands that are not clear": (
        csv_of(range(60), [f"{round(x)}.000" for x in wave(60)], "t;v", ";"),
        {}, "can be .* Give --decimal", (),
    ),
    "no header": ("\n".join(map(str, wave(60))), {}, 60, ("no names of columns",)),
    "no header, several columns": (
        csv_of(range(60), wave(60)).split("\n", 1)[1], {},
        "has 2 columns of numbers: 1, 2. Name the column to forecast, by --column", (),
    ),
    "two header rows": (
        csv_of(range(60), [f"{x},{x + 1}" for x in wave(60)], "t,T,T\n,in,out"),
        {"name": "T out", "header": 2}, 60, (),
    ),
    "two header rows, not told": (
        csv_of(range(60), [f"{x},{x + 1}" for x in wave(60)], "t,T,T\n,in,out"),
        {"name": "T"}, "twice or more in it.* --header 2", (),
    ),
    "units": (csv_of(range(60), wave(60), "t,v\ns,MW"), {}, 60,
              ("is read as units: s, MW",)),
    "trailing empty columns": (
        csv_of(range(60), [f"{x},," for x in wave(60)], "t,v,,"), {}, 60, (),
    ),
    "quotes": (csv_of([f'"{i}, ""x"""' for i in range(60)], wave(60)), {}, 60, ()),
    "date and time in two columns": (
        csv_of([f"{t:%d.%m.%Y};{t:%H:%M}" for t in HOURS.astype(object)],
               wave(400), "Tag;Zeit;v", ";"), {}, 400, ("the step of times is 1 hour",),
    ),
    "constant": (csv_of(range(60), [5] * 60), {}, "it is constant", ()),
    "20 rows": (csv_of(range(20), wave(20)), {}, "has 20 rows; .* needs 40", ()),
    "a long horizon": (csv_of(range(60), wave(60)), {"horizon": 9},
                       "needs 88 at least, .* Give --horizon 5 or less", ()),
    "runs of NaN": (
        csv_of(range(60), ["" if 10 <= i < 15 or i == 40 else x
                           for i, x in enumerate(wave(60))]),
        {}, 60, ("6 missing values in 2 stretches (the longest has 5 rows, the first "
                 "is at row 10)",),
    ),
    "one NaN": (
        csv_of(range(60), ["" if i == 40 else x for i, x in enumerate(wave(60))]),
        {}, 60, ("1 missing value in 1 stretch (the longest has 1 row, the first ",),
    ),
    "rows that are not sorted": (
        csv_of(HOURS[np.r_[50:400, 0:50]], wave(400)), {}, 400,
        ("rows moved, so that times increase",),
    ),
    "newest first, with a gap": (
        csv_of(np.delete(HOURS, [7, 8])[::-1], wave(398)), {}, 398,
        ("newest row first", "1 gap, where the usual step is 1 hour: the first is from "
         "2021-03-20 06:00 to 2021-03-20 09:00"),
    ),
    "clocks set forward": (
        csv_of(np.delete(HOURS, 194), wave(399)), {}, 399,
        ("leaves out an hour 1 time, first from 2021-03-28 01:00", "no row is missing"),
    ),
    "clocks set back": (
        csv_of(np.sort(np.r_[AUTUMN, AUTUMN[[194]]]), wave(401)),
        {}, 401, ("repeats 1 time, first 2021-10-31 02:00. This is as at the end of",),
    ),
    "days or months first": (
        csv_of([f"{d:02}/{m:02}/2020" for m in range(1, 13) for d in range(1, 13)],
               wave(144)), {}, 144,
        ("can be day/month/year or month/day/year. They are read as day/month/year",
         "has 11 gaps"),
    ),
    "text": (csv_of(range(60), ["much", *wave(59)]), {"name": "v"},
             "line 2 of .* has 'much'", ()),
    "only text": (csv_of(range(60), ["much"] * 60, "date,v"), {},
                  "has no columns of numbers", ()),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLES)
def test_tables_are_read_or_refused_with_advice(what, tmp_path):
    content, options, expected, notes = TABLES[what]
    path = tmp_path / "my.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {
        "name": "v" if what not in ("no header", "only text") else None
    } | options
    if what == "no header, several columns":
        options["name"] = None
    given = options.pop("name"), options.pop("horizon", 2), None
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            user_csv.read_series(path, *given, **options)
        return
    series = user_csv.read_series(path, *given, **options)
    assert len(series.values) == expected
    told = " | ".join(series.notes)
    for note in notes:
        assert note in told
    if what not in ("units",):
        assert len([each for each in series.notes if "season" not in each]) == len(
            [
                note
                for note in notes
                if "step of times" not in note and "no row" not in note
            ]
        ), told
    steps = np.diff(series.times)
    assert np.all(steps >= np.zeros(1, steps.dtype))


def test_times_after_the_end_continue_the_dates(tmp_path):
    path = write(
        tmp_path / "a.csv", "\n".join(["day;v;a;note", *table(months=True)]) + "\n"
    )
    series = user_csv.read_series(path, "v", 3, None, inputs=("all",))
    assert (series.season, series.inputs) == (12, ("a",))
    assert series.ahead is not None
    assert [user_csv.text_of(each) for each in series.ahead] == [
        "2033-05-01", "2033-06-01", "2033-07-01"
    ]  # fmt: skip
    assert series.phase[:3].tolist() == [0, 1, 2]
    years = csv_of(range(1900, 1960), wave(60), "year,v")
    series = user_csv.read_series(write(tmp_path / "b.csv", years), "v", 2, None)
    assert series.ahead is not None
    assert series.ahead.astype("datetime64[Y]").astype(int).tolist() == [-10, -9]
    assert user_csv.forecast_text(60, np.ones((2, 3)), series.ahead).splitlines() == [
        "row,time,ahead,forecast,low_5_percent,high_95_percent",
        "60,1960-01-01,1,1,1,1",
        "61,1961-01-01,2,1,1,1",
    ]


def test_an_early_last_time_tells_no_later_times(tmp_path):
    text = csv_of([*range(100, 6000, 100), 0], wave(60), "Timestamp,v")
    series = user_csv.read_series(write(tmp_path / "a.csv", text), "v", 2, None)
    assert series.ahead is None
    assert series.times.tolist() == [*range(60)]
    assert "goes back 1 time, first from 5900 to 0" in " ".join(series.notes)


def test_inputs_that_are_of_no_use_are_left_out(tmp_path):
    lines = [f"{x},1,{'' if i % 3 else i},{i % 7}" for i, x in enumerate(wave(60))]
    path = write(tmp_path / "a.csv", "\n".join(["v,one,few,some", *lines]))
    series = user_csv.read_series(path, "v", 2, None, inputs=("all",))
    assert series.inputs == ("some",)
    assert "input 'one' is left out: it is constant." in series.notes
    assert "'few' is left out: it has only 20 numbers in 60" in " ".join(series.notes)


@pytest.mark.slow
@pytest.mark.data
def test_intervals_of_real_series_hold_what_they_state(monkeypatch):
    monkeypatch.setattr(coverage, "AIRPORTS", ("JFK",))  # one of three takes less time
    found = [*coverage.coverages(Path(os.environ["BPVARIANTS_DATA"]))]
    assert len(found) == 24
    # This sequence has 145 held-out rows; its coverage is 84.9 %.
    short = "y of breathing 201205111057"
    outside = {each.name for each in found if not 85 <= each.adapted <= 95}
    assert outside <= {short}, outside
    # These two grow by powers of ten, so that past intervals do not fit.
    growing = {"SP500 of data.csv", "Consumer Price Index of data.csv"}
    for each in (each for each in found if each.name in growing):
        assert each.adapted > each.split + 10, each
