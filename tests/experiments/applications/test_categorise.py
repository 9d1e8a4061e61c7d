"""Tests of the study categorise, such as that padding has no effect."""

import dataclasses
import json
import os
import signal
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from bpvariants import gradients
from experiments import asking, data, report
from experiments.applications.categorise import (
    ablation,
    network as text_network,
    study as categorise,
    texts as categorise_texts,
    units as text_units,
)
from experiments.harness.errors import DataError
from experiments.networks.cells import CELLS
from tests.experiments.resuming import check_resumed

TIMES = {"wall_seconds", "compile_seconds", "ms_per_step"}


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.mark.data
def test_quick_beats_the_most_frequent_class(fast, tmp_path, capsys):
    config = categorise.Config(quick=True, out=tmp_path, say="Where is Paris ?")
    result = categorise.main(config)
    assert not result.interrupted
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    baseline, network = result.rows
    labels = data.trec().test.labels
    # Percentage of texts in the largest class, measured without this library
    assert baseline["majority"] == pytest.approx(27.6)
    assert baseline["accuracy"][0] > 85
    assert network["accuracy"][0] > 70
    counts = np.array(network["confusion"])
    assert counts.sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert 100 * counts.trace() / 500 == pytest.approx(network["accuracy"][0])
    for picture in ("categorise", "confusion_trec"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "88.2" in printed
    assert "is LOC (" in printed
    assert "TREC, six classes: One seed: no statement about" in printed
    asked = {"out": tmp_path, "resume": True, "say": "How many are there ?"}
    again = categorise.main(categorise.Config(**asked))
    assert again.rows == result.rows
    assert "is NUM (" in capsys.readouterr().out
    check_resumed(categorise.main, categorise.Config(out=tmp_path), result)
    model, tests = experiments.load(tmp_path), data.trec().test
    answers = [model.predict(text) for text in tests.texts[:100]]
    right = [found.value for found in answers] == np.array(model.settings["classes"])[
        tests.labels[:100]
    ]
    assert 100 * np.mean(right) > 65
    assert np.mean([found.unlike for found in answers]) < 0.15
    finnish = "missä on lähin rautatieasema", "kissa nukkuu sohvalla olohuoneessa"
    assert all(model.predict(text).unlike for text in finnish)
    capsys.readouterr()
    assert asking.main([str(tmp_path), "--text", "Where is Paris ?"]) == 0
    assert capsys.readouterr().out == "LOC\n"
    assert asking.main([str(tmp_path), "--text", " "]) == 1
    assert "--text: the text is empty" in capsys.readouterr().err


@pytest.fixture
def texts(monkeypatch):
    """Replace the SMS data set by a few generated texts."""
    good, bad = "see you at home tonight, dear", "WIN 500 now! call 0800 and claim"
    words = [good.split(), bad.split()]
    rng = np.random.default_rng(0)
    draw = lambda label: " ".join(rng.choice(words[label], rng.integers(2, 7)))
    labels = np.arange(24, dtype=np.int32) % 2
    parts = [data.LabelledTexts([*map(draw, labels)], labels) for _ in range(3)]
    found = data.TextClasses(("ham", "spam"), *parts)
    monkeypatch.setitem(categorise_texts.SETS, "sms_spam", lambda: found)
    return found


def test_texts_that_look_alike_are_split_alike():
    composed, apart = "Café déjà 5€", "Cafe\u0301 de\u0301ja\u0300 5€"
    hidden = "Ca\u200bfé dé\u00adjà\ufeff 5\u2060€"
    for kind in text_units.KINDS:
        expected = text_units.split(composed, kind)
        assert text_units.split(apart, kind) == expected
        assert text_units.split(hidden, kind) == expected
    assert text_units.split(apart, "words") == ["Café", "déjà", "0", "€"]
    # Words and texts are compared after Unicode normalisation, so different Unicode
    # forms of a word are the same word.
    given = {"hashed": 0, "width": 1, "stride": 1}
    units = text_units.learn_units([apart], "words", **given)
    one, other = (text_units.encode(units, [t], 9) for t in (composed, hidden))
    np.testing.assert_array_equal(one.symbols, other.symbols)
    assert (one.symbols[:, 0] >= text_units.FIRST).all()
    assert data.same_form(apart) == data.same_form(hidden) == "café déjà 5"


SMALL: Any = {
    "sets": ("sms_spam",), "units_of": ("words",), "cell": "tanh", "units": 3,
    "embedding": 2, "hashed": 20, "steps": (40, 40), "batch": 4, "lengths": 1,
    "looks": 2,
}  # fmt: skip


def test_a_run_goes_on_after_ctrl_c(texts, tmp_path, monkeypatch):
    # Skip the plots, which another test checks.
    monkeypatch.setattr(report, "save_picture", lambda *_: None)
    config = categorise.Config(out=tmp_path / "whole", **SMALL)
    whole = categorise.main(config).rows
    assert [row["job"] for row in whole] == ["sms_spam-logistic", "sms_spam-words"]
    assert len(whole[1]["accuracy"]) == len(whole[1]["f1"]) == 2
    assert whole[1]["curve"][-1]["accuracy"] == whole[1]["accuracy"]
    say, out = text_network.say, tmp_path / "cut"

    def interrupted(*args):  # simulates Ctrl-C at the first of two evaluations
        os.kill(os.getpid(), signal.SIGINT)
        return say(*args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(text_network, "say", interrupted)
    try:
        with pytest.raises(DataError, match="sms_spam-words is not trained yet"):
            categorise.main(dataclasses.replace(config, out=out, say="WIN"))
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(text_network, "say", say)
    result = categorise.main(categorise.Config(out=out, resume=True))
    for want, got in zip(whole, result.rows, strict=True):
        assert want.keys() == got.keys()
        assert {n: want[n] for n in want.keys() - TIMES} == {
            n: got[n] for n in got.keys() - TIMES
        }


@pytest.mark.slow
def test_the_ablation_tests_both_parts(texts, tmp_path, monkeypatch, capsys):
    small = SMALL | {"steps": (10, 10), "hashed": 20, "pairs": 20}
    every = ablation.variants(categorise.Config(**small))
    names = [
        "complete network",
        "no pairs of words",
        "no shortcut",
        "no parts of words",
    ]
    few = {name: every[name] for name in names}
    monkeypatch.setattr(ablation, "variants", lambda config: few)
    result = categorise.main(categorise.Config(ablation=True, out=tmp_path, **small))
    logistic, whole, *others = result.rows
    assert [row["variant"] for row in (whole, *others)] == names
    labels = texts.test.labels
    for row in result.rows:
        for part in ablation.PARTS.values():
            right = len(labels) * np.array(row[part]) / 100
            np.testing.assert_allclose(right, np.round(right), atol=1e-6)
    assert len(logistic["accuracy"]) == 1
    assert len(whole["also_accuracy"]) == 2
    # A variant has fewer weights if it has no pairs, no shortcut, or no parts of words.
    weights = {row["variant"]: whole["params"] - row["params"] for row in others}
    assert weights["no pairs of words"] == weights["no parts of words"] == 20 * 2
    assert weights["no shortcut"] == 2 * 2
    assert not [*(tmp_path / "checkpoints").iterdir()]
    assert (tmp_path / "ablation_sms_spam.png").stat().st_size > 10_000
    assert "On the validation part: " in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "On the test part: " in page


def test_conclusions_of_an_ablation():
    row = lambda name, *scores: {
        "variant": name, "accuracy": scores, "also_accuracy": [s + 1 for s in scores]
    }  # fmt: skip
    rows = [
        row("linear", 80.0), row("complete network", 90.0, 90.1, 90.2),
        row("no a", 85.0, 85.1, 85.3), row("no b", 89.0, 90.5, 91.0),
    ]  # fmt: skip
    first, second = ablation.conclusions(rows)
    assert first.startswith("On the validation part: Better than linear (80 %): the")
    assert first.endswith("no a: worse by 5.0 points.")
    assert second.startswith("On the test part: Better than linear (81 %)")
    assert ablation.conclusions(rows[:1]) == []


@pytest.mark.slow
def test_folders_saved_before_pairs_are_read(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "save_picture", lambda *_: None)
    plain = {"pairs": 0, "shortcut": (False, False)}
    categorise.main(categorise.Config(out=tmp_path, **SMALL, **plain))
    path = tmp_path / "model" / "model.json"
    text = path.read_text()
    want = experiments.load(tmp_path).predict("see you").probability
    saved = json.loads(text)
    assert saved["settings"]["shape"].pop() == 0
    path.write_text(json.dumps(saved))
    assert experiments.load(tmp_path).predict("see you").probability == want


def table(path, rows, mark=",", names=("class", "words")):
    lines = [mark.join(names), *(mark.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def test_a_csv_file_of_texts_is_learned(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "save_picture", lambda *_: None)
    path, rng = tmp_path / "texts.csv", np.random.default_rng(0)
    words = {"fruit": ["apple", "pear", "plum", "fig"], "été": ["sun", "sea", "sand"]}
    rows = [
        (name, f'"{" ".join(rng.choice(words[name], rng.integers(2, 9)))}, {i}"')
        for i, name in enumerate(120 * [*words])
    ]
    rows += [("fruit", ""), ("", "no class")]
    table(path, rows, ";")
    given = {"csv": path, "text": "words", "label": "class"}
    small = {"units": 8, "embedding": 8, "hashed": 32, "steps": (60, 60)}
    small |= {"units_of": ("words",), "batch": 16, "looks": 1, "lengths": 1}
    out = tmp_path / "run"
    result = categorise.main(categorise.Config(**given, **small, out=out))
    baseline, network = result.rows
    assert baseline["classes"] == ["fruit", "été"]
    assert min(baseline["accuracy"][0], network["accuracy"][0]) > 90
    found = categorise_texts.user_csv.read_csv(path, "words", "class")
    sizes = [len(part.texts) for part in found[1:]]
    assert sum(sizes) == 240
    np.testing.assert_allclose(sizes, [168, 24, 48], atol=20)
    capsys.readouterr()
    assert asking.main([str(out), "--text", "sea and sun"]) == 0
    assert capsys.readouterr().out.startswith("été")
    assert categorise.main(categorise.Config(out=out, resume=True)).rows == result.rows
    table(path, rows[:50], ";")
    with pytest.raises(DataError, match=r"--csv: .* has changed since the run"):
        categorise.main(categorise.Config(out=out, resume=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"text,label\n\xff,a\n", "is not text in UTF-8: .* at byte 11"),
        (b"a;b\n1;2\n", "has no column 'text' and no column 'label'; .* 'a', 'b'"),
        (b"text,b\n1,2\n", "has no column 'label'; its columns are 'text', 'b'"),
        (b"text,label\nx y,1\n", "has 1 texts of 1 classes; needed are at least 40"),
        (b"text,label\n" + b"some text,a\n" * 60, "has 60 texts of 1 classes"),
        (b"text,label\n" + b"same words,a\nsame words,b\n" * 40, "has too few"),
    ],
)
def test_csv_files_that_cannot_be_learned(content, message, tmp_path):
    path, out = tmp_path / "texts.csv", tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"--csv: .*{message}"):
        categorise.main(categorise.Config(csv=path, out=out))
    assert not out.exists()


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DataError, match="--say: the text is empty"):
        categorise.main(categorise.Config(say="\u200b \ufeff"))
    with pytest.raises(DataError, match="--say: the text is empty"):
        categorise.main(categorise.Config(say=text, out=out))
    assert not out.exists()
    units = text_units.learn_units(["a"], "words", hashed=0, width=1, stride=1)
    with pytest.raises(ValueError, match="must have some words, got"):
        text_units.encode(units, ["a", text], 5)


def read(texts, kind):
    units = text_units.learn_units(
        texts.train.texts, kind, hashed=20, width=3, stride=2
    )
    return units, text_units.encode(units, texts.train.texts, 20)


@pytest.mark.parametrize("kind", text_units.KINDS)
def test_batches_are_of_the_texts(texts, kind):
    _, encoded = read(texts, kind)
    given = {"batch": 4, "run": 2, "lengths": 3, "seed": 0}
    drawn = partial(text_units.batches, encoded, texts.train.labels, **given)
    draw = lambda start, rare: list(islice(drawn(start, rare=rare), 12))
    for want, got in zip(draw(0, 0.5)[7:], draw(7, 0.5), strict=False):
        jax.tree.map(np.testing.assert_array_equal, want, got)
    symbols = [encoded.symbols[each] for each in encoded.texts]
    unknown = 0
    for whole, part in zip(draw(0, 0.0), draw(0, 2.0), strict=True):
        xs, targets, weights, mask, own = whole
        assert (weights.sum(axis=0) == 1).all()
        assert (weights.argmax(axis=0) == mask.sum(axis=0) - 1).all()
        for i, length in enumerate(mask.sum(axis=0)):
            it = own[xs[:length, i]]
            like = [row for row, each in enumerate(symbols) if np.array_equal(each, it)]
            assert like
            assert targets[0, i] in texts.train.labels[like]
        changed = own != part[-1]
        # Only whole words are unknown; their character n-grams are known.
        assert not changed[:, 1:].any()
        unknown += changed.sum()
        assert set(part[-1][changed]) <= set(encoded.unknown)
    assert unknown > 10


def test_what_is_new_is_unknown_but_like_others(texts):
    units, _ = read(texts, "words")
    new, old = text_units.encode(units, ["calls call"], 9).symbols
    assert new[0] == text_units.UNKNOWN
    assert old[0] > text_units.UNKNOWN
    # The known word and the unknown word share the character n-grams "<ca", "cal" and
    # "all".
    assert set(new[1:4]) & set(old[1:4])
    units, _ = read(texts, "characters")
    table = text_units.encode(units, ["é"], 9)
    assert table.symbols[:, 0].tolist() == [text_units.UNKNOWN, 0, 0]
    assert units.size == 3 * (2 + len(units.counts))


def test_pairs_of_neighbouring_words_have_indices():
    given = {"hashed": 50, "width": 1, "stride": 1, "pairs": 1000}
    units = text_units.learn_units(["is it so"], "words", **given)
    encoded = text_units.encode(units, ["is it", "It is it"], 9)
    first, second = (encoded.symbols[text[:, 0]] for text in encoded.texts)
    # "it" after "is" is one symbol, and "It" as the first word is another one.
    np.testing.assert_array_equal(first[1], second[2])
    assert second[0, 0] == second[2, 0]
    pairs = [*first[:, -1], *second[:2, -1]]
    assert len({*pairs}) == 4
    assert units.size - 1000 <= min(pairs) <= max(pairs) < units.size
    # Words and their parts have the same indices as without pairs.
    without = text_units.encode(units._replace(pairs=0), ["is it"], 9)
    np.testing.assert_array_equal(without.symbols, first[:, :-1])


@pytest.mark.parametrize(
    ("kind", "pooling", "shortcut"),
    [("words", "mean", True), ("characters", "max", False)],
)
def test_padding_is_not_read(texts, kind, pooling, shortcut):
    """Compare the gradient of a padded batch with gradients of single texts."""
    units, encoded = read(texts, kind)
    sizes = {"embedding": 3, "units": 4, "classes": 2, "runs": 2, "shortcut": shortcut}
    params = text_network.init_runs(
        jax.random.key(0), "gru", indices=units.size, **sizes
    )
    one = jax.tree.map(lambda leaf: leaf[1], params)
    few = encoded._replace(texts=encoded.texts[:3])
    labels = texts.train.labels[:3]
    assert len({*map(len, few.texts)}) > 1

    def logits(params, text):
        there = (encoded.symbols[text] != 0)[..., None]
        count = np.maximum(there.sum(axis=-2), 1).astype(np.float32)
        x = (params["E"][encoded.symbols[text]] * there).sum(axis=-2) / count**0.5
        x = x[:, 0] if kind == "words" else jax.nn.relu(x.sum(axis=1))
        advance = CELLS["gru"]
        _, h = gradients.unroll(advance, params["cell"], jnp.zeros(4), x)
        pooled = h.mean(axis=0) if pooling == "mean" else h.max(axis=0)
        output = pooled @ params["readout"] + params["readout_bias"]
        if shortcut:
            output += x.sum(axis=0) @ params["shortcut"] / np.float32(len(x) ** 0.5)
        return output

    def loss(params):
        ys = jnp.stack([logits(params, text) for text in few.texts])
        return jnp.mean(text_network.cross_entropy(ys, labels)), jax.nn.softmax(ys)

    (want, likely), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(one)
    together = text_network.say(params, "gru", pooling, few)
    np.testing.assert_allclose(together[1], likely, rtol=1e-5)
    given = {"batch": 3, "run": 1, "lengths": 1, "rare": 0.0, "seed": 0}
    xs, *rest = next(text_units.batches(few, labels, 0, **given))
    rule = jax.jit(
        text_network.make_rule("bptt", "gru", pooling, lookback=1, dropout=0.0)
    )
    (value, _), grads = rule(one, xs, *rest)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, grads, slope)
    other = np.where(rest[2][..., None], xs, 1)  # change the inputs in padding
    assert (other != xs).any()
    again = rule(one, other, *rest)
    jax.tree.map(np.testing.assert_array_equal, again, ((value, None), grads))


def test_dropout(texts):
    units, encoded = read(texts, "words")
    params = text_network.init_runs(
        jax.random.key(0), "tanh", indices=units.size, embedding=3, units=4, classes=2,
        runs=1, shortcut=True,
    )  # fmt: skip
    one = jax.tree.map(lambda leaf: leaf[0], params)
    masks = text_network.draw_masks(jax.random.key(1), one, 60, 90, 0.4)
    assert [each.shape for each in masks] == [(60, 90, n) for n in (3, 4, 3)]
    assert (masks.pooled == masks.pooled[:1]).all()
    assert (masks.bag == masks.bag[:1]).all()
    assert (masks.inputs != masks.inputs[:1]).any()
    for each in masks:
        assert np.mean(each == 0) == pytest.approx(0.4, abs=0.08)
        np.testing.assert_allclose(each[each > 0], 1 / 0.6, rtol=1e-6)
    assert not np.array_equal(masks.inputs, masks.bag)
    given = {"batch": 3, "run": 1, "lengths": 1, "rare": 0.0, "seed": 0}
    drawn = next(text_units.batches(encoded, texts.train.labels, 0, **given))
    rule = lambda dropout: jax.jit(
        text_network.make_rule("bptt", "tanh", "max", lookback=1, dropout=dropout)
    )
    dropped, _ = rule(0.999)(one, *drawn, key=jax.random.key(2))
    # Almost everything is zero, so that the output is the bias.
    np.testing.assert_allclose(dropped[0], np.log(2), atol=1e-5)
    whole, _ = rule(0.0)(one, *drawn)
    assert abs(float(whole[0]) - np.log(2)) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("sms",)}, "sets must be some of sms_spam, trec"),
        ({"units_of": ("word",)}, "Did you mean 'words'"),
        ({"units_of": ()}, "units_of must have one value at least"),
        ({"cell": "rnn"}, "cell must be one of"),
        ({"pooling": "sum"}, "pooling must be one of mean, max, last"),
        ({"dropout": (0.1, 1.0)}, r"dropout must be in \[0, 1\)"),
        ({"rare": -1.0}, "rare must be at least 0, got -1.0"),
        ({"steps": (5, 0)}, "steps must be at least 1"),
        ({"pairs": -1}, "pairs must be at least 0, got -1"),
        ({"scale": (0.1, -0.1)}, "scale must be at least 0"),
        ({"ablation": True, "say": "WIN"}, "ablation and say exclude each other"),
        ({"longest": (0, 5)}, "longest must be at least 1"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        categorise.Config(**options)
