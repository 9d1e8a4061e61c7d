"""Tests of the study translate: networks against plain loops, and printed results."""

import itertools
import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from experiments import asking
from experiments.applications.translate import (
    losses,
    network,
    runs as translate_runs,
    study as translate,
    text as translate_text,
)
from experiments.applications.translate.losses import Batch
from experiments.applications.translate.network import END, How, Sizes, UNKNOWN
from experiments.harness.errors import DataError
from tests.experiments.resuming import check_resumed

SIZES = Sizes(source_words=7, target_words=6, embedding=4, units=3)
HOW = How()
SOURCES, TARGETS = [[2, 3, 4, 0], [1, 0]], [[3, 0], [2, 1, 0]]


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def precise():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def make_batch(sources=SOURCES, targets=TARGETS, more=0, garbage=0):
    """Return a batch of sentences, padded to the longest sentence plus `more` words."""
    arrays = []
    for side in (sources, targets):
        length = max(map(len, side)) + more
        mask = np.arange(length)[:, None] < [len(each) for each in side]
        words = np.full(mask.shape, garbage, np.int32)
        for i, each in enumerate(side):
            words[: len(each), i] = each
        arrays += [words, mask]
    return Batch(*arrays)


def make_params(attention="additive"):
    sizes = SIZES._replace(attention=attention)
    params = network.init(jax.random.key(0), sizes)
    # Scale and shift the parameters so that no bias is zero.
    return jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params)


def by_hand(params, source, target, attention, own=False):
    """Return the loss of each word of one sentence, by a plain loop without padding."""
    encoder, decoder = params["encoder"], params["decoder"]
    zeros = np.zeros(SIZES.units)
    states = {"forward": [], "backward": []}
    for name, order in (("forward", source), ("backward", source[::-1])):
        h = zeros
        for word in order:
            h = gru(encoder[name], h, encoder["words"][word])
            states[name].append(h)
    last = jnp.concatenate([states["forward"][-1], states["backward"][-1]])
    pairs = zip(states["forward"], states["backward"][::-1], strict=True)
    memory = [jnp.concatenate(pair) for pair in pairs]
    g = jnp.tanh(last @ encoder["first"] + encoder["first_bias"])
    before, found, said = END, [], []
    for word in target:
        scores = [
            jnp.tanh(g @ decoder["query"] + m @ decoder["key"]) @ decoder["energy"]
            if attention == "additive"
            else g @ (m @ decoder["key"])
            for m in memory
        ]
        powers = [jnp.exp(score) for score in scores]
        shares = [power / sum(powers) for power in powers]
        context = sum(share * m for share, m in zip(shares, memory, strict=True))
        read = decoder["words"][before]
        g = gru(decoder["cell"], g, jnp.concatenate([read, context]))
        mixed = jnp.concatenate([g, context, read]) @ decoder["mix"]
        f = jnp.tanh(mixed + decoder["mix_bias"])
        likely = decoder["words"] @ f + decoder["bias"]
        found.append(jnp.log(jnp.sum(jnp.exp(likely))) - likely[word])
        if own:
            known = [i for i in range(len(likely)) if i != UNKNOWN]
            said.append(max(known, key=lambda i, likely=likely: float(likely[i])))
        before = said[-1] if own else word
    return found, said


def gru(params, h, x):
    """Return the next state of a GRU, with the equations of torch.nn.GRUCell."""
    of_x = jnp.split(x @ params["inputs"] + params["bias"], 3)
    of_h = jnp.split(h @ params["recurrent"], 3)
    sigmoid = lambda x: 1 / (1 + jnp.exp(-x))
    r, z = (sigmoid(of_x[i] + of_h[i]) for i in (0, 1))
    n = jnp.tanh(of_x[2] + r * (of_h[2] + params["candidate_bias"]))
    return (1 - z) * n + z * h


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_losses_and_gradients_are_those_by_hand(precise, attention):
    params, batch = make_params(attention), make_batch(more=2, garbage=2)
    assert jax.tree.leaves(params)[0].dtype == jnp.float64
    how = How(attention)

    def plain(params):
        pairs = zip(SOURCES, TARGETS, strict=True)
        known = [
            loss
            for source, target in pairs
            for loss, word in zip(
                by_hand(params, source, target, attention)[0], target, strict=True
            )
            if word != UNKNOWN
        ]
        return sum(known) / len(known)

    want, grads = jax.value_and_grad(plain)(params)
    rule = jax.jit(losses.make_rule(how))
    (value, _), got = rule(params, *batch, key=jax.random.key(0))
    np.testing.assert_allclose(value, want, rtol=1e-12)
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, got, grads)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got))


def test_own_words_are_read_and_padding_is_not(precise):
    """Check that the decoder reads its own words, and that padding has no effect.

    In a translation, the decoder's most likely word is both the next word of the
    translation and the decoder's next input. Losses, translation and attention of a
    sentence must be equal if the sentence is alone, in a padded batch, or processed by
    a plain loop.
    """
    params = make_params()

    @jax.jit
    def run(batch):
        encoded = network.encode(params, batch.source, batch.source_mask, None, HOW)
        forced = jnp.zeros(batch.target.shape, bool).at[0].set(True)
        each = losses.losses(params, encoded, batch, HOW, forced=forced)
        return each, *losses.greedy(params, encoded, HOW, 4)

    each, words, shares = run(make_batch([*SOURCES, []], [*TARGETS, []], 3, garbage=5))
    for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want, _ = by_hand(params, source, target, "additive", own=True)
        np.testing.assert_allclose(each[: len(want), i], want, rtol=1e-12)
        _, said = by_hand(params, source, [0] * 4, "additive", own=True)
        assert words[:, i].tolist() == said
        np.testing.assert_allclose(shares[:, : len(source), i].sum(axis=1), 1)
        assert not shares[:, len(source) :, i].any()
    assert not (words == UNKNOWN).any()
    # Attention weights are finite even if the source is only padding.
    assert np.isfinite(shares).all()
    want, same, to = run(make_batch(SOURCES[1:], TARGETS[1:]))
    np.testing.assert_allclose(each[:3, 1], want[:, 0], rtol=1e-12)
    np.testing.assert_allclose(shares[:, :2, 1], to[..., 0], rtol=1e-12)
    assert words[:, 1].tolist() == same[:, 0].tolist()


def test_rules_of_translation(precise):
    params, batch = make_params("dot"), make_batch()

    def run(*rule):
        made = jax.jit(losses.make_rule(How("dot", *rule)))
        return made(params, *batch, key=jax.random.key(0))

    (value, _), grads = want = run("bptt")
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, run("bptt_step"), want)
    (cut_value, _), cut = run("truncated_bptt", 1)
    np.testing.assert_allclose(cut_value, value, rtol=1e-12)
    for side, name in (("encoder", "forward"), ("decoder", "cell")):
        exact = grads[side][name]["recurrent"]
        assert np.abs(cut[side][name]["recurrent"] - exact).max() > 1e-3
    # Truncated BPTT in the decoder does not stop the gradients that pass from the first
    # decoder state to the encoder.
    cuts = network.cuts(jnp.zeros((5, 1)), How("dot", "truncated_bptt", 2))
    assert np.ravel(cuts).tolist() == [False, False, True, False, True]


def test_dropout_and_forcing_are_drawn():
    params, batch = make_params(), make_batch()
    rule = jax.jit(losses.make_rule(HOW, forcing=0.5, dropout=0.3))
    values = {
        float(rule(params, *batch, key=jax.random.key(seed))[0][0]) for seed in range(4)
    }
    assert len(values) == 4


TRAIN = [("un chat", "a cat"), ("un chien", "a dog"), ("le chat", "the cat")]
TRAIN += [("un petit chat", "a small cat"), ("un matou", "a cat")]


def test_batches_of_pairs():
    corpus = translate_text.make_corpus(TRAIN, [], [])
    numbers = translate_text.part_to_numbers(TRAIN, corpus)
    given = {"batch": 4, "run": 2, "lengths": 2, "seed": 0}
    draw = partial(translate_text.batches, numbers, forget=0.5, **given)
    drawn = [Batch(*each) for each in itertools.islice(draw(0), 30)]
    for want, got in zip(drawn[7:12], draw(7), strict=False):
        jax.tree.map(np.testing.assert_array_equal, want, Batch(*got))
    lost = []
    for batch in drawn:
        for i in range(4):
            target = batch.target[batch.target_mask[:, i], i]
            source = batch.source[batch.source_mask[:, i], i]
            english = translate_text.to_text(target, corpus.target_words)
            fits = [
                x
                for x, (_, right) in zip(numbers.source, TRAIN, strict=True)
                if right == english
                and len(x) == len(source)
                and ((x == source) | (source == UNKNOWN)).all()
            ]
            assert fits
            assert source[-1] == END
            lost += (source[:-1] == UNKNOWN).tolist()
    assert 0.4 < np.mean(lost) < 0.6


def test_baselines_of_translation():
    said = translate_text.nearest(TRAIN, ["le petit chat", "un chien noir"])
    assert said == ["a small cat", "a dog"]
    assert translate_text.most_common(TRAIN, ["le chien"] * 2) == ["a cat"] * 2
    scores = translate_text.score(["a b c d e", "a"], ["a b c d f", "a"])
    # Matching n-grams: 5 of 6 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples.
    assert scores["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 4 * 2 / 3 / 2) ** 0.25)
    assert scores["exact"] == 50
    assert scores["low"] < scores["bleu"] < scores["high"] <= 100


@pytest.mark.data
def test_translate_quick(fast, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(translate_text, "load", cache(translate_text.load))
    out = tmp_path / "run"
    config = translate.Config(
        quick=True, steps=200, looks=1, out=out, translate="Je suis fatigué zzz."
    )
    result = translate.main(config)
    lines = (out / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for picture in ("translate", "attention"):
        assert (out / f"{picture}.png").stat().st_size > 10_000
    baselines, row = result.rows
    assert row["bleu"][0] > 3 * baselines["most_common"]["bleu"]
    assert baselines["nearest"]["bleu"] > 20
    assert row["forced_nats"][0] < 3.2 < np.log(2700)
    printed = capsys.readouterr().out
    (answer,) = (line for line in printed.splitlines() if "zzz →" in line)
    assert answer.startswith("je suis fatigue zzz → i m ")
    assert "Unknown words, not in training: zzz." in printed
    assert "One seed: no statement about differences in BLEU" in printed
    for each in row["examples"]:
        read = 1 + len(each["source"].split())
        np.testing.assert_allclose(np.sum(each["shares"], axis=1), 1, atol=0.01)
        assert np.shape(each["shares"])[1] == read
    again = translate.Config(out=out, resume=True, translate="je suis fatigue zzz")
    assert translate.main(again).rows == result.rows
    assert answer in capsys.readouterr().out
    strange = translate.Config(out=out, resume=True, translate="zzz yyy")
    with pytest.raises(DataError, match="none of the words of 'zzz yyy' occurs"):
        translate.main(strange)
    check_resumed(translate.main, translate.Config(out=out), result)
    model = experiments.load(out)
    found = model.predict("Je suis fatigué zzz.")
    assert f"je suis fatigue zzz → {found.value}" in answer
    capsys.readouterr()
    assert asking.main([str(out), "--text", "elle est professeur"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("she is ") or said.startswith("she s ")
    german = "die Kinder spielen im Garten", "wo ist der nächste Bahnhof"
    assert all(model.predict(text).unlike for text in german)
    assert asking.main([str(out), "--text", "je " * 10]) == 1
    assert "--text: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' has no words; give a sentence"),
        (" 12, ", "' 12, ' has no words"),
        ("je " * 10, "has 10 words; networks learn from sentences of up to 9"),
    ],
)
def test_sentences_that_cannot_be_translated(tmp_path, text, message):
    out = tmp_path / "run"
    with pytest.raises(DataError, match=f"--translate: .*{message}"):
        translate.main(translate.Config(out=out, translate=text))
    assert not out.exists()


def test_a_sentence_is_read_as_it_looks():
    hidden, apart = "Ça n\u200b'est pas vr\u00adai", "C\u0327a n'est pas vrai"
    for sentence in (hidden, apart):
        assert translate_runs.read_sentence(sentence) == "ca n est pas vrai"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "german"}, "to must be one of english, french"),
        (
            {"rule": "rtrl"},
            "rule must be one of bptt, .*; got 'rtrl'. Rules of one net",
        ),
        ({"attention": "luong"}, "attention must be one of additive, dot"),
        ({"update": "addam"}, "Did you mean 'adam'"),
        ({"forcing": ()}, r"forcing must be .* in \[0, 1\], got none"),
        ({"forcing": (1.5,)}, r"forcing must be .* got 1\.5"),
        ({"forcing": (0.5, 0.5)}, "forcing must be one or more different"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ({"lookback": 0}, "lookback must be at least 1, got 0"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_options_of_translate_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        translate.Config(**options)
