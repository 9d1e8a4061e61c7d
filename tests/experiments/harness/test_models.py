"""Tests of saved models, of the command `ask`, and of the distance of new inputs."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest

import experiments
from experiments import asking
from experiments.harness import alarms, models, novelty
from experiments.harness.errors import DataError

PARAMS = {"a": [np.ones((2, 3), np.float32), (np.arange(4),)], "none": {}, "b": []}


@pytest.fixture
def study(monkeypatch):
    """Make `speech` a study that reads a number, and adds a saved number to it."""
    fake = types.ModuleType("fake")

    def make_predict(saved):
        def predict(x):
            if x < 0:
                raise ValueError(f"x must not be negative, got {x}.")
            views = {"x": np.array([[x]])}
            value = int(x + saved.params["a"][0].sum())
            return models.answer(saved, value, None, views)

        return predict

    fake.READS, fake.make_predict = {"wav": float}, make_predict
    monkeypatch.setitem(sys.modules, "experiments.applications.speech.ask", fake)


@pytest.fixture
def folder(study, tmp_path):
    folder = tmp_path / "speech-1"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    rng = np.random.default_rng(0)
    calibrated = novelty.calibrate(
        *({"x": rng.normal(size=(400, 1))} for _ in range(2))
    )
    models.save_model(folder, "speech", PARAMS | {"novelty": calibrated}, {"é": [1]})
    return folder


def test_a_model_is_read_as_it_was_written(folder):
    saved = models.read_model(folder)
    assert saved.study == "speech"
    assert saved.settings == {"é": [1]}
    np.testing.assert_array_equal(saved.params["a"][0], PARAMS["a"][0])
    np.testing.assert_array_equal(saved.params["a"][1][0], PARAMS["a"][1][0])
    assert saved.params["none"] == {}
    assert saved.params["b"] == []
    models.save_model(folder, "speech", {"a": [np.zeros(1)]}, {})  # replaces it
    assert models.read_model(folder).params["a"][0].tolist() == [0]
    with pytest.raises(ValueError, match=r"study must be one of .*; got 'proben1'"):
        models.save_model(folder, "proben1", {}, {})


def test_the_command_prints_the_answer_alone(folder, capsys):
    assert asking.main([str(folder), "--wav", "0.5"]) == 0
    assert capsys.readouterr() == ("6\n", "")
    assert experiments.load(folder).predict(0.5).value == 6
    assert not experiments.load(folder).predict(0.5).unlike
    assert str(experiments.load(folder)) == (
        "Model of speech; ask it by predict(x), or by the command ask with --wav"
    )
    assert asking.main([str(folder), "--wav", "1000"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("1006 (do not trust this: the input is unlike what was")
    assert "95 % of held-out inputs are below 1" in output
    models.save_model(folder, "speech", PARAMS | {"novelty": {}}, {})
    assert asking.main([str(folder), "--wav", "1000"]) == 0
    output = capsys.readouterr()
    assert output.out == "1006\n"
    assert "Not known: whether the input is unlike what was learned" in output.err
    for options, message in (
        ([], "reads --wav; got no input. Give --wav once."),
        (["--png", "1"], "holds a model of speech, which reads --wav; got --png"),
        (["--wav", "-1"], "--wav: x must not be negative, got -1.0."),
    ):
        assert asking.main([str(folder), *options]) == 1
        output = capsys.readouterr()
        assert message in output.err
        assert output.out == ""


def change(folder, **changes):
    path = folder / "model" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_without_a_whole_model_says_what_to_do(folder, tmp_path):
    def check(message, where=folder):
        with pytest.raises(DataError, match=message):
            experiments.load(where)

    check("there is no folder", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    check("is no folder of a run: it has no config.json", tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    check("has no trained model. Studies that save one: .*speech", tmp_path / "empty")
    files = (folder / "model" / "arrays").rglob("*")
    array = max(
        filter(pathlib.Path.is_file, files), key=lambda path: path.stat().st_size
    )
    content = array.read_bytes()
    array.write_bytes(content[: len(content) // 2])
    check("is damaged .* python -m experiments speech --out .* --resume")
    array.write_bytes(content)
    experiments.load(folder)
    change(folder, sums={"0": 1})
    check("is damaged .* 1 arrays are not what was written")
    change(folder, study="cooking")
    check("is of 'cooking', which is not one of")
    change(folder, format=0, bpvariants="0.0.1")
    check("has format 0, written by bpvariants 0.0.1; this version reads format 1")
    (folder / "model" / "model.json").write_text('{"format"')
    check(r"model\.json is damaged")
    (folder / "model" / "model.json").unlink()
    check("is incomplete, because the process was stopped while it was written")


def test_false_alarms_have_the_stated_rate():
    rng = np.random.default_rng(0)
    rates = []
    for dims in (1, 5, 90):
        mix = rng.normal(size=(dims, dims)) + np.eye(dims)
        draw = lambda count, dims=dims, mix=mix: {
            "wide": rng.normal(size=(count, dims)) @ mix,
            "count": rng.integers(0, 3, (count, 1)).astype(float),
        }
        found = novelty.calibrate(draw(800), draw(800))
        fresh = novelty.distances(found, draw(4000))
        rates.append(np.mean(fresh > 1))
        # The largest error of a quantile of 400 values is about 3 standard deviations.
        assert rates[-1] == pytest.approx(novelty.ALARMS, abs=0.033)
        assert found["false_alarms"] == pytest.approx(novelty.ALARMS, abs=0.045)
        strange = draw(50)
        strange["wide"] = strange["wide"] + 8 * np.abs(mix).sum(axis=0)
        assert (novelty.distances(found, strange) > 1).all()
        strange = draw(50)
        strange["count"] += 7
        assert (novelty.distances(found, strange) > 1).all()
        strange["count"] *= np.nan
        assert (novelty.distances(found, strange) == np.inf).all()


def test_an_unknown_group_is_a_false_alarm_as_often_as_stated():
    rng = np.random.default_rng(0)
    draw = lambda groups: rng.normal(size=(len(groups), 4)) + middles[groups]
    middles = 1.5 * rng.normal(size=(60, 4))
    groups = np.repeat(np.arange(30), 40)
    found = novelty.calibrate_groups({"x": draw(groups)}, groups)
    unknown = draw(np.repeat(np.arange(30, 60), 40))
    rate = np.mean(novelty.distances(found, {"x": unknown}) > 1)
    assert rate == pytest.approx(novelty.ALARMS, abs=0.04)
    assert found["false_alarms"] == pytest.approx(novelty.ALARMS, abs=0.03)
    assert found["by_group"].shape == (30,)
    assert np.mean(found["by_group"]) == pytest.approx(found["false_alarms"])
    # Without regard to the groups, an unknown group is a false alarm more often.
    mixed = rng.permutation(len(groups))
    views = [{"x": draw(groups)[mixed[i::2]]} for i in (0, 1)]
    plain = novelty.calibrate(*views)
    assert np.mean(novelty.distances(plain, {"x": unknown}) > 1) > 1.5 * rate


def test_false_alarms_of_a_group_are_measured_without_it():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 50)
    views = {"x": rng.normal(size=(300, 3)) + 0.3 * rng.normal(size=(6, 3))[groups]}
    before = novelty.calibrate_groups(views, groups)
    views["x"][groups == 4] += 100
    after = novelty.calibrate_groups(views, groups)
    assert before["by_group"][4] < 0.5
    assert after["by_group"][4] == 1
    # Without the fourth group, all that is calibrated is independent of its inputs.
    rest = groups != 4
    without = novelty.calibrate_groups({"x": views["x"][rest]}, groups[rest])
    moved = novelty.distances(without, {"x": views["x"][~rest] - 100})
    assert before["by_group"][4] == pytest.approx(np.mean(moved > 1))


def test_distance_to_the_nearest_class():
    """Check the distance against a direct calculation, and an input between classes."""
    rng = np.random.default_rng(0)
    groups, classes = np.repeat(np.arange(4), 60), np.arange(240) % 3
    middles = np.array([[0.0, 0], [20, 0], [0, 20]])
    x = middles[classes] + rng.normal(size=(240, 2)) * [1, 3]
    found = novelty.calibrate_groups({"x": x}, groups, classes)
    asked = np.array([[0.0, 3], [20, 0], [10, 0], [7, 7]])
    d = np.zeros(len(asked))
    for group in range(4):
        known, of = x[groups != group], classes[groups != group]
        means = np.stack([known[of == c].mean(axis=0) for c in range(3)])
        covariance = np.cov(known - means[of], rowvar=False)
        covariance += novelty.SHRINK * np.trace(covariance) / 2 * np.eye(2)
        apart = asked[:, None] - means
        squares = np.einsum("nci,ij,ncj->nc", apart, np.linalg.inv(covariance), apart)
        d += np.sqrt(squares.min(axis=1) / 2) / 4
    got = novelty.distances(found, {"x": asked})
    np.testing.assert_allclose(got / got[2], d / d[2], rtol=1e-4)
    assert (got > 1).tolist() == [False, False, True, True]
    # The nearest training inputs do not say that an input lies between classes.
    nearest = novelty.calibrate_groups({"x": x}, groups)
    assert novelty.distances(nearest, {"x": asked[2:3]}) < got[2]


def test_directions_in_which_training_inputs_do_not_vary_count():
    """Check that an input outside the span of the training inputs is unlike them."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(10, 100))
    draw = lambda count: {"x": rng.normal(size=(count, 10)) @ basis}
    found = novelty.calibrate(draw(300), draw(300))
    inside = draw(200)["x"]
    outside = inside + 0.3 * rng.normal(size=inside.shape)
    assert np.mean(novelty.distances(found, {"x": inside}) > 1) < 0.15
    assert np.mean(novelty.distances(found, {"x": outside}) > 1) > 0.95


def test_too_few_held_out_inputs_give_no_distance():
    few = {"x": np.zeros((2 * novelty.FEWEST - 1, 1))}
    assert novelty.calibrate(few, few) == {}
    saved = models.Saved("speech", {}, {"novelty": {}})
    found = models.answer(saved, (1, 2), None, {"x": np.zeros((1, 1))})
    assert found.distance is None
    assert not found.unlike
    assert str(found) == "1 2"


@pytest.mark.slow
def test_false_alarms_of_saved_models_are_printed(tmp_path, capsys):
    rng = np.random.default_rng(0)
    draw = lambda count: {"x": rng.normal(size=(count, 2))}
    one, other = (novelty.calibrate(draw(300), draw(200)) for _ in range(2))
    one["false_alarms"] = np.float32(0.07)
    kinds = {
        "robot": {"networks": np.zeros(2), "novelty": one},
        "control": {"arm": {"novelty": one}, "pendulum": {"novelty": other}},
        "speech": {"networks": [np.zeros(2)], "novelty": {}},
    }
    folders = [tmp_path / study for study in kinds]
    for folder, (study, params) in zip(folders, kinds.items(), strict=True):
        folder.mkdir()
        models.save_model(folder, study, params, {})
    found = alarms.lines(folders)
    assert [line[0] for line in found] == [
        "robot", "control, arm", "control, pendulum", "speech"
    ]  # fmt: skip
    deviation = 100 * (0.05 * 0.95 * 2 / 100) ** 0.5
    expected = f"0.0 to {5 + 2 * deviation:.1f}"
    assert found[0] == ["robot", "7.0", "100", expected]
    assert found[3][1] == "not measured"
    assert alarms.main([*map(str, folders)]) == 0
    assert "control, pendulum" in capsys.readouterr().out
    assert alarms.main([str(tmp_path / "no")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert alarms.main([]) == 2
