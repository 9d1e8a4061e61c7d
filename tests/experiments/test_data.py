"""Tests of data sets: their sizes and splits, and no overlap of test and training."""

import hashlib
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data import (
    _fetch,
    _fsdd,
    _music,
    _prices,
    _sms_spam,
    _tatoeba,
    _texts,
    _trec,
)
from experiments.harness.errors import DataError

# Without $BPVARIANTS_DATA these data files would be downloaded.
FOLDER = os.environ.get(_fetch.FOLDER)

FILES = {
    _fsdd.FILE: data.fsdd,
    _music.CHORALES: data.jsb_chorales,
    _music.NOTTINGHAM: data.nottingham,
    _sms_spam.FILE: data.sms_spam,
    "trec/TREC.train": data.trec,
    "trec/TREC.test": data.trec,
    _tatoeba.FILE: data.tatoeba_fra_eng,
    _prices.SHILLER: data.shiller,
    _prices.VIX_FILE: data.vix,
}


@cache
def load(name):
    return getattr(data, name)()


@pytest.mark.data
@pytest.mark.parametrize("file", FILES)
def test_another_file_than_expected_is_refused(file, tmp_path, monkeypatch):
    others = [other for other in FILES if other.split("/")[0] == file.split("/")[0]]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(Path(FOLDER) / name, tmp_path / name)
    bad = tmp_path / file
    bad.chmod(0o644)
    with bad.open("r+b") as content:  # Flip one bit of the file.
        content.seek(5000)
        byte = content.read(1)[0] ^ 1
        content.seek(5000)
        content.write(bytes([byte]))
    monkeypatch.setenv(_fetch.FOLDER, str(tmp_path))
    with pytest.raises(DataError, match=f"{bad} is not the file that was expected"):
        FILES[file]()


@pytest.mark.data
def test_spoken_digits():
    fsdd = load("fsdd")
    lengths = [len(samples) for samples in fsdd.samples]
    assert (len(lengths), min(lengths), max(lengths)) == (3000, 1148, 18262)
    assert [len(part) for part in fsdd[3:]] == [2400, 300, 300]
    assert np.unique(np.concatenate(fsdd[3:])).size == 3000
    for part, each in zip(fsdd[3:], (40, 5, 5), strict=True):
        for speaker in range(6):  # Each speaker says each digit equally often.
            said = fsdd.digits[part[fsdd.speakers[part] == speaker]]
            assert np.bincount(said).tolist() == 10 * [each]
    assert all(samples.dtype == np.float32 for samples in fsdd.samples)
    assert 0.5 < max(np.abs(samples).max() for samples in fsdd.samples) <= 1
    assert len({samples.tobytes() for samples in fsdd.samples}) == 3000
    others, mine = data.without_speaker(fsdd, "theo")
    assert (len(others), len(mine)) == (2500, 500)
    assert set(fsdd.speakers[mine]) == {4}
    assert 4 not in fsdd.speakers[others]
    with pytest.raises(ValueError, match=r"speaker must be one of .*'thea'"):
        data.without_speaker(fsdd, "thea")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pieces", "steps", "low", "high"),
    [
        ("jsb_chorales", [229, 76, 77], [13807, 4602, 4725], 43, 96),
        ("nottingham", [694, 173, 170], [176561, 45513, 44463], 31, 93),
    ],
)
def test_music(name, pieces, steps, low, high):
    music = load(name)
    assert [len(part) for part in music] == pieces
    assert [sum(map(len, part)) for part in music] == steps
    notes = {
        note for part in music for piece in part for step in piece for note in step
    }
    assert (min(notes), max(notes)) == (low, high)
    roll = data.to_roll(music.test[0])
    assert roll.shape == (len(music.test[0]), 88)
    assert data.to_piece(roll) == music.test[0]


@pytest.mark.data
def test_no_chorale_is_in_two_parts_and_two_tunes_are():
    # Return a chorale's notes relative to the lowest note, so that transposed copies
    # are equal.
    def shape(piece):
        lowest = min(note for step in piece for note in step)
        return tuple(frozenset(note - lowest for note in step) for step in piece)

    parts = [{shape(piece) for piece in part} for part in load("jsb_chorales")]
    assert len(set.union(*parts)) == sum(map(len, parts))
    train, validation, test = ([tuple(p) for p in part] for part in load("nottingham"))
    assert len(train) - len(set(train)) == 1
    assert len(set(train) & set(validation)) == len(set(train) & set(test)) == 1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes", "counts"),
    [
        ("sms_spam", [3711, 411, 1035], [918, 117]),
        ("trec", [4884, 545, 500], [9, 138, 94, 65, 81, 113]),
    ],
)
def test_texts_in_classes(name, sizes, counts):
    classes, *parts = load(name)
    assert [len(part.texts) for part in parts] == sizes
    assert [len(part.labels) for part in parts] == sizes
    assert np.bincount(parts[-1].labels).tolist() == counts
    forms = [set(map(data.same_form, part.texts)) for part in parts]
    assert not forms[0] & forms[1]
    assert not forms[2] & (forms[0] | forms[1])
    # Percentage of examples in the largest class, measured without this library
    majority = {"sms_spam": 88.7, "trec": 27.6}[name]
    assert 100 * max(counts) / sum(counts) == pytest.approx(majority, abs=0.05)
    assert len(classes) == len(counts)


@pytest.mark.data
def test_messages_and_questions_are_those_of_the_files():
    lines = _sms_spam.read_lines((Path(FOLDER) / _sms_spam.FILE).read_text("utf-8"))
    assert (len(lines), sum(name == "spam" for name, _ in lines)) == (5574, 747)
    assert len(_sms_spam.first_of_each(lines)) == 5171
    assert load("sms_spam").train.texts[0].startswith("Go until jurong point, crazy..")
    assert load("trec").test.texts[0] == "How far is it from Denver to Aspen ?"
    train = _trec.read_lines(_trec._text("TREC.train"))
    assert len(train) == 5452
    asked = set(load("trec").test.texts)
    assert sum(question in asked for _, question in train) == 10


@pytest.mark.data
def test_sentences(monkeypatch):
    hashed, keep_apart = [], _tatoeba.keep_apart

    def record(parts, text):
        hashed.extend(parts)
        return keep_apart(parts, text)

    monkeypatch.setattr(_tatoeba, "keep_apart", record)
    pairs = data.tatoeba_fra_eng()
    assert [len(part) for part in hashed] == [114499, 14091, 14197]
    assert len({english for part in hashed for english, _ in part}) == 98659
    assert [len(part) for part in pairs] == [114435, 14081, 14197]
    assert pairs.train[0] == ("Go.", "Va !")
    english = [{data.same_form(english) for english, _ in part} for part in pairs]
    assert not english[0] & english[1]
    assert not english[2] & (english[0] | english[1])


@pytest.mark.data
def test_sentences_of_the_tutorial():
    pairs = data.tatoeba_fra_eng(data.tutorial_form, data.is_of_tutorial)
    assert [len(part) for part in pairs] == [9390, 1252, 1173]
    # The tutorial has 11,822 pairs of sentences. Seven are removed, because they differ
    # from a test or validation pair only in "?" or "!".
    words = [
        len({word for part in pairs for pair in part for word in pair[side].split()})
        for side in (0, 1)
    ]
    assert words == [3028, 4668]


@pytest.mark.data
def test_sentences_of_the_tutorial_in_the_parts_of_others(monkeypatch):
    """Split as others do: by the hash's remainder, 0 for test, 1 for validation."""

    def which_part(english):
        tenth = int(hashlib.sha256(english.encode()).hexdigest(), 16) % 10
        return {0: 2, 1: 1}.get(tenth, 0)

    monkeypatch.setattr(_tatoeba, "which_part", which_part)
    monkeypatch.setattr(_tatoeba, "keep_apart", lambda parts, text: parts)
    pairs = data.tatoeba_fra_eng(data.tutorial_form, data.is_of_tutorial)
    assert [len(part) for part in pairs] == [9522, 1161, 1139]


@pytest.mark.data
def test_prices():
    shiller, vix = load("shiller"), load("vix")
    assert shiller.months[[0, -1]].astype(str).tolist() == ["1871-01", "2026-06"]
    assert (np.diff(shiller.months).astype(int) == 1).all()
    assert len(shiller.months) == 1866
    assert not np.isnan(shiller.price).any()
    first = shiller.months[~np.isnan(shiller.pe10)][0]
    assert str(first) == "1881-01"
    last = shiller.months[~np.isnan(shiller.dividend)][-1]
    assert str(last) == "2023-06"
    assert str(shiller.months[~np.isnan(shiller.long_rate)][-1]) == "2023-09"
    # Known root-mean-square error if each price is predicted to equal the previous one
    returns = np.diff(np.log(shiller.price))[1492:]
    assert np.sqrt(np.mean(returns**2)) == pytest.approx(0.0382, abs=5e-5)

    assert len(vix.dates) == 9235
    assert str(vix.dates[7387]) == "2019-05-02"
    assert (np.diff(vix.dates).astype(int) > 0).all()
    alike = (vix.open == vix.high) & (vix.high == vix.low) & (vix.low == vix.close)
    assert alike[vix.dates <= np.datetime64("2004-06-11")].sum() == 506
    outside = lambda price: (price < vix.low) | (price > vix.high)
    assert (outside(vix.open) | outside(vix.close)).sum() == 47
    # Known root-mean-square error if each price is predicted to equal the previous one
    change = np.diff(np.log(vix.close))[7387:]
    assert np.sqrt(np.mean(change**2)) == pytest.approx(0.0787, abs=5e-5)


@pytest.mark.data
def test_columns_that_are_not_expected_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected the columns .*'Date'.* got .*'DATE'"
    ):
        _prices._columns(Path(FOLDER) / _prices.VIX_FILE, ["Date"])


def test_lines_that_are_not_of_the_format_are_refused():
    assert _sms_spam.read_lines("ham\ta\tb\nspam\t\n") == [
        ("ham", "a\tb"),
        ("spam", ""),
    ]
    with pytest.raises(ValueError, match=r"expected ham or spam, a tab .* 'eggs\\tx'"):
        _sms_spam.read_lines("eggs\tx")
    assert _trec.read_lines("NUM:dist How far ?") == [("NUM", "How far ?")]
    with pytest.raises(ValueError, match=r"expected COARSE:fine, .* 'NUM How far'"):
        _trec.read_lines("NUM How far")
    with pytest.raises(
        ValueError, match=r"notes must be in 21\.\.108, got 20 at step 1"
    ):
        data.to_roll([[60], [20]])
    with pytest.raises(ValueError, match="expected digit_speaker_number"):
        _fsdd._parse("seven.wav")


def test_what_is_in_a_later_part_is_left_out_of_those_before():
    parts = [["a b", "A,b!", "c", "c"], ["d", "a-B", "e"], ["E", "f", "f"]]
    kept = _texts.keep_apart(parts, str)
    assert kept == [["c", "c"], ["d", "a-B"], ["E", "f", "f"]]
