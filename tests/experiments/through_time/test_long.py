"""Tests of the study long: constant memory, and results equal to those of one call."""

import numpy as np
import pytest

from experiments import data
from experiments.through_time import long


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    config = long.Config(
        lengths=(40, 400), units=4, every=5, lookback=10, settings=((5, 5),), call=20,
        seeds=2, out=tmp_path_factory.mktemp("long"),
    )  # fmt: skip
    return long.main(config)


def test_memory_is_constant_and_calls_are_one_long_call(result, check_run):
    check_run(result, result.folder, ["long"])
    page = (result.folder / "report.html").read_text()
    for said in (
        "truncated_bptt: 10 times as many characters take ",
        "Many calls along a stream equal one long call up to",
        "oss in the last tenth",
    ):
        assert said in page
    costs = [row for row in result.rows if row["row"] == "costs"]
    temporary = {rule: [] for rule in long.RULES}
    for row in costs:
        temporary[row["rule"]].append(row["temp_bytes"])
    assert temporary["bptt"][1] > 5 * temporary["bptt"][0]
    for rule in long.RULES[1:]:
        assert temporary[rule][1] < 1.1 * temporary[rule][0]
    differences = [row for row in result.rows if row["row"] == "difference"]
    assert [row["calls"] for row in differences] == [20, 20]
    for row in differences:
        assert row["difference"] < 1e-4 * row["largest"]


def test_bits_are_those_of_predictions_made_before(result):
    bits = {row["model"]: row["bits"] for row in result.rows if row["row"] == "bits"}
    assert {len(of_model) for of_model in bits.values()} == {20}
    text = data.python_reference()
    given, symbols = text.train[:401].tolist(), len(text.alphabet)
    losses = []
    for t in range(1, 401):
        targets = given[1:t]
        followers = [
            b for a, b in zip(given, targets, strict=False) if a == given[t - 1]
        ]
        one = (targets.count(given[t]) + 1) / (len(targets) + symbols)
        two = (followers.count(given[t]) + 5 * one) / (len(followers) + 5)
        losses.append((-np.log2(one), -np.log2(two)))
    want = np.reshape(losses, (20, 20, 2)).mean(axis=1).T
    np.testing.assert_allclose([bits["unigram"], bits["bigram"]], want, rtol=1e-12)
    learned = next(name for name in bits if name.startswith("GRU"))
    assert bits[learned][0] == pytest.approx(np.log2(symbols), abs=0.5)
    assert np.mean(bits[learned][10:]) < bits[learned][0]


def test_each_seed_is_a_row(result, check_resumed, capsys):
    learned = [row for row in result.rows if "seed" in row]
    assert [row["seed"] for row in learned] == [0, 1]
    assert learned[0]["bits"] != learned[1]["bits"]
    check_resumed(long, result)
    assert "±" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "units must be at least 1"),
        ({"lengths": (10,)}, "lengths must be at least call=1000"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        long.Config(**options)


def test_an_interruption_keeps_what_was_finished(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(long, "_difference", interrupt)
    config = long.Config(
        lengths=(20,), units=2, every=5, lookback=5, call=20, out=tmp_path
    )
    result = long.main(config)
    assert result.interrupted
    assert len(result.rows) == 3
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


@pytest.mark.data
def test_tiny_shakespeare_is_the_usual_text():
    text = data.tinyshakespeare()
    assert (len(text.alphabet), len(text.train), len(text.test)) == (
        65,
        1003854,
        111540,
    )
    assert "".join(text.alphabet[i] for i in text.train[:14]) == "First Citizen:"
