"""Music and language: studies run, windows are what they say, scores are right."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import mido
import numpy as np
import pytest

from experiments import data
from experiments.applications.language import characters, study as language
from experiments.applications.music import midi, rolls as piano_rolls, study as music
from experiments.baselines.ngrams import interpolated_ngrams
from experiments.networks import recurrent, windows as windowing


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def rolls():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 2, (n, 88), dtype=np.uint8) for n in (9, 4, 6, 5, 3, 2)]


def test_streams_hold_each_piece_once_and_score_all_but_first_steps(rolls):
    window = piano_rolls.side_by_side(rolls, 2)
    assert window.weights.sum() == sum(len(roll) - 1 for roll in rolls)
    assert window.mask.sum() == sum(map(len, rolls))
    found = []
    for b in range(2):
        begins = [*np.flatnonzero(window.reset[:, b]), window.mask[:, b].sum()]
        for begin, end in itertools.pairwise(begins):
            piece = window.xs[begin:end, b]
            scored = window.weights[begin:end, b]
            np.testing.assert_array_equal(scored, [True] * (len(piece) - 1) + [False])
            targets = window.targets[begin : end - 1, b]
            np.testing.assert_array_equal(targets, piece[1:])
            found.append(piece.tobytes())
    assert sorted(found) == sorted(roll.tobytes() for roll in rolls)


def test_windows_go_on_anywhere(rolls):
    draw = piano_rolls.Streams(rolls, 2, 4, seed=1)
    numbers = np.arange(200) % 7
    text = windowing.Windows(numbers[:-1], numbers[1:], 3, 8, keeps=True, seed=1)
    for windows in draw, text:
        drawn = [w for w, _ in zip(windows(0), range(30), strict=False)]
        for start in 1, 9, 17:
            for want, got in zip(drawn[start:], windows(start), strict=False):
                for a, b in zip(want, got, strict=True):
                    np.testing.assert_array_equal(a, b)


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


def test_scores_are_those_of_pieces_one_by_one(rolls):
    network = music.make_network("gru", 5)
    draw = jax.vmap(network.init)
    params = draw(jax.random.split(jax.random.key(0), 2))
    got = windowing.Scores(network, piano_rolls.side_by_side(rolls, 2))(params)
    for seed in range(2):
        one = jax.tree.map(lambda leaf, i=seed: leaf[i], params)
        losses = []
        for roll in rolls:
            carry = network.zeros(())
            for x, target in itertools.pairwise(roll):
                carry, y = network.step(one, carry, (jnp.asarray(x), None))
                p = jax.nn.sigmoid(y)
                losses.append(-jnp.sum(jnp.log(jnp.where(target, p, 1 - p))))
        assert got[seed] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert got[0] != got[1]


def test_dropout_drops_in_the_readout_alone_and_is_one_in_the_mean():
    network = music.make_network("tanh", 4)
    seen = {}

    def rule(params, carry, xs, *marks: Any, **options: Any) -> Any:
        seen["kept"], seen["key"] = xs[1], options["key"]
        return (0.0, carry), params

    given: Any = rule
    rule = recurrent.over_windows(
        given, network.zeros((50,)), draws=True, dropout=0.25, units=4
    )
    reset, key = jnp.zeros((40, 50), bool), jax.random.key(3)
    rule({}, None, None, None, None, None, reset, key=key)
    assert seen["kept"].shape == (40, 50, 4)
    np.testing.assert_allclose(np.unique(seen["kept"]), [0, 4 / 3], rtol=1e-6)
    assert float(seen["kept"].mean()) == pytest.approx(1, abs=0.03)
    assert jnp.any(jax.random.key_data(seen["key"]) != jax.random.key_data(key))
    params = network.init(key)
    none, all_of = jnp.zeros(4), jnp.ones(4)
    x, carry = jnp.ones(88, jnp.uint8), network.zeros(())
    carries, ys = zip(
        *(network.step(params, carry, (x, kept)) for kept in (none, all_of, None)),
        strict=True,
    )
    np.testing.assert_array_equal(ys[0], params["readout_bias"])
    np.testing.assert_array_equal(ys[1], ys[2])
    np.testing.assert_array_equal(carries[0], carries[1])


@pytest.mark.data
@pytest.mark.parametrize("name", ["jsb_chorales", "nottingham"])
def test_models_without_a_memory_are_the_known_ones(name):
    pieces = piano_rolls.as_rolls(music.SETS[name]())
    want = {"jsb_chorales": (11.09, 10.49), "nottingham": (10.26, 5.16)}[name]
    models = piano_rolls.independent_keys, piano_rolls.markov_keys
    got = [model(pieces.train, pieces.test) for model in models]
    np.testing.assert_allclose(got, want, atol=0.01)


def test_midi_is_read_back(tmp_path):
    c, e, g = 60, 64, 67
    piece = [{c}, {c, e}, set(), {g}, {g}, {c, g}, set()]
    piece = [frozenset(notes) for notes in piece]
    path = tmp_path / "piece.mid"
    midi.write_midi(path, piece, 0.5)
    assert midi.read_midi(path) == piece
    assert [each.name for each in tmp_path.iterdir()] == ["piece.mid"]
    file = mido.MidiFile(path)
    assert file.length == pytest.approx(7 * 0.5)
    played = [m for m in file.tracks[0] if m.type == "note_on"]
    assert [m.note for m in played] == [c, e, g, c]  # held notes begin once
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        midi.write_midi(path, piece, 0)


def test_ngrams_by_their_definition():
    rng = np.random.default_rng(0)
    train, given = rng.integers(0, 3, 60), rng.integers(0, 3, 20)

    def p(t, order):
        if order == 0:
            return 1 / 3
        context = [0] * max(0, order - 1 - t)  # what is before a text
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
def test_music_is_better_than_chance_and_goes_on(check_run, tmp_path, capsys):
    config = music.Config(quick=True, out=tmp_path)
    result = music.main(config)
    check_run(result, tmp_path, ["music", "jsb_chorales"])
    independent, _, row = result.rows
    assert row["test"][0] < independent["test"]
    assert row["validation"][0] == min(each[0] for each in row["curve"])
    piece = midi.read_midi(tmp_path / "jsb_chorales-gru.mid")
    given = midi.read_midi(tmp_path / "jsb_chorales-test-piece.mid")
    assert piece[:8] == given[:8]
    assert piece != given
    assert len(piece) == config.sampled
    assert len(set().union(*piece[8:])) > 3
    output = capsys.readouterr().out
    assert "Bai et al. 2018, table 1" in output
    assert "8.43" in output
    with pytest.raises(SystemExit, match="add --resume to go on"):
        music.main(config)
    again = music.main(music.Config(out=tmp_path, resume=True, temperature=0.5))
    assert again.rows == result.rows
    assert midi.read_midi(tmp_path / "jsb_chorales-gru.mid") != piece


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


def test_texts_that_cannot_be_learned_are_refused(tmp_path):
    path, out = tmp_path / "text.txt", tmp_path / "out"
    for content, message in (
        (None, "there is no file"),
        (b"", "is empty: a text needs two different"),
        (b"aaaa", "is 4 times 'a'"),
        (b"ab\xff", "is not text in UTF-8: invalid start byte at byte 2"),
        (b"to be or not to be", "is too short: of its 16 characters for training"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SystemExit, match=message):
            language.main(language.Config(text=path, out=out))
    path.write_bytes(b"to be or not to be\n" * 1000)
    with pytest.raises(SystemExit, match="prompt must be characters of the text"):
        language.main(language.Config(text=path, prompt="O!", out=out))
    assert not out.exists()  # nothing half-written


@pytest.mark.parametrize("study", [music, language])
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
