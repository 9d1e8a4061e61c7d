"""Tests that a resumed training is bit-identical to an uninterrupted one."""

import gc
import json
import os
import shutil
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bpvariants import training
from bpvariants.training.checkpoints._leaves import differences
from bpvariants.training.checkpoints._store import Store
from experiments.scale import kill_resume

MOMENTUM = optax.sgd(0.1, momentum=0.9)
START = {"w": jnp.ones(3), "half": jnp.ones(2, jnp.bfloat16), "none": jnp.zeros((0, 2))}


def rule(params, carry, x, *, key):
    """Return value and gradients for params and carry with leaves of every kind.

    The leaves are random keys, integers, half-precision floats, empty arrays, and so
    on.
    """

    def loss(params):
        noise = jax.random.normal(key, (3,))
        halves = params["half"].astype(float)
        return jnp.mean((params["w"] * x - noise) ** 2) + jnp.sum(halves**2)

    value, grads = jax.value_and_grad(loss)(params)
    count, walk = carry
    return (value, (count + 1, jax.random.split(walk)[0])), grads


def fit(folder=None, steps=10, **options):
    given = {
        "steps": steps,
        "chunk": 3,
        "sample": lambda key, data: (data * jax.random.normal(key, (3,)),),
        "draws": True,
        "key": jax.random.key(0),
        "carry": (jnp.array(0), jax.random.key(5)),
    }
    if folder is not None and "checkpoint" not in options:
        given["checkpoint"] = training.Checkpoint(folder)
    data = options.pop("data", jnp.arange(3.0))
    return training.fit(
        options.pop("rule", rule),
        MOMENTUM,
        options.pop("params", START),
        data,
        **given | options,
    )


def assert_same(resumed, whole):
    as_numbers = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    left, right = (jax.tree.map(as_numbers, each[:4]) for each in (resumed, whole))
    chex.assert_trees_all_equal(left, right, strict=True)
    assert resumed.steps == whole.steps


@pytest.fixture(scope="module")
def whole():
    return fit()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder of checkpoints up to step 6.

    Each test copies the folder and damages its copy.
    """
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    fit(folder, steps=6)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture
def unfinished_reads():
    """Run the garbage collector now, because it warns of unfinished reads by orbax."""
    yield
    gc.collect()


torn = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine .* was never awaited:RuntimeWarning",
)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.fast_rows(1)
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, whole, steps):
    logs = [tmp_path / "whole.jsonl", tmp_path / "resumed" / "log.jsonl"]
    fit(log=training.JsonLog(logs[0]))
    for until in (steps, 10):
        log = training.JsonLog(logs[1])
        result = fit(tmp_path / "checkpoints", steps=until, log=log)
    assert result.resumed_from == steps
    assert_same(result, whole)
    lines = [json.loads(line) for line in logs[1].read_text().splitlines()]
    expected = [json.loads(line) for line in logs[0].read_text().splitlines()]
    assert [line for line in lines if line["step"] != steps] == expected
    again = fit(tmp_path / "checkpoints")
    assert again.seconds == 0
    assert_same(again, whole)


def test_a_log_has_neither_duplicates_nor_holes(tmp_path, copy, whole):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 3}\n{"step": 6}\n{"step": 9}\n{"step": 10, "val')
    assert_same(fit(copy, log=training.JsonLog(log)), whole)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [3, 6, 9, 10]


def test_batches_that_were_used_are_passed_over(tmp_path):
    count = lambda w, x: (((w - x) ** 2, None), 2 * (w - x))
    rows = [(float(i),) for i in range(8)]
    options = {"chunk": 3}
    whole = training.fit(count, MOMENTUM, 0.0, rows, steps=8, **options)
    begun = []
    for i, data in enumerate([rows, lambda step: begun.append(step) or rows[step:]]):
        options["checkpoint"] = training.Checkpoint(tmp_path / str(i))
        training.fit(count, MOMENTUM, 0.0, rows, steps=6, **options)
        result = training.fit(count, MOMENTUM, 0.0, data, steps=8, **options)
        chex.assert_trees_all_equal(result[:4], whole[:4])
    assert begun == [6]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint_that_a_second_one_cannot_tear(
    tmp_path, whole, monkeypatch
):
    press = lambda: os.kill(os.getpid(), signal.SIGINT)
    save, saves = Store.save, []

    def pressed_again(*arguments):
        press()
        saves.append(1)
        save(*arguments)

    monkeypatch.setattr(Store, "save", pressed_again)
    rare = training.Checkpoint(tmp_path, every=100)
    log = lambda step, metrics: press() if step == 6 else None
    stopped = fit(checkpoint=rare, log=log)
    assert (stopped.steps, stopped.stopped, saves) == (6, "interrupt", [1])
    monkeypatch.undo()
    result = fit(checkpoint=rare)
    assert result.resumed_from == 6
    assert_same(result, whole)


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_then_comes_again(
    tmp_path, whole, sigterm, monkeypatch
):
    rare, seen = training.Checkpoint(tmp_path, every=100), []

    def log(step, metrics):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append([*sigterm])

    handler = signal.getsignal(signal.SIGTERM)
    stopped = fit(checkpoint=rare, log=log)
    assert (stopped.steps, stopped.stopped) == (6, "interrupt")
    assert (seen, sigterm) == ([[]], [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is handler
    written = lambda number: seen.append([p.name for p in tmp_path.glob("9*")])
    # Without this patch, raise_signal would end the test's process.
    monkeypatch.setattr(signal, "raise_signal", written)
    log = lambda step, metrics: os.kill(os.getpid(), signal.SIGTERM)
    assert fit(checkpoint=rare, log=log).steps == 9
    assert seen[1:] == [["9"]]
    monkeypatch.undo()
    fit(steps=1, log=log)  # Without a checkpoint, fit does not handle SIGTERM.
    assert len(sigterm) == 2
    assert_same(fit(checkpoint=rare), whole)


def test_a_batch_of_another_shape_is_refused_without_sample(tmp_path):
    fit(tmp_path, steps=3, sample=None, data=(jnp.arange(3.0),))
    with pytest.raises(ValueError, match="data"):
        fit(tmp_path, steps=6, sample=None, data=(jnp.arange(1.0),))


@pytest.mark.slow
def test_the_rest_of_a_write_that_was_killed_is_removed(copy):
    being_written = copy / "7.orbax-checkpoint-tmp"
    being_written.mkdir()
    fit(copy)
    assert not being_written.exists()


@torn
@pytest.mark.usefixtures("unfinished_reads")
def test_reading_changes_nothing_and_passes_over_what_is_torn(copy, tmp_path, caplog):
    spoilt = copy / "6" / "arrays"
    being_written = copy / "9.orbax-checkpoint-tmp"
    being_written.mkdir()
    there = sorted(copy.iterdir())
    with caplog.at_level("WARNING", "absl"):
        assert training.read_checkpoint(copy, START)[0] == 6
    assert not caplog.records  # orbax logs no confusing warnings
    for file in spoilt.rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
    with pytest.warns(UserWarning, match="copy/6 cannot be read and is skipped"):
        step, params = training.read_checkpoint(copy, START)
    assert step == 3
    chex.assert_trees_all_equal(params, fit(steps=3).params)
    assert sorted(copy.iterdir()) == there
    with pytest.raises(ValueError, match=r"no checkpoint saved with Checkpoint\(best"):
        training.read_checkpoint(copy, START, best=True)
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        training.read_checkpoint(tmp_path / "not there", START)
    assert not (tmp_path / "not there").exists()


@torn
@pytest.mark.usefixtures("unfinished_reads")
@pytest.mark.parametrize("spoil", ["truncated", "deleted", "flipped"])
@pytest.mark.fast_rows(1)
def test_a_torn_checkpoint_gives_way_to_the_one_before(copy, whole, spoil):
    part = copy / "6" / ("meta/metadata" if spoil == "flipped" else "arrays")
    if spoil == "truncated":  # a damaged checkpoint of this step exists
        shutil.copytree(copy / "6", copy / "6.torn")
    if spoil == "flipped":
        part.write_text(part.read_text().replace('"skipped":0', '"skipped":1'))
        part.write_text(part.read_text().replace('"skipped": 0', '"skipped": 1'))
    for file in part.rglob("*"):
        if file.is_file() and spoil == "truncated":
            os.truncate(file, file.stat().st_size // 2)
        elif file.is_file():
            file.unlink()
    with pytest.warns(UserWarning, match="copy/6 cannot be read and is renamed"):
        result = fit(copy)
    assert result.resumed_from == 3
    assert_same(result, whole)
    assert (copy / ("6.torn-2" if spoil == "truncated" else "6.torn")).exists()


def test_values_that_are_not_what_was_written_are_found(copy, whole, monkeypatch):
    monkeypatch.setattr(
        "bpvariants.training.checkpoints._store.checksum",
        lambda leaf: -1 if np.size(leaf) == 6 else None,
    )
    with pytest.warns(UserWarning, match="is not what was written"):
        result = fit(copy)
    # The previous checkpoint is damaged too, so the training starts from the beginning.
    assert result.resumed_from is None
    assert_same(result, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"params": START | {"w": jnp.ones(4)}},
            r"state\.params\['w'\] was float64\[3\] and is float64\[4\]",
        ),
        (
            {"params": {"w": jnp.ones(3)}},
            r"\['half'\] was bfloat16\[2\] and is not there",
        ),
        ({"key": jax.random.key(1)}, r"key was \[0, 0\] and is \[0, 1\]"),
        ({"data": jnp.arange(4.0)}, r"data was float64\[3\] and is float64\[4\]"),
        ({"steps": 5}, "steps=5 is less than 6, the step of the checkpoint"),
        ({"config": {"width": 2}}, "width was 1 and is 2"),
        ({"resume": False}, "holds checkpoints, up to step 6"),
    ],
)
def test_another_training_is_refused(saved, tmp_path, options, message):
    folder = saved
    if "config" in options:
        folder = tmp_path / "with_config"
        checkpoint = training.Checkpoint(folder, config={"width": 1})
        fit(steps=1, checkpoint=checkpoint)
    settings = {name: options[name] for name in ("config", "resume") if name in options}
    others = {name: options[name] for name in options if name not in settings}
    with pytest.raises(ValueError, match=message):
        fit(checkpoint=training.Checkpoint(folder, **settings), **others)


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("keep", 0), ("keep", None)])
def test_settings_that_make_no_sense_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        training.Checkpoint("folder", **{name: value})
    for config in ({(1, 2): 3}, 3):
        with pytest.raises(ValueError, match="config must be a dict that JSON can ho"):
            training.Checkpoint("folder", config=config)
    with pytest.raises(ValueError, match=r"best must be the name of a metric.* got 3"):
        training.Checkpoint("folder", best=3)
    with pytest.raises(ValueError, match="resume must be True or False, got 'no'"):
        training.Checkpoint("folder", resume="no")
    with pytest.raises(ValueError, match="directory must be a path, got 3"):
        training.Checkpoint(3)
    with pytest.raises(ValueError, match="directory must have a name in UTF-8"):
        training.Checkpoint(os.fsdecode(b"folder/\xff"))


def test_a_config_with_nan_is_its_own_equal():
    saved = {"config": {"a": float("nan"), "b": 1}}
    assert differences(saved, {"config": {"a": float("nan"), "b": 1}}) == []
    (found,) = differences(saved, {"config": {"a": 1.0, "b": 1}})
    assert found == "a was nan and is 1.0"


def test_the_last_and_the_best_are_kept(tmp_path):
    distance = lambda metrics: jnp.abs(metrics["value"] - 4.0)
    ticks = lambda w, x: ((x, None), 0 * w)
    rows = [(float(i),) for i in range(12)]
    steps = lambda folder: {p.name for p in folder.iterdir() if p.name.isdigit()}
    for best, kept in ((distance, "5"), ("value", "2")):
        checkpoint = training.Checkpoint(
            tmp_path / kept, every=1 if kept == "5" else 2, keep=2, best=best
        )
        options = {"chunk": 1, "checkpoint": checkpoint}
        training.fit(ticks, MOMENTUM, 0.0, rows[:7], steps=12, **options)
        training.fit(ticks, MOMENTUM, 0.0, rows, steps=12, **options)
        last = {"11", "12"} if kept == "5" else {"10", "12"}
        assert steps(tmp_path / kept) == {kept} | last
    with pytest.raises(ValueError, match=r"best must be one of \[.*'value'.*got 'los'"):
        fit(checkpoint=training.Checkpoint(tmp_path / "no", best="los"))
    with pytest.raises(ValueError, match=r"metrics -> number, but it returned {}"):
        fit(checkpoint=training.Checkpoint(tmp_path / "no", best=lambda _: {}))


@pytest.mark.slow
def test_counts_of_nan_and_frozen_lanes_come_back(tmp_path):
    shrink = lambda w, x: ((w, None), 1.0 / (w - x))
    starts, batches = jnp.array([20.0, 3.0]), [(float(i),) for i in range(9)]
    still, options = optax.sgd(0.0), {"chunk": 2, "runs": 2}
    for policy in ("stop", "skip"):
        options["nonfinite"] = policy
        whole = training.fit(shrink, still, starts, batches, steps=9, **options)
        checkpoint = training.Checkpoint(tmp_path / policy)
        for steps in (6, 9):
            result = training.fit(
                shrink, still, starts, batches, steps=steps, checkpoint=checkpoint,
                **options,
            )  # fmt: skip
        chex.assert_trees_all_equal(result[:4], whole[:4])
        assert result.nonfinite_step.tolist() == [-1, 3]
        assert result.skipped.tolist() == [0, int(policy == "skip")]


def test_what_raised_or_was_stopped_is_where_it_goes_on(tmp_path):
    meets = lambda w, x: ((w, None), 1.0 / x)
    rows, options = [(1.0 - i / 4,) for i in range(8)], {"steps": 8, "chunk": 3}
    options["checkpoint"] = training.Checkpoint(tmp_path / "raised")
    for again in (None, 4):
        with pytest.raises(training.NonFiniteError, match="step 4") as error:
            training.fit(meets, MOMENTUM, 0.0, rows, **options)
        assert error.value.result.resumed_from == again
    result = training.fit(meets, MOMENTUM, 0.0, rows, nonfinite="skip", **options)
    assert (result.resumed_from, result.skipped, result.steps) == (4, 1, 8)
    options["checkpoint"] = training.Checkpoint(tmp_path / "stopped")
    options |= {"stop": lambda step, metrics: step == 3}
    for again in (None, 3):
        result = training.fit(meets, MOMENTUM, 0.0, rows, **options)
        assert (result.steps, result.stopped) == (3, "stop")
        assert result.resumed_from == again


def test_what_is_sharded_comes_back_so(tmp_path):
    mesh = Mesh(jax.devices(), ("d",))
    w = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("d")))
    shrink = lambda w, _: ((jnp.sum(w**2), None), 2 * w)
    options = {"chunk": 2, "checkpoint": training.Checkpoint(tmp_path)}
    training.fit(shrink, MOMENTUM, w, (w,), steps=4, **options)
    result = training.fit(shrink, MOMENTUM, w, (w,), steps=6, **options)
    whole = training.fit(shrink, MOMENTUM, w, (w,), steps=6, chunk=2)
    assert result.resumed_from == 4
    chex.assert_trees_all_equal(result[:4], whole[:4])
    for leaf in (result.params, result.opt_state[0].trace):
        assert leaf.sharding.is_equivalent_to(w.sharding, 1)


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_they_were_not(tmp_path, capsys, monkeypatch):
    """Kill a training by `kill -9` once; the study kill_resume does it 20 times."""
    config = kill_resume.Config(
        kills=1, steps=200, chunk=20, units=2, first_seed=1, out=tmp_path / "out"
    )
    (row,) = kill_resume.main(config).rows
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 of 1 killed and resumed runs ended with the arrays and the log" in page
    assert (row["arrays_equal"], row["log_equal"]) == (row["arrays"], True)
    assert not row["finished"]
    assert "equal" in capsys.readouterr().out
    # All runs of the study have finished, so resuming must not start any run.
    monkeypatch.setattr(kill_resume, "_start", None)
    again = kill_resume.Config(out=tmp_path / "out", resume=True)
    assert kill_resume.main(again).rows == [row]
