"""Tests of the study compare and of the benchmarks: each writes its results."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments import benchmarks, report
from experiments.compare import study as compare
from experiments.harness.errors import DataError
from tests.experiments.resuming import check_resumed


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
    page = (result.folder / "report.html").read_text()
    for task in ("digits", "language", "sunspots"):
        for picture in ("curves", "scores"):
            assert (result.folder / f"{task}-{picture}.png").stat().st_size > 10_000
    assert page.count("data:image/png;base64,") == 6
    assert "http" not in page  # the report loads nothing from the network
    assert all(row["update"] in page for row in result.rows)
    config = json.loads((result.folder / "config.json").read_text())
    assert config["config"]["steps"] == 2


def test_rtrl_and_bptt_train_alike_and_the_seeds_differ(result):
    mine = [row for row in result.rows if row["task"] == "language"]
    curves = {row["rule"]: row["curve"] for row in mine}
    np.testing.assert_allclose(curves["rtrl"], curves["bptt"], rtol=1e-5)
    assert curves["bptt"][0] != curves["bptt"][1]
    truncated = curves["truncated_bptt(every=4, lookback=4)"]
    assert np.abs(np.subtract(truncated, curves["bptt"])).max() > 1e-5


def test_references_are_the_published_ones(result):
    """Compare errors of baseline methods with values measured without this library."""
    task = compare.sunspots()
    persistence, regression = (reference.scores for reference in task.references)
    want = {"1700–1920": 0.132, "1921–55": 0.130, "1956–79": 0.368}
    for period, score in want.items():
        assert float(regression[period]) == pytest.approx(score, abs=6e-4)
    assert float(persistence["1921–55"]) == pytest.approx(0.427, abs=6e-4)
    assert float(persistence["1956–79"]) == pytest.approx(0.965, abs=6e-4)
    logistic = compare.digits().references[0].scores["test %"]
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
    without = lambda page: re.sub(r'base64,[^"]*|<td>[^<]*</td>|\d+ s in', "", page)
    assert without((tmp_path / "report.html").read_text()) == without(before)
    assert "Interrupted" not in before


def test_results_are_not_written_over(result):
    with pytest.raises(DataError, match="holds results already; choose another --out"):
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
    assert "GB/s" in capsys.readouterr().out
    ours = next(row for row in result.rows if row["name"] == "fixed_point")
    assert float(ours["note"].split(";")[0].removeprefix("error ")) < 1e-4
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
    assert lstm == ["bptt", "snap, order 1", "rflo", "eprop", "uoro"]
    assert lengths == ["T 2", "T 4"]
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
