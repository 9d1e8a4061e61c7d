"""Tests of the studies on many devices, such as the bytes sent between devices."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells
from experiments import __main__ as command, _machine
from experiments.harness import devices
from experiments.harness.devices import Machine
from experiments.harness.errors import DataError
from experiments.scale import char_lm, kill_resume, pod
from experiments.scale._collectives import collectives

SIZES = {"units": 8, "embedding": 4, "streams": 8, "window": 5, "steps": 4}
SIZES |= {"chunk": 2, "tested": 80, "text": "python_reference"}


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def network(config, made=lambda place: place()):
    """Place a network on the mesh of a config.

    Return the rule, params, carry and streams.
    """
    mesh = config.machine.mesh()
    net = char_lm.Network(config, 11)
    params, carry = made(lambda: char_lm.place_network(net, config, mesh))
    text = np.arange(400, dtype=np.int32) ** 2 % 11
    streams = char_lm.place_streams(text, config, mesh)
    return char_lm.make_rule(net.apply, config, mesh), params, carry, streams


def test_divided_parameters_learn_what_whole_ones_do(tmp_path):
    """Compare the learning curves on one device and on a mesh of 2 × 2 devices."""
    found = {}
    for name, machine in {
        "one": Machine(devices=1),
        "four": Machine(devices=4, model_devices=2),
    }.items():
        config = char_lm.Config(**SIZES, machine=machine, out=tmp_path / name)
        (run,) = char_lm.main(config).rows
        log = (tmp_path / name / "log.jsonl").read_text().splitlines()
        found[name] = run, [json.loads(line) for line in log]
        assert (tmp_path / name / "char_lm.png").stat().st_size > 10_000
        said = f"One run: the test loss is {found[name][1][-1]['test_bits']:.3f} bits"
        assert said in (tmp_path / name / "report.html").read_text()
    (one, log), (four, other_log) = found.values()
    np.testing.assert_allclose(four["bits"], one["bits"], rtol=1e-6)
    tests = [[line["test_bits"] for line in lines] for lines in (log, other_log)]
    np.testing.assert_allclose(*tests, rtol=1e-6)
    assert (four["mesh"], four["streams_a_device"]) == ({"data": 2, "model": 2}, 4)
    assert one["parameters_a_device"] == one["parameters"] == four["parameters"]
    assert four["parameters_a_device"] < 0.7 * four["parameters"]
    settings = json.loads((tmp_path / "four" / "config.json").read_text())
    assert settings["config"]["machine"]["dtype"] == "float32"
    assert settings["versions"]["matmul_precision"] == "default, float32"


def test_an_lstm_divided_by_xla_alone_has_the_same_gradient():
    ways = {"window": Machine(devices=1)}
    ways["step"] = Machine(devices=4, model_devices=2)
    found = []
    for reduce, machine in ways.items():
        sizes = SIZES | {"cell": "lstm", "reduce": reduce}
        rule, params, carry, streams = network(char_lm.Config(**sizes, machine=machine))
        found.append(jax.jit(rule)(params, carry, streams))
    for want, got in zip(*map(jax.tree.leaves, found), strict=True):
        scale = np.max(np.abs(want))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * scale)
    ((_, ((_, h), position)), grads) = found[1]
    assert h.sharding.spec == jax.P("data", "model")
    assert position == SIZES["window"]
    kernel = grads["params"]["cell"]["hi"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (8, 4)


@pytest.fixture(scope="module")
def on_four(_as_users_have_it):
    """Return a function compiled for four devices, and its arguments."""
    rule, *arguments = network(char_lm.Config(**SIZES, machine=Machine(devices=4)))
    return jax.jit(rule).lower(*arguments).compile(), *arguments


def test_what_pod_says_is_sent_is_what_the_program_sends(on_four):
    program, params, *_ = on_four
    found = collectives(program.as_text())
    assert {one.kind for one in found} == {"all-reduce"}
    sent = sum(pod.sent_bytes(one.num_bytes * one.times, 4) for one in found)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    want = pod.sent_bytes(pod.SUM_BYTES * number, 4)
    # The devices also send the sums of the losses and of the loss weights.
    assert want <= sent <= want + pod.sent_bytes(2 * 4, 4)


def test_a_stream_that_ends_begins_anew_from_zeros(on_four):
    rule, params, (h, zero), streams = on_four
    place = lambda position: jax.device_put(np.int32(position), zero.sharding)
    window, size = SIZES["window"], len(streams)
    last = (size - 1) // window * window - window
    (_, (_, position)), _ = rule(params, (h + 1, place(last)), streams)
    assert position == 0
    (value, _), _ = rule(params, (h + 1, position), streams)
    assert value == rule(params, (h, position), streams)[0][0]
    other = rule(params, (h + 1, place(window)), streams)[0][0]
    assert other != rule(params, (h, place(window)), streams)[0][0]


def test_pod_calculates(tmp_path, capsys):
    result = pod.main(pod.Config(out=tmp_path))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert (tmp_path / "pod.png").stat().st_size > 10_000
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "not measured: speed-up of 256 chips over one chip: GRU 256 23.5 (9 %" in shown
    )
    # Delete the rows of the sweep.
    (tmp_path / "results.jsonl").write_text("\n".join(lines[:-5]) + "\n")
    again = pod.main(pod.Config(out=tmp_path, resume=True)).rows
    for row in (*again, *result.rows):
        del row["wall_seconds"]
    assert again == result.rows
    params = cells.gru.init(jax.random.key(0), 12, 12)
    assert pod.gru_parameters(12) == sum(map(jnp.size, jax.tree.leaves(params)))
    assert pod.sent_bytes(8, 4) == 12  # each device sends 3 parts of 2 bytes, twice
    assert pod.hops(16, 1) == 30
    assert pod.hops(16, 2) == 12
    by_chips = {row["chips"]: row for row in result.rows if row["row"] == "sweep"}
    assert by_chips[256]["lanes"] == 40
    # With `least_streams` streams per chip, arithmetic takes as long as summing
    # gradients over chips. With `least_batch` streams, it takes as long as reading the
    # weights.
    config = pod.Config(latency=0.0, torus=1, chips=2**20)
    streams = int(2**20 * pod.least_streams(config))
    config = dataclasses.replace(config, streams=streams)
    row = pod.training(config, 2**20, units=64)
    assert row["arithmetic"] == pytest.approx(row["sums"], rel=1e-5)
    config = dataclasses.replace(config, streams=int(2**20 * pod.least_batch(config)))
    row = pod.training(config, 2**20, units=64)
    assert row["arithmetic"] == pytest.approx(row["weights"], rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "of_params", "of_carry"),
    [
        ("bfloat16", "float32", "bfloat16"),
        ("float64", "float64", "float64"),
    ],
)
def test_dtype_is_that_of_the_network(dtype, of_params, of_carry):
    config = char_lm.Config(**SIZES, machine=Machine(devices=1, dtype=dtype))
    with config.machine.computing():
        rule, params, carry, streams = network(config, made=jax.eval_shape)
        (value, (h, _)), grads = jax.eval_shape(rule, params, carry, streams)
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((params, grads, value))}
        assert dtypes == {jnp.dtype(of_params)}
        assert h.dtype == carry[0].dtype == of_carry
    assert jnp.zeros(()).dtype == "float32"


def test_matmul_precision_is_stated():
    from experiments.report import _files

    with Machine(precision="float32").computing():
        assert _files.versions()["matmul_precision"] == "highest"
    assert _files.versions()["matmul_precision"] == "default, float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"processes": 2}, "need --distributed, which was not given"),
        ({"distributed": True, "processes": 2}, "must be given together, or all left"),
        (
            {"distributed": True, "coordinator": "a:1", "processes": 2}
            | {"process_id": 2},
            "process_id must be 0 to 1, for processes=2, got 2",
        ),
        ({"precision": "float64"}, "computes in float64, choose --dtype float64"),
        ({"precision": "highest"}, "precision must be one of default, float32"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, float64"),
    ],
)
def test_options_of_the_machine_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Machine(**options)


@pytest.mark.parametrize(
    ("options", "machine", "message"),
    [
        ({}, {"devices": 9}, "is more than the 4 devices of this process"),
        ({}, {"devices": 4, "model_devices": 3}, "does not divide the 4 devices"),
        ({"streams": 6}, {"devices": 4}, "--streams must be a multiple of the 4"),
        ({"units": 5}, {"model_devices": 4}, "--units must be a multiple of the 4"),
        ({"window": 10**6}, {"devices": 1}, "--window 1000000 is too long"),
    ],
)
def test_what_cannot_be_divided_is_named(tmp_path, options, machine, message):
    machine = Machine(**machine)
    config = char_lm.Config(**SIZES | options, machine=machine, out=tmp_path)
    with pytest.raises(DataError, match=message):
        char_lm.main(config)


def test_an_unfinished_run_is_not_begun_anew(tmp_path):
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    config = char_lm.Config(**SIZES, machine=Machine(devices=1), out=tmp_path)
    with pytest.raises(DataError, match="not finished: add --resume"):
        char_lm.main(config)
    with pytest.raises(ValueError, match="resume needs out"):
        char_lm.Config(resume=True)


@pytest.mark.parametrize("study", [char_lm, kill_resume, pod])
def test_studies_without_seeds_refuse_them(study):
    with pytest.raises(ValueError, match=r"seeds must be 1.* got 2"):
        study.Config(seeds=2)


def test_studies_that_run_on_one_device_say_so(capsys):
    on_many = {
        name
        for name, (module, *_) in command.STUDIES.items()
        if "machine"
        in {
            field.name
            for field in dataclasses.fields(
                importlib.import_module(f"experiments.{module}").Config
            )
        }
    }
    assert on_many == set(_machine.ON_MANY)
    options = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(Machine)}
    assert options == set(_machine.MACHINE)
    for arguments in (["drift", "--devices", "4"], ["--devices=4", "drift"]):
        assert command.main(arguments) == 2
        said = capsys.readouterr().err
        assert "drift has no --devices: it runs on one device" in said
        assert "Studies with --devices: char_lm, compare, alignment" in said


@pytest.mark.parametrize(
    "options",
    [
        ["char_lm", "--precision", "float64"],
        ["--precision=float64", "char_lm"],
        ["char_lm", "--matmul-precision", "highest"],
        ["language", "--matmul_precision=highest"],
    ],
)
def test_old_names_of_precisions_are_told(options, capsys):
    assert command.main(options) == 2
    said = capsys.readouterr().err
    assert "numbers of char_lm's network is --dtype" in said


def test_options_of_the_machine_may_come_first(monkeypatch, tmp_path, capsys):
    # JAX is already initialised in this process.
    monkeypatch.setattr(devices, "start", lambda machine: None)
    options = ["--devices", "4", "--model-devices", "3", "char_lm", "--units", "3"]
    assert command.main([*options, "--out", str(tmp_path)]) == 1
    assert "--model-devices 3 does not divide the 4" in capsys.readouterr().err
