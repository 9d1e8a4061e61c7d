"""Tests of the study music, such as that its streams contain each piece once."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import mido
import numpy as np
import pytest

import experiments
from experiments import asking, data
from experiments.applications.music import midi, rolls as piano_rolls, study as music
from experiments.harness import models
from experiments.harness.errors import DataError
from experiments.networks import recurrent, windows as windowing
from tests.experiments.resuming import check_resumed


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
    assert [m.note for m in played] == [c, e, g, c]  # a held note is one note
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        midi.write_midi(path, piece, 0)


def written(path, notes, *, ticks=96, channel=0):
    """Write a MIDI file of notes (MIDI number, begin, end), in ticks."""
    changes = [(begin, 1, note) for note, begin, _ in notes]
    changes += [(end, 0, note) for note, _, end in notes]
    track, now = mido.MidiTrack(), 0
    for at, on, note in sorted(changes):
        kind = "note_on" if on else "note_off"
        given = {"note": note, "channel": channel, "time": at - now}
        track.append(mido.Message(kind, **given))
        now = at
    mido.MidiFile(ticks_per_beat=ticks, tracks=[track]).save(path)


def test_midi_of_others_is_read_in_steps(tmp_path):
    path = tmp_path / "piece.mid"
    # 96 ticks are a beat, so two steps of 48 ticks; the times are a little off.
    notes = [(60, 2, 49), (64, 46, 99), (67, 100, 104), (20, 0, 50), (60, 52, 97)]
    written(path, notes)
    assert midi.read_midi(path, 2) == [{60}, {60, 64}, {67}]
    assert midi.read_midi(path) == [{60, 64}, {60, 67}]
    written(path, notes, channel=9)
    assert not any(midi.read_midi(path, 2))


def test_a_folder_of_midi_files_is_learned(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "midi"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(7):
        scale = 48 + np.cumsum(rng.integers(0, 3, 40)) % 24
        tune = [(int(note), 48 * t, 48 * t + 48) for t, note in enumerate(scale)]
        written(folder / ("more" if i % 2 else "") / f"{i}.MID", tune)
        if i == 1:
            written(folder / "again.mid", tune)
    parts = midi.read_folder(folder, 2)
    assert [*map(len, parts)] == [5, 1, 1]
    told = capsys.readouterr().out
    assert "8 MIDI files, with 7 different pieces of 16 steps or more: 5 for" in told
    assert parts == midi.read_folder(folder, 2)
    monkeypatch.setattr(music.report, "save_picture", lambda *_: None)
    out = tmp_path / "run"
    config = music.Config(
        midi=folder, cells=("tanh",), units=4, steps=4, chunk=2, streams=2, window=8,
        seeds=1, sampled=20, out=out,
    )  # fmt: skip
    result = music.main(config)
    assert {row["set"] for row in result.rows} == {"own"}
    assert (out / "own-tanh.mid").exists()
    assert "own-tanh.mid" in (out / "report.html").read_text()
    assert "To listen: own-test-piece.mid is" in capsys.readouterr().out
    assert music.main(music.Config(out=out, resume=True)).rows == result.rows
    model = experiments.load(out)
    assert model.predict(folder / "0.MID").distance is None  # one held-out piece
    (folder / "bad.mid").write_bytes(b"MThd")
    with pytest.raises(DataError, match=r"--midi: .* 1 file added \(bad\.mid\)"):
        music.main(music.Config(out=out, resume=True))
    with pytest.raises(DataError, match=r"--midi: .*bad\.mid cannot be read"):
        midi.read_folder(folder, 2)
    with pytest.raises(DataError, match="--midi: there is no folder"):
        music.main(music.Config(midi=tmp_path / "no", out=tmp_path / "other"))
    (tmp_path / "few").mkdir()
    written(tmp_path / "few" / "a.mid", [(60, 0, 2000)])
    with pytest.raises(DataError, match="has 1 MIDI files, and 1 different pieces"):
        music.main(music.Config(midi=tmp_path / "few", out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


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
    assert "JSB Chorales: One seed: no statement about differences in test" in output
    with pytest.raises(DataError, match="add --resume to go on"):
        music.main(config)
    model, pieces = experiments.load(tmp_path), data.jsb_chorales().test
    answers = [model.predict(piece[:40]) for piece in pieces]
    network = music.make_network("gru", 48)
    params = models.read_model(tmp_path).params["network"]
    carry, y = network.zeros(()), None
    for x in data.to_roll(pieces[3][:40]):
        carry, y = network.step(params, carry, (x, None))
    order = np.argsort(-np.asarray(y))
    sounds = order[: max(1, int(np.sum(np.asarray(y) > 0)))]
    assert answers[3].value == tuple(sorted((21 + sounds).tolist()))
    assert np.mean([answer.unlike for answer in answers]) < 0.15
    rng = np.random.default_rng(0)
    noise = [set(rng.integers(40, 90, 4).tolist()) for _ in range(40)]
    for strange in (noise, [{60}] * 40, [set()] * 40):
        assert model.predict(strange).unlike
    path = tmp_path / "jsb_chorales-test-piece.mid"
    capsys.readouterr()
    assert asking.main([str(tmp_path), "--midi", str(path)]) == 0
    answer = model.predict(midi.read_midi(path))
    assert capsys.readouterr().out == f"{answer}\n"
    path = tmp_path / "no.mid"
    path.write_bytes(b"MThd")
    assert asking.main([str(tmp_path), "--midi", str(path)]) == 1
    assert "cannot be read as a MIDI file" in capsys.readouterr().err
    again = music.main(music.Config(out=tmp_path, resume=True, temperature=0.5))
    assert again.rows == result.rows
    assert midi.read_midi(tmp_path / "jsb_chorales-gru.mid") != piece
    check_resumed(music.main, music.Config(out=tmp_path), result)
    assert midi.read_midi(tmp_path / "jsb_chorales-gru.mid") == piece


@pytest.mark.parametrize("study", [music])
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
