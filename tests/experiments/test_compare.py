"""Tests of the study compare and of the benchmarks: each writes its results."""

import dataclasses
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import benchmarks, data, report
from experiments.compare import study as compare
from experiments.compare.memory import chosen_rate
from experiments.compare.page import conclusion_of_curves, conclusion_of_scores
from experiments.harness.errors import DataError
from tests.experiments.pages import check
from tests.experiments.resuming import check_resumed

TRUNCATED = "truncated_bptt(every=6, lookback=12)"


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    return compare.main(compare.Config(steps=2, seeds=2, out=out))


def test_compare_trains_every_job_and_writes_a_report(result):
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert len({row["job"] for row in result.rows}) == len(result.rows)
    kinds = {kind for row in result.rows for kind in row["kind"].split(", ")}
    assert kinds == {
        "static", "recurrent", "resilient", "through time", "forward in time"
    }  # fmt: skip
    for row in result.rows:
        assert np.shape(row["curve"]) == (2, 2)
        assert np.isfinite(row["curve"]).all()
        assert all(np.isfinite(score).all() for score in row["scores"].values())
    text = (result.folder / "report.html").read_text()
    for task in ("digits", "memory", "sunspots"):
        for picture in ("curves", "scores"):
            assert (result.folder / f"{task}-{picture}.png").stat().st_size > 10_000
    assert all(row["update"] in text for row in result.rows)
    page = check(text)
    assert len(page.all("img")) == text.count('<p class="conclusion">') == 11
    drawn = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(drawn) == len(page.all("title")) - 1 == 7
    assert all(len(svg["aria-label"]) > 50 for svg in drawn)
    config = json.loads((result.folder / "config.json").read_text())
    assert config["config"]["steps"] == 2


def test_each_kind_is_explained_where_it_appears(result):
    text = " ".join((result.folder / "report.html").read_text().split())
    anchors = ("static", "recurrent", "through-time", "resilient")
    places = [text.index(f'id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)
    for start, stop, function in zip(
        places,
        [*places[1:], text.index('id="digits-scores"')],
        ("gradients.backprop", "gradients.recurrent_backprop", "gradients.bptt",
         "updates.rprop"),
        strict=True,
    ):  # fmt: skip
        part = text[start:stop]
        for needed in (function, "<svg", "Right:", "Wrong or missing:", 'class="equa'):
            assert needed in part, (function, needed)
        # The picture of this kind and its conclusion follow the explanation.
        assert part.index("</svg>") < part.index("<img") < part.index('"conclusion"')
    assert "“Recurrent” has two meanings" in text[: places[0]]
    assert "δ<sub>t+1</sub> J<sub>t+1</sub>" in text


def test_conclusions_are_computed_from_results():
    """Compare made-up results whose order is known, and some that do not differ."""
    task = compare.TASKS["memory"]()
    row = lambda rule, scores, value: SimpleNamespace(
        rule=rule, update="adam(0.01)", scores={"test %": scores}, value=value,
        steps=20, curve=[[value[0]] * 2], curve_steps=[10, 20],
    )  # fmt: skip
    rows = [
        row("bptt", [100.0, 99.0, 99.5], [0.01, 0.011, 0.012]),
        row("rtrl", [100.0, 99.0, 99.4], [0.01, 0.011, 0.012]),
        row(TRUNCATED, [25.5, 24.0, 26.0], [1.4, 1.38, 1.3]),
    ]
    said = conclusion_of_scores(task, rows)
    assert said.startswith("Highest test accuracy: bptt × adam(0.01) (99.5 %, interval")
    assert "no difference from rtrl × adam(0.01)" in said
    assert f"No difference from guessing (25 %): {TRUNCATED}" in said
    curves = conclusion_of_curves(rows, lambda row: row.rule)
    assert "The curves of bptt and rtrl lie on one another" in curves
    assert f"Higher: {TRUNCATED} (1.36)." in curves
    equal = [row(name, [92.0, 92.8, 91.6], [1.0, 1.1, 1.2]) for name in ("a", "b")]
    said = conclusion_of_scores(dataclasses.replace(task, chance=None), equal)
    assert said.startswith("No difference in test accuracy: the 95 % intervals of a")
    assert "All scores are better than guessing (25 %)." in said


def test_the_learning_rate_is_chosen_on_validation():
    scores = np.array([[50.0, 70.0, np.nan], [50.0, 60.0, 99.0]])
    assert chosen_rate(scores) == 1
    task = compare.TASKS["memory"](2)
    assert all(job.rates == task.jobs[0].rates for job in task.jobs)
    assert len(task.jobs[0].rates) > 1


def test_rtrl_and_bptt_train_alike_and_the_seeds_differ(result):
    mine = [row for row in result.rows if row["task"] == "memory"]
    curves = {row["rule"]: row["curve"] for row in mine}
    np.testing.assert_allclose(curves["rtrl"], curves["bptt"], rtol=1e-5)
    assert curves["bptt"][0] != curves["bptt"][1]
    truncated = curves[TRUNCATED]
    assert np.abs(np.subtract(truncated, curves["bptt"])).max() > 1e-5


def test_references_are_the_published_ones(result):
    """Compare errors of baseline methods with values measured without this library."""
    task = compare.TASKS["sunspots"]()
    persistence, regression = (reference.scores for reference in task.references)
    want = {"1700–1920": 0.132, "1921–55": 0.130, "1956–79": 0.368}
    for period, score in want.items():
        assert float(regression[period]) == pytest.approx(score, abs=6e-4)
    assert float(persistence["1921–55"]) == pytest.approx(0.427, abs=6e-4)
    assert float(persistence["1956–79"]) == pytest.approx(0.965, abs=6e-4)
    # To 1920, the forecast for a year is compared where twelve years lie before it.
    years, numbers = data.sunspots()
    early = numbers[years <= 1920]
    error = np.mean((early[12:] - early[11:-1]) ** 2)
    assert error / np.var(numbers[years <= 1979]) == pytest.approx(0.300, abs=6e-4)
    logistic = compare.TASKS["digits"]().references[0].scores["test %"]
    assert logistic == pytest.approx(92.0, abs=0.05)


def test_an_interruption_keeps_what_was_finished(tmp_path, monkeypatch, capsys):
    shown = []

    def advance(self, step):
        shown.append(step)
        if len(shown) == 4:  # interrupt the second job
            raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, "advance", advance)
    monkeypatch.setattr(compare, "CHUNKS", 2)
    config = compare.Config(steps=2, seeds=1, only=("digits",), out=tmp_path)
    result = compare.main(config)
    assert result.interrupted
    assert [row["steps"] for row in result.rows] == [2, 1]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
    assert "Interrupted" in capsys.readouterr().out
    assert "Interrupted" in (tmp_path / "report.html").read_text()


def test_a_resumed_comparison_has_the_same_rows_and_report(tmp_path):
    config = compare.Config(steps=2, seeds=1, only=("sunspots",), out=tmp_path)
    result = compare.main(config)
    before = (tmp_path / "report.html").read_text()
    # Do not compare the picture of computing times, because they differ between runs.
    curves = ["sunspots-curves.png"]
    check_resumed(compare.main, config, result, lost=2, pictures=curves)
    times = r'base64,[^"]*|<td>[^<]*</td>|<dd>[^<]*</dd>|\d+ s in'
    without = lambda page: re.sub(times, "", page)
    assert without((tmp_path / "report.html").read_text()) == without(before)
    assert "Interrupted" not in before


def test_results_are_not_written_over(result):
    with pytest.raises(DataError, match=r"holds results already; choose another"):
        compare.main(compare.Config(steps=1, out=result.folder))


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"file.* cannot be written to: .* --out"):
            report.make_folder("compare", out)
    assert report.make_folder("compare", tmp_path / "new").is_dir()
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained")
def test_benchmarks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks._bptt, "SHAPES", [("tanh", 3, 2, 2, 2)])
    monkeypatch.setattr(benchmarks._fixed_point, "SHAPES", [(2, 3, 0.5)])
    monkeypatch.setattr(benchmarks._parallel, "LINEAR", [4])
    monkeypatch.setattr(benchmarks._parallel, "NEWTON", [(4, 2)])
    only = ("bptt", "fixed_point", "parallel", "rprop")
    config = benchmarks.Config(only=only, repeats=2, parameters=100, out=tmp_path)
    result = benchmarks.main(config)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(result.rows) >= 20
    shown = " ".join(capsys.readouterr().out.split())
    assert "GB/s" in shown
    assert "is compared with the first row of its group, by 95 % intervals. " in shown
    ours = next(row for row in result.rows if row["name"] == "fixed_point")
    assert float(ours["note"].split(";")[0].removeprefix("error ")) < 1e-4
    by_name = {row["name"]: row for row in result.rows}
    assert {"parallel, auto", "unroll", "parallel, newton"} < set(by_name)
    shown = [row for row in result.rows if row["job"].startswith("parallel")]
    assert all(row["floor_ms"] > 0 for row in shown)
    last = sum(row["job"] == result.rows[-1]["job"] for row in result.rows)
    (tmp_path / "results.jsonl").write_text("\n".join(lines[:-last]) + "\n")
    again = benchmarks.main(benchmarks.Config(out=tmp_path, resume=True)).rows
    kept = [json.dumps(row) for row in again[:-last]]
    # Rows of finished jobs are not measured again. Compare rows as text, because NaN ≠
    # NaN.
    assert kept == lines[:-last]
    names = [
        [(row["job"], row["name"]) for row in rows] for rows in (again, result.rows)
    ]
    assert names[0] == names[1]


def run_all(groups):
    return [row for race in groups.values() for row in race(2)]


def test_benchmark_of_sweeps_runs(monkeypatch):
    sweeps = benchmarks._sweep
    (network, units), *_ = sweeps.UNITS.items()
    child = sweeps._in_a_process(network, devices=2, pinned=True)
    assert min(child.seconds, child.compile_seconds) > 0
    assert len(child.accuracies) == 64
    assert min(child.accuracies) > 60
    assert max(child.accuracies) > 85
    # Return one result for all trainings, so that only one is compiled.
    for name in ("_in_a_process", "by_sweep"):
        monkeypatch.setattr(sweeps, name, lambda *options: child)
    monkeypatch.setattr(sweeps, "UNITS", {network: units})
    monkeypatch.setattr(sweeps, "SEEDS", 1)
    monkeypatch.setattr(sweeps, "STEPS", 2)
    rows = run_all(benchmarks.sweep())
    if sweeps.torch():
        assert rows.pop(1).note.split("; ")[1].startswith("threads")
    assert [row.name.split(",")[0] for row in rows[:3]] == [
        "sweep", "1 device", "1 device",
    ]  # fmt: skip
    assert all("test accuracy" in row.note for row in rows)
    assert [row.name for row in rows if not row.floor_ms > 0] == ["1 device, 1 core"]
    assert "GFLOP/s" in rows[0].note


@pytest.mark.slow
def test_fit_and_learner_are_timed_with_floors(monkeypatch):
    fit, learner = benchmarks._fit, benchmarks._learner
    tiny = lambda: fit._tiny()._replace(rounds=1)
    monkeypatch.setattr(fit, "WORKS", {"tiny": tiny})
    monkeypatch.setattr(fit, "CHUNK", 3)
    monkeypatch.setattr(learner, "STEPS", 4)
    monkeypatch.setattr(learner, "RULES", {"rtrl": learner.RULES["rtrl"]})
    rows = {row.name: row for row in run_all(fit.fit() | learner.learner())}
    for name in ("fit, nonfinite='raise'", "fit, a checkpoint a chunk", "lax.scan"):
        assert rows[name].floor_ms > 0
    for name in ("learn", "learn_one", "program"):
        assert rows[name].floor_ms > rows["calls"].ms
    assert "GFLOP/s" in rows["learn"].note
    assert "GFLOP/s" in rows["lax.scan"].note


# If braintrace is installed, importing it warns about its JAX primitive.
@pytest.mark.filterwarnings("ignore:ETP primitive")
def test_benchmark_of_online_rules_runs(monkeypatch):
    monkeypatch.setattr(benchmarks._online, "SHAPES", [(3, 2)])
    monkeypatch.setattr(benchmarks._online, "PRODUCTS", ("tanh",))
    monkeypatch.setattr(benchmarks._online, "NAMES", ("lstm",))
    monkeypatch.setattr(benchmarks._online, "LENGTH", 3)
    monkeypatch.setattr(benchmarks._online, "LENGTHS", (2, 4))
    monkeypatch.setattr(benchmarks._online, "BY_LENGTH", {"snap, order 1": "tanh"})
    monkeypatch.setattr(benchmarks._online_peers, "PEER_SHAPES", [(3, 2)])
    rows = run_all(benchmarks.online())
    groups = {group: [] for group in dict.fromkeys(row.group for row in rows)}
    for row in rows:
        groups[row.group].append(row.name)
    products, lstm, lengths, peers = groups.values()
    assert products == ["product J M", "rtrl"]
    assert lstm == ["bptt", "snap, order 1", "rflo", "eprop", "uoro", "kf_rtrl"]
    assert lengths == ["T 2", "T 4"]
    theirs = ("braintrace", "product J M")
    ours = [row for row in rows if not row.name.startswith(theirs)]
    assert all(row.floor_ms > 0 for row in ours)
    notes = {row.name: row.note for row in rows if row.group == list(groups)[-1]}
    assert set(peers) >= {"snap, order 1, cells.gru", "bptt", "rtrl", "snap, order 1"}
    error = lambda name: float(notes[name].split(";")[0].removeprefix("error "))
    assert error("rtrl") < 1e-5 < 1e-3 < error("snap, order 1")
    assert "zero" not in notes["rtrl"]


def run(*arguments):
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line():
    listing = run()
    assert listing.returncode == 0
    assert "compare" in listing.stdout
    help_ = run("compare", "--help")
    assert help_.returncode == 0
    for field in dataclasses.fields(compare.Config):
        assert f"--{field.name.replace('_', '-')}" in help_.stdout
    unknown = run("compaer")
    assert unknown.returncode == 2
    assert "unknown study 'compaer'" in unknown.stderr
    assert "Did you mean 'compare'?" in unknown.stderr
    for arguments, message in {
        ("--seeds", "0"): "seeds must be at least 1, got 0",
        ("--only", "digit"): "digits",
    }.items():
        wrong = run("compare", *arguments)
        assert wrong.returncode == 2
        assert message in wrong.stderr + wrong.stdout
