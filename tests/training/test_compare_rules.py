"""Tests of the comparison of gradient rules by loss, memory and angle."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

from bpvariants import diagnostics, gradients, training

SGD = optax.sgd(0.05)


def step(w, h, x):
    h = jnp.tanh(h @ w["h"] + x @ w["x"])
    return h, h


loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
PARAMS = {"h": draw(0, 3, 3), "x": draw(1, 2, 3)}
BATCH = jnp.zeros((4, 3)), draw(2, 6, 4, 2), draw(3, 6, 4, 3)


@pytest.fixture(scope="module")
def found():
    rules = {
        "bptt": gradients.bptt(step, loss),
        "truncated": gradients.truncated_bptt(step, loss, every=1, lookback=1),
        "rtrl": gradients.rtrl(step, loss),
    }
    return rules, training.compare(rules, SGD, PARAMS, BATCH, steps=6, chunk=3)


@pytest.mark.slow
def test_scores_are_those_of_fit_and_of_diagnostics(found):
    rules, result = found
    for name in ("bptt", "truncated"):
        score = result.scores[name]
        alone = training.fit(rules[name], SGD, PARAMS, BATCH, steps=6, chunk=3)
        np.testing.assert_array_equal(score.result.values, alone.values)
        assert score.loss == alone.values[-1]
        for params, cosine in (
            (PARAMS, score.cosine),
            (alone.params, score.cosine_after),
        ):
            agrees = diagnostics.compare(rules["bptt"], rules[name], params, *BATCH)
            assert cosine == pytest.approx(float(agrees.total.cosine), rel=1e-9)
    assert result.scores["rtrl"].cosine == pytest.approx(1, abs=1e-12)
    assert 0 < result.scores["truncated"].cosine < 0.999
    assert all(score.seconds > 0 for score in result.scores.values())
    assert all(score.temp_bytes > 0 for score in result.scores.values())


def test_the_table_and_the_picture_have_each_rule(found):
    _, result = found
    lines = result.table().splitlines()
    assert lines[0].split() == ["rule", "loss", "ms/step", "KiB", "cosine", "after"]
    assert [line.split()[0] for line in lines[1:]] == ["bptt", "truncated", "rtrl"]
    axes = result.plot(Figure().subplots())
    assert [text.get_text() for text in axes.texts] != []
    labels = {text.get_text() for text in axes.texts}
    assert labels == {"bptt", "truncated", "rtrl (as bptt)"}
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert np.diff(heights).min() > 0.07  # labels do not overlap
    assert "bptt: loss" in repr(result)


@pytest.mark.slow
def test_rules_that_draw_and_mini_batches():
    rules = {"bptt": gradients.bptt(step, loss), "uoro": gradients.uoro(step, loss)}
    sample = lambda key, data: (
        jnp.zeros((2, 3)),
        *(jax.random.choice(key, leaf, (2,), axis=1) for leaf in data),
    )
    options = {"steps": 3, "sample": sample, "key": jax.random.key(0)}
    result = training.compare(rules, SGD, PARAMS, BATCH[1:], **options)
    alone = training.fit(rules["bptt"], SGD, PARAMS, BATCH[1:], **options)
    np.testing.assert_array_equal(result.scores["bptt"].result.values, alone.values)
    assert result.scores["bptt"].cosine == pytest.approx(1, abs=1e-12)
    assert -1 < result.scores["uoro"].cosine < 0.99
    listed = [BATCH, BATCH, BATCH]
    of_list = training.compare({"bptt": rules["bptt"]}, SGD, PARAMS, listed, steps=3)
    whole = training.compare({"bptt": rules["bptt"]}, SGD, PARAMS, BATCH, steps=3)
    assert of_list.scores["bptt"].loss == whole.scores["bptt"].loss


@pytest.mark.slow
def test_a_rule_that_diverges_does_not_end_the_others():
    square = lambda w: (jnp.sum(w**4), None)
    good = jax.value_and_grad(square, has_aux=True)
    bad = lambda w: (good(w)[0], -1e3 * good(w)[1])
    result = training.compare(
        {"good": good, "bad": bad}, SGD, jnp.ones(2), (), steps=30
    )
    assert result.scores["bad"].result.stopped == "nonfinite"
    assert math.isfinite(result.scores["good"].loss)
    assert result.scores["bad"].cosine == pytest.approx(-1)
    lines = result.table().splitlines()
    assert lines[0].split()[-1] == "ended"
    assert lines[2].split()[-1] == "nonfinite"
    result.plot(Figure().subplots())


def test_an_error_names_the_rule():
    fails = lambda w: "a" + 1
    with pytest.raises(TypeError) as found:
        training.compare({"mine": fails}, SGD, jnp.ones(2), (), steps=1)
    assert "the rule 'mine' in training.compare" in "".join(found.value.__notes__)
