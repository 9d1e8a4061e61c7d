"""Tests of the study rprop_minibatch: its results."""

import json
import shutil

import numpy as np
import pytest

from experiments.resilient import rprop_minibatch

PICTURE = "minibatch.png"


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture(scope="module")
def minibatch(tmp_path_factory):
    config = rprop_minibatch.Config(
        seeds=2, epochs=8, batch=256, rates=(0.03, 0.1),
        out=tmp_path_factory.mktemp("rprop_minibatch"),
    )  # fmt: skip
    return rprop_minibatch.main(config)


def rows_of(result, **wanted):
    return [row for row in result.rows if wanted.items() <= row.items()]


def check_files(result, picture):
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert (result.folder / picture).stat().st_size > 10_000
    config = json.loads((result.folder / "config.json").read_text())
    assert config["config"]["seeds"] == 2


def test_minibatch_runs_all_methods_at_all_rates(minibatch):
    assert not minibatch.interrupted
    check_files(minibatch, PICTURE)
    page = (minibatch.folder / "report.html").read_text()
    assert " final training loss: " in page
    names = [(row["method"], row["batches"]) for row in minibatch.rows]
    assert len(set(names)) == 7
    assert len(names) == 14
    assert sum(row["best"] for row in minibatch.rows) == 7
    for row in minibatch.rows:
        for name in ("loss", "accuracy"):
            assert np.shape(row[name]) == (2, 8)
            assert np.isfinite(row[name]).all()
        assert row["loss"][0] != row["loss"][1]
        alone = row["batches"] == "mini" and "MultiSteps" not in row["method"]
        # An epoch has 5 batches of 256 images.
        assert row["updates"] == 8 * (5 if alone else 1)
        knows = row["method"] != "adam"
        assert all((x is not None) == knows for x in row["median_step"][0])


def test_a_run_that_was_killed_is_resumed(minibatch, tmp_path):
    folder = shutil.copytree(minibatch.folder, tmp_path / "run")
    path, picture = folder / "results.jsonl", folder / PICTURE
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    drawn = picture.read_bytes()
    config = rprop_minibatch.Config(out=folder, resume=True)
    again = rprop_minibatch.main(config)
    untimed = lambda row: row | {"wall_seconds": 0}
    assert list(map(untimed, again.rows)) == list(map(untimed, minibatch.rows))
    assert picture.read_bytes() == drawn


def test_the_best_rate_is_shown(minibatch):
    for method, batches in {(r["method"], r["batches"]) for r in minibatch.rows}:
        rows = rows_of(minibatch, method=method, batches=batches)
        final = [np.mean([run[-1] for run in row["loss"]]) for row in rows]
        assert [row["best"] for row in rows] == [loss == min(final) for loss in final]


def test_multisteps_is_the_full_batch_and_rprop_on_mini_batches_is_not(minibatch):
    (full,) = rows_of(minibatch, method="rprop", batches="full", rate=0.03)
    (added,) = rows_of(minibatch, method="MultiSteps(rprop, 5)", rate=0.03)
    for name in ("loss", "accuracy", "median_step", "at_min", "flips"):
        np.testing.assert_allclose(full[name], added[name], rtol=1e-3, atol=1e-3)
    (mini,) = rows_of(minibatch, method="rprop", batches="mini", rate=0.03)
    assert np.max(full["at_min"]) == 0
    steps, full_steps = (np.array(row["median_step"]) for row in (mini, full))
    assert (steps[:, -1] < full_steps[:, -1] / 10).all()


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (rprop_minibatch, {"epochs": 0}, "epochs must be at least 1, got 0"),
        (rprop_minibatch, {"batch": 2000}, "batch must be at most 1347, got 2000"),
        (rprop_minibatch, {"rates": (0.1, -1.0)}, "rates must be positive"),
    ],
)
def test_wrong_options_are_named(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
