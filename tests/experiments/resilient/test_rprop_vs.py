"""Tests of the study rprop_vs: its results."""

import dataclasses
import importlib.metadata
import json
import sys

import jax
import numpy as np
import optax
import pytest

from experiments import report
from experiments.harness.precision import double_precision
from experiments.resilient import rprop_vs
from experiments.resilient._rprop_vs_methods import methods, OURS
from experiments.resilient._rprop_vs_problems import quadratic, rosenbrock
from experiments.resilient._rprop_vs_report import best_rows


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    config = rprop_vs.Config(
        seeds=2,
        quadratic_steps=400,
        digits_steps=20,
        digits_targets=(0.3, 1.0),
        adam_rates=(0.1, 0.01),
        out=tmp_path_factory.mktemp("rprop_vs"),
    )
    return rprop_vs.main(config)


def rows_of(result, **wanted):
    return [row for row in result.rows if wanted.items() <= row.items()]


def check_files(result, picture):
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert (result.folder / picture).stat().st_size > 10_000
    config = json.loads((result.folder / "config.json").read_text())
    assert config["config"]["seeds"] == 2


def test_contest_runs_all_methods_on_all_problems(contest):
    assert not contest.interrupted
    check_files(contest, "convergence.png")
    page = (contest.folder / "report.html").read_text()
    assert page.count("Lowest number of iterations to 1e-06: ") == 1
    assert "counts as 401 iterations" in page
    assert page.count(" final E: ") == 1
    for problem, steps, runs in (
        ("quadratic", 400, 2), ("rosenbrock", 2000, 1), ("digits", 20, 2)
    ):  # fmt: skip
        rows = rows_of(contest, problem=problem)
        names = [row["method"] for row in rows]
        assert {*OURS, "optax.rprop", "optax.adam", "optax.lbfgs"} <= set(names)
        assert names.count("optax.adam") == 2
        for row in rows:
            assert np.shape(row["values"]) == (runs,)
            assert np.isfinite(row["curve"]).all()
            assert row["curve_steps"][0] == 0
            assert row["curve_steps"][-1] == steps
            assert np.shape(row["curve"]) == (runs, len(row["curve_steps"]))
            assert row["values"] == [run[-1] for run in row["curve"]]
        # All methods start from the same parameters.
        starts = [row["curve"][0][0] for row in rows]
        np.testing.assert_allclose(starts, starts[0], rtol=1e-6)
    for row in rows:
        assert np.isfinite(row["accuracies"]).all()
        assert np.mean(row["accuracies"]) > 40
        np.testing.assert_array_less(row["values"], np.array(row["curve"])[:, 0])


def test_a_run_that_was_killed_is_resumed(tmp_path):
    steps = {"quadratic_steps": 3, "rosenbrock_steps": 3, "adam_rates": (0.1,)}
    config = rprop_vs.Config(
        only=("quadratic", "rosenbrock"), seeds=2, out=tmp_path, **steps
    )
    rows = rprop_vs.main(config).rows
    path, picture = tmp_path / "results.jsonl", tmp_path / "convergence.png"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    drawn = picture.read_bytes()
    again = rprop_vs.main(dataclasses.replace(config, resume=True)).rows
    untimed = lambda row: row | {"wall_seconds": 0}
    assert list(map(untimed, again)) == list(map(untimed, rows))
    assert picture.read_bytes() == drawn


def test_the_best_rate_is_shown():
    target = "1e-06"
    row = {"problem": "quadratic", "method": "optax.adam", "values": [1.0, 1.0]}
    slow = row | {"reached": {target: [5, None]}}
    # A run that did not reach the target (None) counts as 401 steps.
    fast = row | {"reached": {target: [300, 300]}}
    with double_precision():
        problem = quadratic(jax.random.key(0), runs=2, steps=400)
        assert best_rows([slow, fast], problem) == [slow]
        assert best_rows([fast, slow], problem._replace(steps=700)) == [fast]
        by_value = problem._replace(by_target=False)
    for other in (2.0, float("nan")):
        worse = slow | {"values": [1.0, other]}
        assert best_rows([worse, fast], by_value) == [fast]


def value_of(contest, method):
    (row,) = rows_of(contest, problem="rosenbrock", method=method)
    return row["values"][0]


def test_rosenbrock_is_what_was_measured_elsewhere(contest):
    """Compare losses on Rosenbrock's function after 2000 steps with known values."""
    measured = {"irprop_plus": 1.3e-4, "rprop": 1.6e-4}
    measured |= {"rprop_minus": 7.3e-3, "rprop_plus": 1.1e-2}
    if importlib.metadata.version("optax") == "0.2.8":
        measured["optax.rprop"] = 3.1e-3
    for method, value in measured.items():
        assert value_of(contest, method) == pytest.approx(value, rel=0.1), method


def test_torch_takes_the_same_steps(contest):
    pytest.importorskip("torch")
    ours, theirs = (
        rows_of(contest, method=method) for method in ("rprop", "torch.optim.Rprop")
    )
    # The digits problem runs in float32, hence the larger tolerance.
    for i, rtol in enumerate((1e-4, 1e-6, 1e-2)):
        np.testing.assert_allclose(ours[i]["curve"], theirs[i]["curve"], rtol=rtol)
        assert ours[i]["reached"] == theirs[i]["reached"]


def test_what_was_reached_when(contest):
    (row,) = rows_of(contest, problem="digits", method="rprop")
    # The curve has 20 optimiser steps, and every step is recorded.
    for i, run in enumerate(row["curve"]):
        for target in (1.0, 0.3):
            first = row["reached"][f"{target:g}"][i]
            assert run[first] < target <= run[first - 1]
        assert row["evaluations_to_last"][i] == first + 1
    (never,) = rows_of(contest, problem="quadratic", method="grprop")
    assert never["reached"] == {"1e-06": [None, None]}
    assert never["evaluations_to_last"] == [None, None]


def test_lbfgs_evaluations_are_all_that_its_line_search_makes():
    """Count the loss evaluations of L-BFGS's line search in Python, without jit."""
    calls, seen, steps = [], [], 2
    with double_precision():
        problem = rosenbrock(steps)
        trace = methods(0.1, (0.1,))[-1].run(problem)

        def loss(w):
            calls.append(w)
            return problem.loss(w, None)

        w, optimizer = problem.starts[0], optax.lbfgs()
        look, state = optax.value_and_grad_from_state(loss), optimizer.init(w)
        with jax.disable_jit():
            for _ in range(steps + 1):
                value, grad = look(w, state=state)
                seen.append((value.item(), len(calls)))
                change, state = optimizer.update(
                    grad, state, w, value=value, grad=grad, value_fn=loss
                )
                w = w + change
    values, counts = zip(*seen, strict=True)
    np.testing.assert_allclose(trace.values[0], values, rtol=1e-9)
    assert trace.evaluations[0].tolist() == list(counts)
    assert counts[-1] > steps + 1


def test_without_torch_its_row_is_left_out_and_the_table_says_so(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch", None)
    names = [method.name for method in methods(0.1, (0.1,))]
    assert "torch.optim.Rprop" not in names
    assert "optax.rprop" in names
    monkeypatch.setattr(rprop_vs, "methods", lambda *rates: methods(*rates)[:1])
    rprop_vs.main(
        rprop_vs.Config(only=("rosenbrock",), rosenbrock_steps=3, out=tmp_path)
    )
    assert "torch is not installed" in capsys.readouterr().out


def test_an_interruption_keeps_what_was_finished(tmp_path, monkeypatch, capsys):
    def advance(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, "advance", advance)
    config = rprop_vs.Config(only=("rosenbrock",), rosenbrock_steps=3, out=tmp_path)
    result = rprop_vs.main(config)
    assert result.interrupted
    assert [row["method"] for row in result.rows] == ["rprop"]
    assert (tmp_path / "convergence.png").exists()
    assert "Interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (rprop_vs, {"seeds": 0}, "seeds must be at least 1, got 0"),
        (rprop_vs, {"digits_steps": -1}, "digits_steps must be at least 1, got -1"),
        (rprop_vs, {"first_step": 0.0}, "first_step must be positive, got 0.0"),
        (rprop_vs, {"adam_rates": ()}, "adam_rates must have one value at least"),
        (rprop_vs, {"only": ("digit",)}, "only must be some of .*; got digit"),
    ],
)
def test_wrong_options_are_named(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
