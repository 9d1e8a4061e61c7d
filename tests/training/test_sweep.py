"""Tests of sweeps: runs under `vmap` equal single runs, and killed sweeps resume."""

import dataclasses
import json
import os
import signal
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import training
from bpvariants.training.sweeps._block import stacked
from bpvariants.training.sweeps._compile import _free_bytes, _smaller, compile_block
from bpvariants.training.sweeps._file import append_rows
from bpvariants.training.sweeps._runs import all_runs, name_of

RATES = (0.1, 0.3, 0.05)
CONFIGS = [{"rate": rate, "size": size} for size in (2, 3) for rate in RATES]
ONE_SIZE = CONFIGS[:3]


def make_run(config, key):
    """Return a run that fits a matrix by gradient descent with momentum.

    Each training step uses one row of data.
    """
    size, update = config["size"], optax.sgd(config["rate"], momentum=0.5)
    # Draw only one array, because random draws compile slowly.
    params = jax.random.uniform(key, (size, size))
    goal = jnp.sin(jnp.arange(size * size, dtype=float)).reshape(size, size)

    def advance(state, t):
        params, opt_state = state
        x = jnp.cos(jnp.arange(1.0, size + 1) * jnp.asarray(t + 1, float))
        error = lambda w: jnp.sum((w @ x - goal @ x) ** 2)
        loss, grads = jax.value_and_grad(error)(params)
        change, opt_state = update.update(grads, opt_state)
        return (optax.apply_updates(params, change), opt_state), {"loss": loss}

    evaluate = lambda state: {"distance": jnp.sum((state[0] - goal) ** 2)}
    return (params, update.init(params)), advance, evaluate


def sweep(configs=ONE_SIZE, seeds=(0, 7), **options):
    return training.sweep(make_run, configs, seeds, **({"steps": 5} | options))


def alone(config, seed, steps=5):
    state, advance, evaluate = make_run(config, jax.random.key(seed))
    for t in range(steps):
        state, metrics = advance(state, t)
    return metrics["loss"], evaluate(state)["distance"]


def measured(rows):
    """Return the rows of results without their measured times."""
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def assert_close(rows, others):
    for row, other in zip(rows, others, strict=True):
        for name in ("loss", "distance"):
            np.testing.assert_allclose(row[name], other[name], rtol=1e-12)


def test_runs_are_what_each_is_alone_and_sizes_fall_into_groups():
    result = sweep(CONFIGS, chunk=2)
    assert [group.static for group in result.groups] == [{"size": 2}, {"size": 3}]
    assert [group.runs for group in result.groups] == [6, 6]
    pairs = [(config, seed) for config in CONFIGS for seed in (0, 7)]
    for row, (config, seed) in zip(result.rows, pairs, strict=True):
        assert row.items() >= (config | {"seed": seed, "status": "finished"}).items()
        assert (row["steps"], row["limit"]) == (5, 5)
        assert row["seconds"] > 0
        want = alone(config, seed)
        np.testing.assert_allclose([row["loss"], row["distance"]], want, rtol=1e-12)
    header, *lines = result.table().splitlines()
    assert header.split()[:4] == ["rate", "size", "seed", "status"]
    assert len(lines) == 12


def test_blocks_chunks_and_devices_change_nothing_and_nothing_is_traced_twice():
    traces = []

    def counted(config, key):
        traces.append(key)
        return make_run(config, key)

    run = lambda **options: training.sweep(
        counted,
        ONE_SIZE,
        (0, 7),
        **({"steps": 5, "devices": jax.devices()[:1]} | options),
    )
    whole, once = run(), len(traces)
    traces.clear()
    blocks = run(block=4, chunk=2)
    assert len(traces) == once
    assert [group.block for group in (*whole.groups, *blocks.groups)] == [6, 4]
    assert_close(blocks.rows, whole.rows)
    # The rows of both runs are bit-identical.
    assert measured(run(block=4).rows) == measured(blocks.rows)
    other_way = training.sweep(
        make_run, ONE_SIZE[::-1], (7, 0), steps=5, block=4, devices=jax.devices()[:1]
    )
    assert measured(other_way.rows[::-1]) == measured(blocks.rows)
    spread = run(devices=None, block=3)
    assert len(jax.devices()) == spread.groups[0].block == 4
    assert_close(spread.rows, whole.rows)


def test_a_run_that_ends_is_frozen_and_hurts_none():
    configs = [{"rate": rate, "size": 2} for rate in (0.1, 1e200, 0.3)]
    calls = []
    result = sweep(
        configs, steps=1000, chunk=10, curves=True,
        stop=lambda metrics: metrics["loss"] < 1e-3,
        progress=lambda *told: calls.append(told),
    )  # fmt: skip
    statuses = [row["status"] for row in result.rows]
    assert statuses == ["stopped", "stopped", "diverged", "diverged", *statuses[:2]]
    assert max(row["steps"] for row in result.rows) <= 10 * len(calls) < 1000
    assert calls[-1] == (6, 6, 0)
    for row in result.rows:
        loss, distance = alone(row, row["seed"], row["steps"])
        if row["status"] == "stopped":
            np.testing.assert_allclose([row["loss"], row["distance"]], [loss, distance])
            before, _ = alone(row, row["seed"], row["steps"] - 1)
            assert row["loss"] < 1e-3 <= before
            assert row["curve"]["step"][-1] == row["steps"]
            assert row["curve"]["loss"][-1] == row["loss"]
            assert len(row["curve"]["step"]) == -(-row["steps"] // 10)
        else:
            assert np.isnan([row["loss"], row["distance"]]).all()
            assert not np.isfinite(loss)
            assert np.isfinite(alone(row, row["seed"], row["steps"] - 1)[0])


def test_divergence_can_be_told_by_a_metric():
    result = sweep(ONE_SIZE[:1], diverged=lambda metrics: metrics["loss"] > 0)
    assert {(row["status"], row["steps"]) for row in result.rows} == {("diverged", 1)}
    assert all(np.isfinite(row["loss"]) for row in result.rows)


def test_nan_in_the_state_is_divergence_and_infinity_is_not():
    def make(config, key):
        advance = lambda state, t: (
            (state[0], jnp.where(t < 2, state[1], config["put"] * jnp.nan)),
            {"loss": state[1]},
        )
        return (jnp.inf, jnp.float64(1)), advance

    result = training.sweep(make, [{"put": 1.0}], [0], steps=5)
    assert (result.rows[0]["status"], result.rows[0]["steps"]) == ("diverged", 3)


def test_a_killed_sweep_goes_on_and_its_table_is_the_same(tmp_path):
    path, cut = tmp_path / "new" / "whole.jsonl", tmp_path / "cut.jsonl"
    whole = sweep(CONFIGS, block=4, path=path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    # Imitate a process that was killed during a write.
    cut.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    told = []
    result = sweep(CONFIGS, block=4, path=cut, progress=lambda *now: told.append(now))
    assert measured(result.rows) == measured(whole.rows)
    assert measured(map(json.loads, cut.read_text().splitlines())) == measured(
        map(json.loads, lines)
    )
    assert [group.runs for group in result.groups] == [2, 6]
    assert told[0][:2] == (6, 12)
    assert told[-1] == (12, 12, 0)
    again = sweep(CONFIGS, block=4, path=path)
    assert again.rows == whole.rows
    assert (again.groups, path.read_bytes()) == ([], content)
    # Run a subset of the configurations in another order.
    more = sweep(CONFIGS[2::-1], (3, 7), path=path)
    assert [group.runs for group in more.groups] == [3]
    assert more.rows[1] == whole.rows[5]


def test_what_diverged_is_null_in_the_file_and_is_read_as_nan(tmp_path):
    path = tmp_path / "table.jsonl"
    configs = [{"rate": 1e200, "size": 2}]
    first = sweep(configs, [0], steps=9, path=path, curves=True, chunk=1)
    (line,) = path.read_text().splitlines()
    assert "NaN" not in line
    assert json.loads(line)["distance"] is None
    second = sweep(configs, [0], steps=9, path=path, curves=True, chunk=1)
    np.testing.assert_equal(second.rows, first.rows)
    assert not second.groups


@pytest.mark.slow
def test_an_interruption_returns_and_keeps_whole_blocks(tmp_path):
    def interrupt(ended, runs, seconds_left):
        if ended == 6:
            raise KeyboardInterrupt

    path = tmp_path / "table.jsonl"
    result = sweep(CONFIGS, block=2, path=path, progress=interrupt)
    assert result.interrupted
    assert len(result.rows) == len(path.read_text().splitlines()) == 4
    resumed = sweep(CONFIGS, block=2, path=path)
    assert not resumed.interrupted
    assert measured(resumed.rows) == measured(sweep(CONFIGS, block=2).rows)


@pytest.mark.usefixtures("ctrl_c")
def test_rows_that_are_written_are_returned(tmp_path, monkeypatch):
    def write_and_press(path, rows):
        append_rows(path, rows)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(
        "bpvariants.training.sweeps._sweep.append_rows", write_and_press
    )
    path = tmp_path / "table.jsonl"
    result = sweep(block=2, path=path, devices=jax.devices()[:1])
    assert result.interrupted
    assert len(result.rows) == len(path.read_text().splitlines()) == 2


def test_a_table_has_all_metrics_of_all_runs_or_nothing():
    row = {"size": 1, "loss": 0.5, "curve": {"step": [1]}}
    rows = [row, {"size": 2, "error": 0.25}]
    lines = training.SweepResult(rows, [], False).table().splitlines()
    assert [line.split() for line in lines] == [
        ["size", "loss", "error"], ["1", ".5000"], ["2", ".2500"]
    ]  # fmt: skip
    assert lines[2].index(".2500") > lines[1].index(".5000")
    assert training.SweepResult([], [], True).table() == ""


@pytest.mark.slow
def test_blocks_fit_in_memory():
    one = jax.devices()[:1]
    free = sweep(seeds=range(16), devices=one).groups[0]
    assert free.block == 48
    bound = free.num_bytes // 3
    result = sweep(seeds=range(16), devices=one, max_bytes=bound)
    assert 8 < result.groups[0].block < 20
    assert result.groups[0].num_bytes <= bound
    with pytest.raises(
        ValueError, match=r"max_bytes=9 is less than the \d+ bytes that"
    ):
        sweep(devices=one, max_bytes=9)


@pytest.mark.parametrize(
    ("tried", "max_bytes", "devices", "want"),
    [
        ([(8, 800)], 300, 1, 3),
        ([(8, 800)], 300, 2, 2),  # rounded down to a multiple of 2 devices
        ([(8, 800)], 799, 1, 7),
        ([(8, 1000), (4, 600)], 450, 1, 2),  # 200 bytes, and 100 for each run
        ([(8, 1000), (4, 600)], 250, 1, 1),
        ([(8, 1000), (4, 1000)], 900, 1, 1),
        ([(8, 2000), (4, 600)], 300, 1, 2),  # negative fixed bytes count as 0
    ],
)
def test_the_next_block_to_try_follows_from_those_that_did_not_fit(
    tried, max_bytes, devices, want
):
    assert _smaller(tried, max_bytes, devices) == want


def test_devices_tell_each_other_nothing():
    runs, (group,) = all_runs([{"rate": 0.1}], range(4))
    make = lambda config, key: (1.0, lambda w, t: (w * config["rate"], {"loss": w}))
    stop = lambda metrics: metrics["loss"] < 0.1
    inputs = partial(stacked, group, runs)
    block = compile_block(make, inputs, stop, None, jax.devices(), 4, None)
    program: Any = block.advance
    assert "while" in program.as_text()
    for word in ("all-reduce", "all-gather", "collective", "all-to-all"):
        assert word not in program.as_text()


def test_the_memory_that_is_free_is_the_bound():
    class Full(NamedTuple):
        free: int

        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": 100 - self.free}

    assert _free_bytes([Full(40), Full(30)]) == 30
    assert _free_bytes(jax.devices()) is None


def test_the_step_is_not_batched_and_floats_are_weak():
    @jax.custom_batching.custom_vmap
    def alike(t):
        return t

    @alike.def_vmap
    def _(axis_size, in_batched, t):
        raise AssertionError("t is batched")

    def make(config, key):
        half = jnp.bfloat16(1)
        return half, lambda state, t: (state * config["rate"], {"t": alike(t)})

    result = training.sweep(make, [{"rate": 0.5}, {"rate": 1}], [0, 1], steps=3)
    assert not result.interrupted
    assert [row["t"] for row in result.rows] == [2, 2, 2, 2]
    assert [row["rate"] for row in result.rows] == [0.5, 0.5, 1.0, 1.0]
    assert len(result.groups) == 1


def test_seeds_are_those_of_keys():
    make = lambda config, key: (
        jax.random.uniform(key), lambda state, t: (state, {"drawn": state}),
    )  # fmt: skip
    seeds = (0, 2**31, 2**32 - 1)
    result = training.sweep(make, [{}], seeds, steps=1)
    want = [float(jax.random.uniform(jax.random.key(seed))) for seed in seeds]
    assert [row["drawn"] for row in result.rows] == want


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float
    size: int = 2

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError


class Named(NamedTuple):
    rate: float
    size: int = 2


@pytest.mark.parametrize("kind", [Settings, Named])
@pytest.mark.fast_rows(1)
def test_configs_may_be_dataclasses_and_namedtuples(kind):
    make = lambda config, key: make_run({"rate": config.rate, "size": config.size}, key)
    result = training.sweep(make, [kind(0.1), kind(0.3)], [0], steps=5)
    assert_close(result.rows, sweep(ONE_SIZE[:2], [0]).rows)


NOTHING = lambda state, t: (state, {"loss": state})
ONE = [{"rate": 0.1}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"configs": []}, "configs is empty"),
        ({"configs": {"rate": 0.1}}, "configs must be a list with a dict"),
        ({"configs": [0.1]}, r"configs\[0\] must be a dict, a dataclass .* got 0\.1"),
        ({"configs": [{"rate": 0.1}, {"rat": 1}]}, r"rat, rate is only .*configs\[1\]"),
        ({"configs": [{"rate": 1}, Named(1.0)]}, "rate|size"),
        ({"configs": [{"rate": 0.1}, {"rate": 0.1}]}, r"configs\[1\] is configs\[0\]"),
        ({"configs": [{"rate": [0.1]}]}, r"configs\[0\]\['rate'\] must be a finite"),
        ({"configs": [{"rate": jnp.tanh}]}, "must be a finite float.* give a name"),
        ({"configs": [{"rate": np.inf}]}, "must be a finite float.* got inf"),
        ({"configs": [{"seed": 1}]}, "configs.0. has a field 'seed'"),
        ({"seeds": []}, r"seeds must be a sequence, not empty, got \[\]"),
        ({"seeds": 3}, "seeds must be a sequence, not empty, got 3"),
        ({"seeds": iter([0])}, "seeds must be a sequence, not empty, got <list_it"),
        ({"seeds": [1, 1]}, "seeds has 1 twice; give distinct integers"),
        ({"seeds": [0.5]}, "seeds has 0.5 in it; give distinct integers"),
        ({"seeds": [-1]}, "seeds has -1 in it; give distinct integers"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"block": 2.5}, "block must be an integer of at least 1, got 2.5"),
        ({"devices": []}, "devices must be"),
        ({"devices": 3}, "devices must be a list of devices, .* got 3"),
        ({"path": b"rows"}, "path must be a path, got b'rows'"),
        ({"stop": 1}, "stop must be a function or None, got 1"),
        ({"stop": lambda m: m["loss"]}, "stop must give one bool"),
        ({"make_run": 1}, "make_run must be a function .* got 1"),
        ({"make_run": lambda c, k: 1.0}, r"make_run must return \(state, advance\)"),
        ({"make_run": lambda c, k: ("a", NOTHING)}, "state is 'a'"),
        ({"make_run": lambda c, k: (1.0, lambda s, t: s)}, "advance must return"),
        ({"make_run": lambda c, k: (1.0, lambda s, t: (s, 1))}, "advance must return"),
        (
            {"make_run": lambda c, k: (1.0, lambda s, t: (1, {}))},
            "the state that advance returns must have",
        ),
        (
            {"make_run": lambda c, k: (1.0, lambda s, t: (s, {"x": jnp.ones(2)}))},
            "advance must give metrics that are real scalars.*metric 'x'",
        ),
        (
            {"make_run": lambda c, k: (1.0, lambda s, t: (s, {"rate": s}))},
            "a metric 'rate' has the name of another column",
        ),
        (
            {"make_run": lambda c, k: (1.0, NOTHING, lambda s: {"loss": s})},
            "a metric 'loss' has the name of another column",
        ),
        (
            {"make_run": lambda c, k: (1.0, NOTHING, lambda s: s)},
            "evaluate must return",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    given = {"make_run": lambda config, key: (1.0, NOTHING), "steps": 2}
    given |= {"configs": ONE, "seeds": [0]} | options
    with pytest.raises(ValueError, match=message):
        training.sweep(**given)


def test_a_branch_on_a_traced_float_is_explained():
    make = lambda config, key: (1.0 if config["rate"] > 0 else 0.0, NOTHING)
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        training.sweep(make, ONE, [0], steps=2)
    notes = "".join(caught.value.__notes__)
    assert "floats of a config, and the key, are traced" in notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"rate": 0.1, "seed": 0, "status": "finished", "limit": 9}',
            "runs of steps=9",
        ),
        (
            '{"size": 1, "seed": 0, "status": "finished", "limit": 2}',
            r"table.jsonl is the table of another .* fields size \(line 1\)",
        ),
        (
            '{"rate": 0.1, "seed": 0, "status": "finished", "limit": 2}',
            "without a curve",
        ),
        ('{"rate": 0.1}', "line 1 has no seed"),
        ('{"rate', "line 1 is not JSON"),
    ],
)
def test_a_table_of_another_sweep_is_refused_and_left_alone(tmp_path, line, message):
    refused(tmp_path / "table.jsonl", line.encode() + b"\n", message)


@pytest.mark.parametrize(
    "content",
    [b'{"rate": "\xff"}\n', b"\x89PNG\n\x1a", b"my notes", b'{"rate": 0.1}', b"\0"],
)
def test_a_file_that_is_no_table_is_left_as_it_is(tmp_path, content):
    """Refuse a file that is not a table of results, and leave it unchanged.

    (From a table of results, an incomplete last line is removed.)
    """
    refused(tmp_path / "notes", content, "notes is not a table of a sweep: line 1")


def refused(path, content, message):
    path.write_bytes(content)
    make = lambda config, key: (1.0, NOTHING)
    with pytest.raises(ValueError, match=message):
        training.sweep(make, ONE, [0], steps=2, path=path, curves=True)
    assert path.read_bytes() == content


def test_the_name_of_a_run_does_not_depend_on_the_order_of_its_fields():
    assert name_of({"a": 1, "b": 2.0}) == name_of({"b": 2.0, "a": 1})
    assert name_of({"a": 1}) != name_of({"a": 1.0})
