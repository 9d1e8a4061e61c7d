"""Tests of the study language, such as the probabilities of the n-gram model."""

import itertools

import numpy as np
import pytest

import experiments
from experiments import asking, data
from experiments.applications.language import characters, study as language
from experiments.baselines.ngrams import interpolated_ngrams
from experiments.harness.errors import DataError
from experiments.networks import windows as windowing
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.mark.parametrize("keeps", [True, False])
def test_windows_of_a_text_follow_each_other(keeps):
    text = np.arange(3000)
    windows = windowing.Windows(text[:-1], text[1:], 3, 8, keeps=keeps, seed=2)
    rounds = 0
    drawn = [w for w, _ in zip(windows(0), range(300), strict=False)]
    for before, after in itertools.pairwise(drawn):
        np.testing.assert_array_equal(after.targets, after.xs + 1)
        goes_on = (after.xs[0] == before.targets[-1]).all()
        rounds += not goes_on
        np.testing.assert_array_equal(after.reset[0], not (goes_on and keeps))
        assert not after.reset[1:].any()
    assert 1 <= rounds <= 3
    assert 0 <= drawn[0].xs[0, 0] < 8


def test_all_characters_of_the_test_text_are_scored_once():
    text = data.Text("ab", np.arange(500), 500 + np.arange(1001), "numbers")
    for tested in None, 130:
        window = characters.score_window(text, tested)
        scored = window.targets[window.weights]
        want = np.arange(500, 500 + (tested or 1001))
        np.testing.assert_array_equal(np.sort(scored), want)
        within = window.xs[window.mask], window.targets[window.mask]
        np.testing.assert_array_equal(within[1], within[0] + 1)
        assert (window.mask >= window.weights).all()
        warm = (~window.weights).cumprod(axis=0).sum(axis=0)
        assert (warm[: -(-len(want) // 64)] == characters.WARM).all()


def test_ngrams_by_their_definition():
    rng = np.random.default_rng(0)
    train, given = rng.integers(0, 3, 60), rng.integers(0, 3, 20)

    def p(t, order):
        if order == 0:
            return 1 / 3
        # Before the beginning of the text, the context is padded with zeros.
        context = [0] * max(0, order - 1 - t)
        context += given[max(0, t - order + 1) : t].tolist()
        padded = [0] * (order - 1) + train.tolist()
        followed = [
            padded[i + order - 1]
            for i in range(len(train))
            if padded[i : i + order - 1] == context
        ]
        weight = len(followed) / (len(followed) + 5)
        share = followed.count(given[t]) / max(1, len(followed))
        return weight * share + (1 - weight) * p(t, order - 1)

    got = interpolated_ngrams(train, given, 3, 3)
    for order, nats in enumerate(got, 1):
        want = -np.mean([np.log(p(t, order)) for t in range(len(given))])
        assert nats == pytest.approx(want)


@pytest.fixture(scope="module")
def shakespeare():
    return data.tinyshakespeare()


@pytest.mark.data
def test_ngrams_of_shakespeare_are_the_known_ones(shakespeare):
    got = interpolated_ngrams(shakespeare.train, shakespeare.test, 65, 5)
    np.testing.assert_allclose(got, [3.347, 2.488, 2.053, 1.780, 1.677], atol=6e-4)


@pytest.mark.data
def test_language_is_better_than_chance_and_writes(
    check_run, fast, tmp_path, capsys, shakespeare
):
    config = language.Config(quick=True, generate=50, out=tmp_path)
    result = language.main(config)
    check_run(result, tmp_path, ["language"])
    ngrams, kept, reset = result.rows
    for row in kept, reset:
        assert row["nats"][0] < ngrams["nats"][0]
        assert row["nats"] != row["nats_reset"]
    assert kept["nats"] != reset["nats"]
    sample = (tmp_path / "sample.txt").read_text()
    assert len(sample) == 51
    assert set(sample) <= set(shakespeare.alphabet)
    output = capsys.readouterr().out
    assert "1.88" in output
    assert "2-gram" in output
    assert "One seed: no statement about differences in loss" in output
    check_resumed(language.main, language.Config(out=tmp_path), result)
    model = experiments.load(tmp_path)
    capsys.readouterr()
    assert asking.main([str(tmp_path), "--text", "ROMEO:\n"]) == 0
    written = capsys.readouterr().out
    assert written[:-1] == model.predict("ROMEO:\n").value
    assert len(written) == 201
    assert set(written) <= set(shakespeare.alphabet)
    text = "".join(shakespeare.alphabet[i] for i in shakespeare.test)
    parts = [text[i : i + 80] for i in range(0, 8000, 80)]
    assert np.mean([model.predict(part).unlike for part in parts]) < 0.15
    finnish = "huomenna sataa koko päivän pohjoisessa ja lapset leikkivät koiran kanssa"
    for strange in (finnish, "q" * 64, "x9#~ 77%^&*{} 0x5f3759df ||| <html> @@ zz"):
        assert model.predict(strange).unlike
    assert model.predict("short").distance is None
    with pytest.raises(ValueError, match="has no character of the training text"):
        model.predict("ñ")


def test_texts_that_cannot_be_learned_are_refused(tmp_path):
    path, out = tmp_path / "text.txt", tmp_path / "out"
    for content, message in (
        (None, "there is no file"),
        (b"", "is empty: a text needs two different"),
        (b"aaaa", "is 4 times 'a'"),
        (b"ab\xff", "is not text in UTF-8: invalid start byte at byte 2"),
        (b"to be or not to be", "is too short: it has 16 characters for training"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            language.main(language.Config(text=path, out=out))
    path.write_bytes(b"to be or not to be\n" * 1000)
    with pytest.raises(DataError, match="prompt must be characters of the text"):
        language.main(language.Config(text=path, prompt="O!", out=out))
    assert not out.exists()  # an invalid prompt leaves no output


def test_a_run_is_not_resumed_with_another_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 200)
    config = language.Config(
        text=path, out=tmp_path / "out", states=("kept",), units=4, embedding=2,
        steps=2, chunk=2, streams=2, window=4, tested=100, orders=2, generate=5,
        seeds=1,
    )  # fmt: skip
    before = language.main(config)
    resumed = language.Config(out=config.out, resume=True)
    assert language.main(resumed).rows == before.rows
    path.write_text("to be or not to be?\n" * 200)
    with pytest.raises(DataError, match=r"--text: .* has changed since the run in"):
        language.main(resumed)


@pytest.mark.parametrize("study", [language])
def test_options_are_checked(study):
    for option, value, message in (
        ("units", 0, "units must be at least 1, got 0"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
        ("temperature", -1.0, "temperature must be positive"),
        ("dropout", 1.0, r"dropout must be in \[0, 1\), got 1"),
        ("resume", True, "resume needs out"),
    ):
        with pytest.raises(ValueError, match=message):
            study.Config(**{option: value})
