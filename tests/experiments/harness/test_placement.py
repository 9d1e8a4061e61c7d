"""Tests of the options --devices and --precision of studies that train."""

import ast
import dataclasses
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import training
from experiments import __main__ as command, _machine
from experiments.harness import devices
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Way
from experiments.harness.placement import local_devices
from experiments.harness.precision import PRODUCTS, products_in
from experiments.harness.study import run_study, TrainingStudy
from experiments.through_time import copy_adding, flow

ROOT = pathlib.Path(command.__file__).parent
OTHERS = {  # studies that call fit or sweep, but have no such options
    "benchmarks",  # times are compared on one device
    "char_lm",  # has more options, those of `Machine`
    "yin_yang",  # its networks have at most 120 hidden units
    "kill_resume",  # kills a training, which is the same on every device
}
# Fields of rows that depend on the number of devices.
TIMES = ("wall_seconds", "ms_per_step", "compile_seconds", "temp_bytes")


def trains(name):
    """Return whether the files of a study call `fit`, `sweep` or `windows.train`."""
    module = command.STUDIES[name][0].replace(".", "/")
    path = ROOT / f"{module}.py"
    folder = path.parent if name in path.parent.name else None
    if not path.exists():
        folder = ROOT / module
    if name == "compare":
        folder = ROOT / "compare"
    files = [path] if folder is None else folder.glob("*.py")
    if name == "kill_resume":
        files = [path, path.with_name("_killed_run.py")]
    calls = {"way.fit", "training.fit", "training.sweep", "windows.train"}
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in calls
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
    )


def test_every_study_that_trains_has_the_options():
    found = {name for name in command.STUDIES if trains(name)}
    assert found == {*_machine.TRAIN, *OTHERS}
    for name in command.STUDIES:
        config = importlib.import_module(
            f"experiments.{command.STUDIES[name][0]}"
        ).Config
        assert issubclass(config, TrainingStudy) == (name in _machine.TRAIN), name
        if name in _machine.TRAIN:
            options = {field.name for field in dataclasses.fields(config)}
            assert {"devices", "precision"} <= options
            assert config(devices=2, precision="bfloat16").devices == 2
            with pytest.raises(ValueError, match="devices must be at least 1, got 0"):
                config(devices=0)
            with pytest.raises(
                ValueError, match=r"precision must be one of default, .*'float33'.* Did"
            ):
                config(precision="float33")


def test_more_devices_than_there_are():
    assert local_devices(4) == jax.local_devices()
    assert len(local_devices(None)) == 1
    words = r"--devices 5 is more than the 4 devices.*jax_num_cpu_devices\", 5\) before"
    with pytest.raises(DataError, match=words):
        local_devices(5)


def train(folder, devices, runs, batch=8, over=(1, 1, None)):
    """Train a small network on several devices; return its params and its losses."""
    key = jax.random.key(0)
    params = 0.3 * jax.random.normal(key, (2, 3) if runs is None else (runs, 2, 3))

    def rule(w, xs, targets, scale):
        def loss(w):
            return jnp.mean((jnp.tanh(xs @ w) - targets) ** 2) * scale, None

        return jax.value_and_grad(loss, has_aux=True)(w)

    def sample(key, data):
        of_x, of_target = jax.random.split(key)
        xs = jax.random.normal(of_x, (5, batch, 2))
        return xs, jax.random.normal(of_target, (5, batch, 3)), data[0]

    way = Way("job", folder, devices=devices)
    return way.fit(
        rule, optax.sgd(0.1, momentum=0.9), params, (jnp.array(2.0),),
        steps=20, chunk=10,
        sample=sample, key=jax.random.key(1), runs=runs, over=over,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "devices", "spread"),
    [(4, 4, True), (4, 2, True), (None, 4, False), (3, 4, False), (1, 2, False)],
)
def test_several_devices_equal_one(runs, devices, spread, tmp_path):
    """Divide runs over devices if they can be divided, otherwise divide batches."""
    one = train(tmp_path / "one", None, runs)
    many = train(tmp_path / "many", devices, runs)
    np.testing.assert_allclose(many.params, one.params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(many.values, one.values, rtol=1e-9)
    assert len(one.params.sharding.device_set) == 1
    assert len(many.params.sharding.device_set) == devices
    assert many.params.sharding.is_fully_replicated != spread


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(tmp_path):
    with pytest.raises(DataError, match="--devices 4 cannot divide the 3 networks"):
        train(tmp_path, 4, 3, over=None)
    with pytest.raises(DataError, match="--devices 4 cannot divide this training"):
        train(tmp_path, 4, None, over=None)


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ({"precision": "bfloat16"}, True),
        ({"precision": "bfloat16", "dtype": "bfloat16"}, False),
        ({"dtype": "bfloat16"}, False),
        ({}, False),
    ],
)
def test_precision_of_products_is_not_that_of_the_network(options, noted, capsys):
    with devices.Machine(**options).computing():
        pass
    said = capsys.readouterr().err
    assert ("the network computes in float32" in said) == noted
    assert ("choose --dtype bfloat16" in said) == noted


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("default", "DEFAULT"),
        ("float32", "HIGHEST"),
        ("tensorfloat32", "HIGH,"),
        ("bfloat16", "DEFAULT"),
    ],
)
def test_precision_is_that_of_products(precision, words, plain_jax):
    """Read the precision of a product in the program that XLA gets."""
    with plain_jax():
        before = jax.config.jax_default_matmul_precision
        with products_in(precision):
            inside = jax.config.jax_default_matmul_precision
            program = jax.jit(lambda a: a @ a).lower(jnp.ones((2, 2))).as_text()
        assert inside == PRODUCTS[precision] or precision == "default"
        assert f"precision = [{words}" in program or precision == "default"
        assert jax.config.jax_default_matmul_precision == before


def test_a_study_trains_with_the_precision_of_its_option(tmp_path):
    """Let a job of a study with --precision float32 look at the setting."""
    seen = []

    def job(way):
        seen.append((jax.config.jax_default_matmul_precision, way.devices))
        return {}

    config = TrainingStudy(precision="float32", devices=2, out=tmp_path)
    jobs = lambda config: [Job("look", 1, job)]
    run_study("looking", config, jobs, lambda *_: None)
    assert seen == [("highest", 2)]
    with pytest.raises(DataError, match="--devices 9 is more than the 4 devices"):
        run_study("looking", TrainingStudy(devices=9), jobs, lambda *_: None)


def test_precision_leaves_other_numbers(plain_jax):
    """Check integers and float64, which a study may multiply on the way."""
    whole = jnp.arange(600, 609).reshape(3, 3)
    with products_in("bfloat16"):
        np.testing.assert_array_equal(whole @ whole, np.asarray(whole) @ whole)
        third = jnp.full((2, 2), 1 / 3)
        np.testing.assert_allclose(third @ third, np.full((2, 2), 2 / 9), rtol=1e-15)


SMALL_COPY = {"copy_length": 3, "adding_length": 5, "units": 4, "batch": 8, "steps": 5}
SMALL_FLOW = {"units": 4, "length": 6, "windows": 2, "batch": 8, "steps": 5}
SMALL_FLOW |= {"cells": ("tanh", "gru")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "options", "divides"),
    [
        (copy_adding, SMALL_COPY | {"seeds": 1}, "batches"),
        (copy_adding, SMALL_COPY | {"seeds": 4}, "networks"),
        (flow, SMALL_FLOW | {"seeds": 1}, "batches"),
    ],
)
def test_studies_on_four_devices_equal_one(
    study, options, divides, tmp_path, monkeypatch, plain_jax
):
    """Run a whole study with --devices 1 and 4; compare all numbers of its rows."""
    trained = copy_adding._trained(copy_adding.Config())
    monkeypatch.setattr(copy_adding, "_trained", lambda config: trained[:2])
    monkeypatch.setattr(flow, "STARTS", ("orthogonal",))
    placed, fit, found = [], training.fit, {}

    def spy(*args, **settings):
        result = fit(*args, **settings)
        leaf = jax.tree.leaves(result.params)[0]
        placed.append((len(leaf.devices()), leaf.sharding.is_fully_replicated))
        return result

    monkeypatch.setattr(training, "fit", spy)
    with plain_jax():
        for devices in (1, 4):
            out = tmp_path / str(devices)
            config = study.Config(devices=devices, out=out, **options)
            found[devices] = study.main(config).rows
    half = len(placed) // 2
    assert half
    assert placed == [(1, True)] * half + [(4, divides == "batches")] * half
    for pair in zip(found[1], found[4], strict=True):
        one, four = ({k: v for k, v in row.items() if k not in TIMES} for row in pair)
        assert jax.tree.structure(one) == jax.tree.structure(four)
        leaves = jax.tree.leaves_with_path(one), jax.tree.leaves(four)
        for (path, a), b in zip(*leaves, strict=True):
            # In float32, sums of eight examples depend on their order.
            close = not isinstance(a, str) and a == pytest.approx(b, rel=2e-4, abs=1e-6)
            assert a == b or close, (jax.tree_util.keystr(path), a, b)
