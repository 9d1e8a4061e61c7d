"""Tests of the study images: errors of classifiers, and resuming after Ctrl-C."""

import dataclasses
import os
import signal
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import experiments
from experiments import asking, data
from experiments.applications.images import networks, study as images
from experiments.harness.errors import DataError

TIMES = {"wall_seconds", "compile_seconds", "ms_per_step"}


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.mark.data
def test_images_quick(check_run, fast, tmp_path, capsys):
    names = ("mlp_300", "full_batch")
    result = images.main(images.Config(networks=names, quick=True, out=tmp_path))
    check_run(result, tmp_path, ["images", "mistakes"])
    labels = data.mnist().test[1][:1000]
    majority = 100 * (1 - np.bincount(labels).max() / 1000)
    errors = {row["job"]: row["test_error"][0] for row in result.rows}
    # A linear classifier trained on all MNIST training images has a test error of 12 %.
    assert max(errors.values()) < 15 < majority
    printed = capsys.readouterr().out
    assert "4.7" in printed
    assert "4.85" in printed
    assert "no statement about differences in test error" in printed
    for row in result.rows:
        assert row["curve"][-1]["test_error"] == row["test_error"]
        for i, said in row["mistakes"]:
            assert said != labels[i]
    check_answers(tmp_path, capsys)


def check_answers(out, capsys):
    """Ask the model of a run about digits, and about pictures that are none."""
    model, (images_, labels) = experiments.load(out), data.mnist().test
    some = slice(2000, 2200)
    answers = [model.predict(image) for image in images_[some]]
    assert np.mean([answer.value for answer in answers] == labels[some]) > 0.8
    assert np.mean([answer.unlike for answer in answers]) < 0.12
    path = out / "digit.png"
    right = []
    for image, label in zip(images_[some][:40], labels[some], strict=False):
        # dark ink on light paper, off centre, and larger than in MNIST
        large = np.kron(np.pad(image, ((3, 20), (40, 5))), np.ones((5, 5)))
        Image.fromarray(np.uint8(240 - 200 * large)).save(path)
        right.append(model.predict(path).value == label)
    assert np.mean(right) > 0.75
    capsys.readouterr()
    assert asking.main([str(out), "--png", str(path)]) == 0
    assert capsys.readouterr().out == f"{model.predict(path)}\n"
    for name, pictures in strange_pictures(out).items():
        unlike = np.mean([model.predict(picture).unlike for picture in pictures])
        assert unlike >= (0.3 if name == "letters" else 1), name
    path.write_bytes(b"no picture")
    assert asking.main([str(out), "--png", str(path)]) == 1
    assert "cannot be read as a picture" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"the image must be \[28, 28\]"):
        model.predict(np.zeros((8, 8)))


def strange_pictures(folder):
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:120, :160] / 160
    arrays = {
        "noise": [rng.uniform(size=(side, side)) for side in (28, 100, 300)],
        "blank": [np.full((50, 50), value) for value in (0, 0.5, 1)],
        "gradients": [x, y, 0.5 + 0.3 * np.sin(9 * x) + 0.2 * np.cos(7 * y)],
        "letters": [_letter(letter) for letter in "ABEFGHKMNRWX"],
    }
    found = {}
    for name, grey in arrays.items():
        found[name] = [folder / f"{name}-{i}.png" for i in range(len(grey))]
        for path, each in zip(found[name], grey, strict=True):
            Image.fromarray(np.uint8(255 * each)).save(path)
    return found


def _letter(letter):
    font = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
    picture = Image.new("L", (200, 240), 255)
    font = ImageFont.truetype(font, 160)
    ImageDraw.Draw(picture).text((40, 10), letter, font=font, fill=0)
    return np.asarray(picture) / 255


@pytest.fixture
def noise(monkeypatch):
    """Replace MNIST by twenty images of random noise."""
    pixels = np.random.default_rng(0).uniform(size=(20, 28, 28)).astype(np.float32)
    found = pixels, np.arange(20, dtype=np.int32) % 10
    monkeypatch.setattr(data, "mnist", lambda: data.MNIST(found, found))


SMALL: Any = {
    "epochs": 2,
    "batch": 5,
    "train": 20,
    "units": 3,
    "looks": 4,
    "full_batch_epochs": 4,
}


def test_a_run_goes_on_after_ctrl_c(check_run, noise, tmp_path, monkeypatch):
    names = ("full_batch", "gru_rows")
    config = images.Config(networks=names, seeds=1, out=tmp_path / "whole", **SMALL)
    whole = images.main(config).rows
    count, say = [], images._say

    def interrupted(*args):
        count.append(1)
        # Each network prints four evaluations and one result, so the seventh printed
        # line comes during the training of the second network.
        if len(count) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return say(*args)

    # A shell may start a background process with SIGINT ignored, so restore the
    # handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(images, "_say", interrupted)
    out = tmp_path / "cut"
    try:
        result = images.main(dataclasses.replace(config, out=out))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.interrupted
    assert [row["job"] for row in result.rows] == ["full_batch"]
    with (out / "results.jsonl").open("a") as file:
        # Simulate a process that was killed while it wrote a row.
        file.write('{"job": "gru_')
    with pytest.raises(DataError, match="add --resume to go on with it"):
        images.main(images.Config(out=out))
    with pytest.raises(DataError, match=r"batch=7 differs from .* which has 5"):
        images.main(images.Config(out=out, resume=True, batch=7))
    assert len(count) == 7
    result = images.main(images.Config(out=out, resume=True))
    assert len(count) == 7 + 3  # The resumed run repeats no finished evaluation.
    check_run(result, out, ["images", "mistakes"])
    for want, got in zip(whole, result.rows, strict=True):
        assert want.keys() == got.keys()
        assert {n: want[n] for n in want.keys() - TIMES} == {
            n: got[n] for n in got.keys() - TIMES
        }
    with pytest.raises(DataError, match="holds no run to resume"):
        images.main(images.Config(out=tmp_path / "no", resume=True))


def test_convolutions_are_those_of_xla():
    layer = networks.NETWORKS["conv"][1]
    pixels = jax.random.uniform(jax.random.key(0), (2, 14, 14, 16))
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 16, 32))
    got = layer.function({"weights": kernel, "bias": jnp.ones(32)}, pixels)
    want = jax.lax.conv_general_dilated(
        pixels, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(got, want + 1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"), [("mlp_300", "fa"), ("mlp_500_150", "dfa"), ("conv", "usf")]
)
def test_images_by_feedback_alignment(noise, name, kind):
    network = networks.make_network(
        name, rule="bptt", static_rule=kind, lookback=1, units=1
    )
    params = network.init(jax.random.key(0))
    pixels, labels = map(jnp.asarray, data.mnist().train)
    (value, _), grads = jax.jit(network.rule)(params, pixels, labels)
    exact = lambda params: jnp.mean(
        networks.cross_entropy(network.logits(params, pixels), labels)
    )
    want, right = jax.jit(jax.value_and_grad(exact))(params)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    same = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), grads, right)
    # The gradient of the last layer is exact, because this layer needs no feedback
    # weights.
    assert all(same[-1].values())
    assert not same[0]["weights"]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (images.Config, {"networks": ("lenet",)}, "networks must be some of mlp_300"),
        (images.Config, {"networks": ()}, "networks must have one value at least"),
        (images.Config, {"static_rule": "bp"}, "static_rule must be one of backprop"),
        (images.Config, {"update": "addam"}, "Did you mean 'adam'"),
        (images.Config, {"looks": 0}, "looks must be at least 1, got 0"),
        (images.Config, {"train": 60_001}, "train must be at most 60000, .* got 60001"),
        (images.Config, {"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
