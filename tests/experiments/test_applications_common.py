"""Tests of functions that several applications use, such as scores and baselines."""

import doctest
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from bpvariants import training
from experiments import report
from experiments.applications.speech import log_mel as features
from experiments.applications.speech.log_mel import log_mel, mel_filters, num_frames
from experiments.harness.jobs import Way
from experiments.harness.precision import double_precision
from experiments.networks import batches as batching
from experiments.networks.batches import all_batches, draw_batches, length_buckets
from experiments.report import _scores


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 200, 257)


def test_padding_keeps_what_there_is():
    # These arrays have the shapes [3, 2] and [2, 3].
    sequences = [np.arange(6.0).reshape(n, -1) for n in (3, 2)]
    with pytest.raises(ValueError, match="could not broadcast"):
        batching.pad(sequences)
    rows = np.array([1, -1, 0])
    sequences = [np.arange(6).reshape(3, 2), 10 + np.arange(2).reshape(1, 2)]
    xs, mask = batching.pad(sequences, batching.Bucket(4, rows))
    assert xs.shape == (4, 3, 2)
    assert xs.dtype == sequences[0].dtype
    assert mask.sum(axis=0).tolist() == [1, 0, 3]
    np.testing.assert_array_equal(xs[:3, 2], sequences[0])
    assert not xs[~mask].any()
    with pytest.raises(ValueError, match=r"than the bucket, 2; .* 0 has 3 steps"):
        batching.pad(sequences, batching.Bucket(2, rows))
    with pytest.raises(ValueError, match="at least one, got none"):
        batching.pad([])


def test_buckets_hold_each_sequence_once(lengths):
    buckets = length_buckets(lengths, 5)
    assert sorted(np.concatenate([b.rows for b in buckets])) == list(range(257))
    assert [b.length for b in buckets] == sorted({b.length for b in buckets})
    low = 0
    for bucket in buckets:
        inside = lengths[bucket.rows]
        assert low < inside.min()
        # Each bucket (sequences of similar length) is padded to the length of its
        # longest sequence.
        assert inside.max() == bucket.length
        assert 30 < len(bucket.rows) < 70
        low = bucket.length
    assert [b.length for b in length_buckets([4, 4, 4, 4, 9])] == [4, 9]
    for bad in ([], 3), ([3], 0):
        with pytest.raises(ValueError, match="lengths must hold at least one"):
            length_buckets(*bad)


def test_evaluation_sees_each_sequence_once(lengths):
    batches = list(all_batches(length_buckets(lengths), 16))
    assert {len(batch.rows) for batch in batches} == {16}
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows[rows >= 0]) == list(range(257))
    for batch in batches:
        assert (lengths[batch.rows[batch.rows >= 0]] <= batch.length).all()


def test_drawing_sees_all_alike_and_goes_on_anywhere(lengths):
    buckets = length_buckets(lengths)
    draw = lambda start: draw_batches(buckets, 8, seed=3, run=5, start=start)
    drawn = [batch for batch, _ in zip(draw(0), range(4000), strict=False)]
    for start in (1, 5, 13):
        for want, got in zip(drawn[start : start + 9], draw(start), strict=False):
            assert want.length == got.length
            np.testing.assert_array_equal(want.rows, got.rows)
    for i in range(0, 4000, 5):
        assert len({batch.length for batch in drawn[i : i + 5]}) == 1
        rows = np.concatenate([batch.rows for batch in drawn[i : i + 5]])
        assert len(set(rows)) == 40  # no example occurs twice in 5 batches
    counts = np.bincount(np.concatenate([batch.rows for batch in drawn]), minlength=257)
    expected = 4000 * 8 / 257  # about 125 draws per example
    assert abs(counts.mean() - expected) < 1e-9
    assert counts.min() > 0.7 * expected
    assert counts.max() < 1.3 * expected
    uneven = [batching.Bucket(1, np.arange(1)), batching.Bucket(2, np.arange(1, 10))]
    drawn = zip(draw_batches(uneven, 1, seed=0), range(2000), strict=False)
    counts = np.bincount([batch.rows[0] for batch, _ in drawn])
    # The expected number of draws is 200 for each example, also for the single example
    # of a bucket.
    assert counts.min() > 150
    assert counts.max() < 250
    few = next(draw_batches([batching.Bucket(2, np.arange(3))], 8, seed=0))
    assert np.bincount(few.rows).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    with pytest.raises(ValueError, match="run must be at least 1, got 0"):
        next(draw_batches(buckets, 8, seed=0, run=0))


def test_a_curve_has_nan_where_a_training_diverged(tmp_path):
    way = Way("job", tmp_path)
    log = training.JsonLog(tmp_path / "curves" / "job.jsonl")
    log(1, {"value": jnp.nan, "score": [jnp.nan, 2.0], "said": {"a": 1}})
    (line,) = way.curve()
    assert np.isnan(np.mean(line["score"]))
    assert np.isnan(line["value"])
    assert line["said"] == {"a": 1}


def test_scores_by_their_definitions():
    z = 1.959963984540054
    share, n = 7 / 20, 20
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    np.testing.assert_allclose(_scores.wilson(7, 20), [middle - half, middle + half])
    assert _scores.wilson(0, 5)[0] == 0
    assert _scores.wilson(5, 5)[1] == 1
    for bad in (3, 2), (-1, 2), (0, 0):
        with pytest.raises(ValueError, match="correct must be in"):
            _scores.wilson(*bad)
    targets, said = np.array([1, 1, 1, 0, 0, 2]), np.array([1, 1, 0, 1, 0, 2])
    # The F1 score is 2·2 / (2·2 + 1 + 1).
    assert _scores.f1(targets, said) == pytest.approx(4 / 6)
    assert _scores.f1(targets, said, positive=2) == 1
    assert _scores.f1(targets, 0 * said) == 0
    counts = _scores.confusion(targets, said, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 1]]


def test_confusions_are_shown(capsys, tmp_path):
    counts = np.array([[8, 2, 0], [0, 5, 1], [0, 0, 0]])
    _scores.show_confusion("Animals", ("cat", "dog", "emu"), counts)
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert cells["cat"] == ["8", "2", "·", "80"]
    assert cells["dog"] == ["·", "5", "1", "83"]
    assert cells["emu"] == ["·", "·", "·", "–"]
    figure = _scores.draw_confusion("Animals", ("cat", "dog", "emu"), counts)
    path = report.save_picture(tmp_path, "confusion", figure)
    assert path.stat().st_size > 5000
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "8", (1, 0): "2", (1, 1): "5", (2, 1): "1"}


def test_published_figures_stand_below_ours(capsys):
    report.show_beside(
        "Chorales",
        ("NLL", "params"),
        {"GRU": {"NLL": [8.4, 8.6], "params": "40K"}, "no rule": {"NLL": 11.09}},
        [report.Published("LSTM", {"NLL": 8.45}, "Bai et al. 2018, table 1")],
        note="Nats per step.",
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "GRU 8.5 ± 0.1 40K this run" in lines
    assert "no rule 11.09 – this run" in lines
    assert "LSTM 8.45 – Bai et al. 2018, table 1" in lines
    assert "Nats per step. Ours: mean ± standard deviation of 2 seeds." in lines


def filters_by_definition(bands, size, rate, low, high):
    """Compute each triangular mel filter from its definition."""
    mel = lambda hertz: 2595 * math.log10(1 + hertz / 700)
    hertz = lambda mel: 700 * (10 ** (mel / 2595) - 1)
    step = (mel(high) - mel(low)) / (bands + 1)
    filters = np.zeros((size // 2 + 1, bands))
    for band in range(bands):
        a, b, c = (hertz(mel(low) + (band + i) * step) for i in range(3))
        for k in range(size // 2 + 1):
            f = k * rate / size
            if a < f <= b:
                filters[k, band] = (f - a) / (b - a)
            elif b < f < c:
                filters[k, band] = (c - f) / (c - b)
    return filters


@pytest.mark.parametrize(
    ("size", "hop", "bands", "low", "high"),
    [(256, 80, 24, 0.0, 4000.0), (200, 100, 12, 100.0, 3500.0)],
)
def test_log_mel_is_that_of_scipy_and_of_the_definition(size, hop, bands, low, high):
    t = np.arange(3001) / 8000
    sound = np.sin(2 * np.pi * (300 + 2000 * t) * t)
    sound = np.stack([sound, np.random.default_rng(0).normal(size=3001)])
    _, _, stft = signal.stft(
        sound, 8000, "hann", size, size - hop, boundary=None, padded=False
    )
    # scipy divides the spectrum by the sum of the window, which is periodic.
    window = signal.get_window("hann", size)
    power = np.abs(stft * window.sum()).swapaxes(1, 2) ** 2
    filters = filters_by_definition(bands, size, 8000, low, high)
    np.testing.assert_allclose(
        mel_filters(bands, size, 8000, low, high), filters, atol=1e-12
    )
    want = np.log(np.maximum(power @ filters, 1e-6))
    settings = {"size": size, "hop": hop, "bands": bands, "low": low, "high": high}
    with double_precision():
        got = log_mel(jnp.asarray(sound), **settings)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    assert got.shape == (2, num_frames(3001, size, hop), bands)
    in_float32 = log_mel(jnp.asarray(sound, jnp.float32), **settings)
    assert in_float32.dtype == jnp.float32
    # Filter outputs range from 1e-6 to 1e4.
    np.testing.assert_allclose(in_float32, want, atol=2e-2)


def test_log_mel_of_padded_and_of_short_sounds():
    sound = np.random.default_rng(1).normal(size=700).astype(np.float32)
    whole = log_mel(jnp.asarray(sound))
    padded = log_mel(jnp.asarray(np.pad(sound, (0, 500))))
    frames = num_frames(700)
    assert whole.shape == (frames, 24)
    np.testing.assert_allclose(padded[:frames], whole, rtol=1e-5)
    short = log_mel(jnp.asarray(sound[:100]))
    assert short.shape == (1, 24)
    filled = log_mel(jnp.asarray(np.pad(sound[:100], (0, 156))))
    np.testing.assert_allclose(short, filled, rtol=1e-5)
    silence = log_mel(jnp.zeros(256), floor=1e-3)
    np.testing.assert_allclose(silence, math.log(1e-3), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bands": 0}, "bands must be at least 1 .* got bands=0"),
        ({"high": 5000.0}, r"high ≤ rate / 2 = 4000; got .*high=5000"),
        ({"low": 4000.0}, "low=4000"),
        ({"bands": 128}, "bands=128 are too many for frames of size=256"),
        ({"hop": 0}, "size must be at least 2, hop 1; got 256 and 0"),
    ],
)
def test_log_mel_says_what_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        log_mel(jnp.zeros(300), **settings)


@pytest.mark.parametrize("module", [batching, _scores, features])
def test_examples_in_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
