"""Tests of logs of a training, and of early ends by `stop`, NaN or Ctrl-C."""

import contextlib
import itertools
import json
import os
import signal
from types import MappingProxyType

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bpvariants import gradients, training, updates

rule = jax.value_and_grad(
    lambda w, x: (jnp.sum((w - x) ** 2, axis=-1), None), has_aux=True
)
sample = lambda key, data: (data[jax.random.randint(key, (), 0, len(data))],)
START, DATA = jnp.zeros(2), jnp.arange(8.0).reshape(4, 2)
SGD, MOMENTUM = optax.sgd(0.1), optax.sgd(0.1, momentum=0.9)


def with_nan(*steps, of=10):
    """Return batches, which contain NaN at the given training steps."""
    batches = np.arange(2.0 * of).reshape(of, 2) / of
    batches[list(steps)] = np.nan
    return [(batch,) for batch in batches]


def assert_equal(left, right):
    chex.assert_trees_all_equal(left, right)


@pytest.mark.parametrize("chunk", [2, 5])
def test_a_rule_that_draws_has_a_key_of_its_own_at_each_step(chunk):
    seen = []

    def drawing(w, batch_key, *, key):
        both = jnp.stack([jax.random.key_data(each) for each in (batch_key, key)])
        jax.debug.callback(lambda both: seen.append(both.tolist()), both)
        value, grad = jax.random.normal(key), jax.random.normal(key, (2,))
        return (value, None), grad

    key = jax.random.key(7)
    result = training.fit(
        drawing, SGD, START, None, steps=5, chunk=chunk, draws=True, key=key,
        sample=lambda key, _: (key,),
    )  # fmt: skip
    jax.effects_barrier()
    batch_keys, rule_keys = ({tuple(both[i]) for both in seen} for i in (0, 1))
    assert len(batch_keys | rule_keys) == 10
    folded = [jax.random.fold_in(key, step) for step in range(5)]
    numbers = lambda key: tuple(jax.random.key_data(key).tolist())
    assert batch_keys == {numbers(each) for each in folded}
    alone = training.fit(
        lambda w, *, key: drawing(w, key, key=key), SGD, START, (), steps=5, draws=True,
        key=key,
    )  # fmt: skip
    # A rule may draw random numbers even if `fit` gets no function `sample`.
    assert_equal(alone.values, result.values)


@pytest.mark.slow
def test_an_online_rule_that_draws_is_the_same_however_it_is_cut():
    loss = lambda y, target: (y - target) ** 2
    online = gradients.uoro(lambda w, h, x: (jnp.tanh(w * h + x), w * h), loss)

    def one_step(w, state, x, target, *, key):
        value, grads, state = online.update(w, state, x, target, key=key)
        return (value, state), grads

    w, x = jnp.array(0.5), jnp.array(0.3)
    state = online.init(w, jnp.zeros(()), (x, x))
    results = [
        training.fit(
            one_step, SGD, w, (x, x), steps=7, chunk=chunk, draws=True,
            key=jax.random.key(0), carry=state,
        )
        for chunk in (3, 7)
    ]  # fmt: skip
    assert_equal(results[0][:4], results[1][:4])


def test_metrics_tell_what_the_state_of_the_update_holds():
    seen = []
    log = lambda step, metrics: seen.append(jax.tree.map(np.array, metrics))
    update = optax.chain(
        updates.rprop(0.1),
        optax.inject_hyperparams(optax.scale)(1.0),
        optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1.0, 0.0, 4)),
    )
    # The function inject_hyperparams of optax promotes dtypes.
    with jax.numpy_dtype_promotion("standard"):
        result = training.fit(
            rule, update, START, (DATA[1],), steps=4, chunk=2, log=[log, log]
        )
    first, again, second, _ = seen
    assert_equal(first, again)
    assert first["value"] == result.values[1]
    assert_equal(second["values"], result.values)
    assert_equal(second["params"], np.asarray(result.params))
    np.testing.assert_allclose(
        [first["learning_rate"], second["learning_rate"]], [0.75, 0.25]
    )
    sizes = np.abs(optax.tree.get(result.opt_state, "step_sizes"))
    told = second["step_sizes"]
    assert (told["min"], told["median"], told["max"]) == (
        sizes.min(), np.median(sizes), sizes.max()
    )  # fmt: skip
    training.fit(rule, SGD, START, (DATA[0],), steps=1, log=log)
    assert {*seen[-1]} == {"value", "values", "params", "skipped"}


def test_metrics_of_runs_have_an_axis_of_runs():
    seen = []
    update = optax.inject_hyperparams(optax.sgd)(0.1)
    with jax.numpy_dtype_promotion("standard"):
        training.fit(
            rule, update, jnp.zeros((3, 2)), (DATA[0],), steps=1, runs=3,
            log=lambda step, metrics: seen.append(metrics),
        )  # fmt: skip
    assert seen[0]["learning_rate"].shape == seen[0]["value"].shape == (3,)


def test_stop_ends_the_training_after_a_chunk():
    stop = lambda step, metrics: metrics["values"].min() < 5
    result = training.fit(rule, SGD, START, (DATA[1],), steps=50, chunk=2, stop=stop)
    assert result.stopped == "stop"
    assert not result.interrupted
    assert result.steps % 2 == 0
    assert result.values[-2:].min() < 5 <= result.values[:-2].min()


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("chunk", [3, 10])
def test_nan_is_raised_with_the_step_and_what_is_before_it(chunk, small, monkeypatch):
    if not small:
        monkeypatch.setattr("bpvariants.training.loop._chunk.SMALL", 0)
    batches = with_nan(4)
    with pytest.raises(
        training.NonFiniteError, match=r"step 4 was not fin.*grads \(2\)"
    ) as found:
        training.fit(rule, SGD, START, batches, steps=10, chunk=chunk)
    error = found.value
    assert isinstance(error, FloatingPointError)
    assert (error.step, error.run) == (4, None)
    assert error.places == {"value": 1, "grads": 2, "params": 2}
    before = training.fit(rule, SGD, START, batches, steps=4, chunk=chunk)
    assert_equal((error.params, error.opt_state), before[:2])
    assert_equal(error.result.values, before.values)
    np.testing.assert_array_equal(error.batch, batches[4])


def test_an_error_names_arrays_and_has_the_verdict_of_diagnose():
    network = lambda w, h, x: (h + jnp.sqrt(w["a"] * x) + w["b"], h)
    loss = lambda y, target: (y - target) ** 2
    batch = jnp.array(0.0), jnp.array([1.0, 0.0, 1.0]), jnp.zeros(3), jnp.ones(3)
    bptt, w = gradients.bptt(network, loss), {"a": 1.0, "b": 1.0}
    diagnose = training.diagnosis(network, loss)
    with pytest.raises(
        training.NonFiniteError, match=r"params\['a'\] +backward +1"
    ) as found:
        training.fit(bptt, SGD, w, batch, steps=2, diagnose=diagnose)
    assert found.value.places == {"grads['a']": 1, "params['a']": 1}
    assert found.value.diagnosis.first.time == 1
    fails = lambda params, *batch: params["c"]
    with pytest.raises(training.NonFiniteError, match="diagnose raised KeyError"):
        training.fit(bptt, SGD, w, batch, steps=2, diagnose=fails)


@pytest.mark.parametrize("small", [True, False])
def test_steps_that_are_not_finite_are_skipped(small, monkeypatch):
    if not small:
        monkeypatch.setattr("bpvariants.training.loop._chunk.SMALL", 0)
    options = {"nonfinite": "skip", "chunk": 4}
    skipped = training.fit(
        rule, MOMENTUM, START, with_nan(2, 3, 9), steps=10, **options
    )
    assert (skipped.skipped, skipped.nonfinite_step, skipped.steps) == (3, 2, 10)
    assert_equal(np.flatnonzero(np.isnan(skipped.values)), np.array([2, 3, 9]))
    good = [batch for i, batch in enumerate(with_nan()) if i not in (2, 3, 9)]
    plain = training.fit(rule, MOMENTUM, START, good, steps=7)
    chex.assert_trees_all_close(skipped[:2], plain[:2], rtol=1e-12)


def test_a_carry_is_as_before_where_a_step_is_skipped():
    def counting(w, count, x):
        return (x * w, count + 1), x

    result = training.fit(
        counting, SGD, 0.0, [(1.0,), (np.inf,), (1.0,)], steps=3, nonfinite="skip",
        carry=jnp.array(0),
    )  # fmt: skip
    assert result.carry == 2


def test_stop_at_nan_ends_with_the_last_finite_state():
    result = training.fit(
        rule, SGD, START, with_nan(5), steps=10, chunk=4, nonfinite="stop"
    )
    assert (result.steps, result.stopped, result.nonfinite_step) == (5, "nonfinite", 5)
    plain = training.fit(rule, SGD, START, with_nan(), steps=5, chunk=4)
    assert_equal(result[:4], plain[:4])


@pytest.mark.parametrize("small", [True, False])
def test_lanes_that_diverge_are_frozen_and_others_go_on(small, monkeypatch):
    if not small:
        monkeypatch.setattr("bpvariants.training.loop._chunk.SMALL", 0)
    # In run 1, the parameter equals x at step 3, so the gradient is infinite.
    shrink = lambda w, x: ((w, None), 1.0 / (w - x))
    starts = jnp.array([20.0, 3.0, 30.0])
    options = {"steps": 10, "chunk": 4}
    batches = [(float(i),) for i in range(10)]
    still = optax.sgd(0.0)
    ran = training.fit(shrink, still, starts, batches, runs=3, **options)
    assert_equal(ran.nonfinite_step, np.array([-1, 3, -1]))
    assert (ran.steps, ran.stopped) == (10, None)
    assert_equal(np.isnan(ran.values).sum(1), np.array([0, 7, 0]))
    assert_equal(ran.params, starts)
    for lane in (0, 2):
        alone = training.fit(shrink, still, starts[lane], batches, **options)
        assert_equal(ran.values[lane], alone.values)
    every = training.fit(shrink, still, starts[1:2], batches, runs=1, **options)
    assert (every.stopped, every.steps) == ("nonfinite", 4)
    for first in (0, 1):
        options |= {"runs": 3 - first, "nonfinite": "raise"}
        told = f"step 3 of run {1 - first}"
        with pytest.raises(training.NonFiniteError, match=told) as found:
            training.fit(shrink, still, starts[first:], batches, **options)
        assert found.value.params == 3.0


def test_an_error_after_a_resumption_within_a_chunk_has_its_own_batch(tmp_path):
    batches, checkpoint = with_nan(7), training.Checkpoint(tmp_path)
    options = {"chunk": 4, "checkpoint": checkpoint}
    training.fit(rule, SGD, START, batches, steps=6, **options)
    with pytest.raises(training.NonFiniteError, match="step 7 was") as found:
        training.fit(rule, SGD, START, batches, steps=10, **options)
    assert found.value.result.resumed_from == 6
    np.testing.assert_array_equal(found.value.batch, batches[7])


def test_ignore_does_not_look():
    result = training.fit(
        rule, SGD, START, with_nan(1), steps=4, nonfinite="ignore", chunk=2
    )
    assert (result.steps, result.stopped) == (4, None)
    assert np.isnan(result.params).all()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_chunk_and_its_log():
    logged = []

    def press(step, metrics):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        logged.append(step)

    handler = signal.getsignal(signal.SIGINT)
    result = training.fit(rule, SGD, START, (DATA[1],), steps=10, chunk=2, log=press)
    assert (result.steps, result.stopped, result.interrupted) == (4, "interrupt", True)
    assert logged == [2, 4]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_that_somebody_swallows_ends_the_training_too():
    """Ignore the KeyboardInterrupt of Ctrl-C, as JAX's garbage-collector callback may.

    The training must still end after Ctrl-C.
    """

    def batches():
        for step in itertools.count():
            if step == 4:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            yield (DATA[1],)

    result = training.fit(rule, SGD, START, batches(), steps=10, chunk=2)
    assert result.interrupted
    assert result.steps < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_params_that_are_given_are_not_written_over(monkeypatch):
    # States larger than SMALL bytes are donated (overwritten). With SMALL = 0, all are.
    monkeypatch.setattr("bpvariants.training.loop._chunk.SMALL", 0)
    params = {"w": jnp.zeros(2), "v": START}
    of_two = lambda p, x: rule(p["w"] + p["v"], x)
    both = lambda p, x: (of_two(p, x)[0], dict.fromkeys(p, of_two(p, x)[1]))
    result = training.fit(both, MOMENTUM, params, (DATA[1],), steps=4, chunk=2)
    assert_equal(params, {"w": np.zeros(2), "v": np.zeros(2)})
    assert np.all(result.params["w"] != 0)


def test_data_from_a_function_begin_at_its_step_and_shapes_are_checked():
    begun = []

    def batches(step):
        begun.append(step)
        return ((row,) for row in DATA[step:])

    result = training.fit(rule, SGD, START, batches, steps=4, chunk=3)
    listed = training.fit(rule, SGD, START, [(row,) for row in DATA], steps=4, chunk=3)
    assert begun == [0]
    assert_equal(result[:4], listed[:4])
    with pytest.raises(ValueError, match=r"equal shapes.*\(2,\).*\(1,\)"):
        training.fit(rule, SGD, START, [(DATA[0],), (DATA[0, :1],)], steps=2)


@pytest.mark.parametrize("where", ["params", "data", "batches"])
@pytest.mark.slow
def test_what_is_sharded_stays_so(where):
    mesh = Mesh(jax.devices(), ("d",))
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    loss = lambda w, x: (jnp.mean((w[None] - x) ** 2), None)
    wide, w = jax.value_and_grad(loss, has_aux=True), jnp.zeros(8)
    xs = jnp.arange(64.0).reshape(8, 8) / 64
    plain = training.fit(wide, MOMENTUM, w, (xs,), steps=6, chunk=3)
    data = (xs,)
    if where == "params":
        w = put(w, "d")
    elif where == "data":
        data = (put(xs, "d"),)
    else:
        data = [(put(xs, "d"),)] * 6
    result = training.fit(wide, MOMENTUM, w, data, steps=6, chunk=3)
    chex.assert_trees_all_close(result[:2], plain[:2], rtol=1e-12)
    spec = PartitionSpec("d") if where == "params" else PartitionSpec()
    for leaf in (result.params, result.opt_state[0].trace):
        assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": True}, "draws=True was given without key"),
        ({"nonfinite": "warn"}, "nonfinite must be one of .* got 'warn'"),
        ({"checkpoint": "here"}, r"checkpoint must be a training\.Checkpoint"),
        ({"nonfinite": "stop", "diagnose": print}, "nothing calls it"),
        ({"log": [print, 3]}, r"log must be a function \(step, metrics\), got 3"),
        ({"stop": 3}, r"stop must be a function \(step, metrics\), got 3"),
        ({"chunk": True}, "chunk must be an integer of at least 1, got True"),
        ({"chunk": None}, "chunk must be an integer of at least 1, got None"),
        ({"diagnose": 3}, r"diagnose must be a function .* got 3"),
        ({"sample": 3}, r"sample must be a function \(key, data\) -> batch, got 3"),
        ({"draws": "yes"}, "draws must be True, False or None, got 'yes'"),
        ({"key": jax.random.key(0)}, "the rule takes no key, and there is no sample"),
        ({"key": jax.random.key(0), "draws": False}, "with draws=False and without sa"),
        ({"progress": 1}, "progress must be True or False, got 1"),
        ({"key": 3, "draws": True}, r"key must be a single key, .* got 3\."),
        (
            {"key": jax.random.split(jax.random.key(0)), "draws": True},
            r"key must be a single key, .* of shape \(2,\)",
        ),
        ({"key": jax.random.key(0), "sample": lambda *_: DATA}, "must return a tuple"),
        ({"carry": {"name": "tanh"}}, r"carry\['name'\] must be an array, got 'tanh'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        training.fit(rule, SGD, START, (DATA[0],), steps=1, **options)


two = lambda w, carry, x, y: ((jnp.sum(w), carry), w)
drawing = lambda w, x, *, key: ((jnp.sum(w), None), w)
uoro = gradients.uoro(lambda w, h, x: (h, h), lambda y, target: y)
over = lambda w, x: gradients.over_sequence(uoro)(w, jnp.zeros(()), x, x)
fails = lambda w, x: w["key"]
KEY = {"key": jax.random.key(0), "draws": True}


@pytest.mark.parametrize(
    ("called", "options", "message"),
    [
        (None, {}, "rule must be a function .* got None"),
        (uoro, {}, r"Give gradients\.over_sequence\(rule\) for an online rule"),
        (drawing, {}, r"rule draws .* give fit key=jax\.random\.key"),
        (over, {}, r"rule draws .* give fit key=.*uoro draws at rand"),
        (rule, KEY, r"got an unexp.*rule\(params, \*batch, key=key\).* draws=False"),
        (two, {}, r"missing 2 req.* with a batch of 1 entry, .* carry, give carry="),
        (two, {"carry": 0.0}, r"missing 1 .*rule\(params, carry, \*batch\)"),
        (lambda w, x: ((w[0], None), w[:1]), {}, r"shapes of params, \[2\]; got \[1\]"),
        (lambda w, x: ((w[0], None), {"w": w}), {}, r"of params, \[2\]; got {'w': \[2"),
        (lambda w, x: ((1j, None), w), {}, "the value of rule must be real, got compl"),
        (
            lambda w, x: ((1.0, None), w.astype(complex)),
            {},
            "grads of rule must be real, as par",
        ),
        (
            lambda w, c, x: ((w[0], (c, c)), w),
            {"carry": 0.0},
            "the aux that rule returns must have the structure",
        ),
    ],
)
def test_a_rule_that_does_not_fit_its_arguments_is_explained(called, options, message):
    with pytest.raises(ValueError, match=message):
        training.fit(called, SGD, START, (DATA[0],), steps=1, **options)


def test_an_error_within_a_rule_notes_how_it_was_called():
    with pytest.raises(TypeError) as found:
        training.fit(fails, SGD, START, (DATA[0],), steps=1)
    assert "fit calls rule(params, *batch), here with a" in found.value.__notes__[0]


def test_batches_may_hold_keys():
    keys = jax.random.split(jax.random.key(1), 4)
    draw = lambda w, key, x: rule(w, x + jax.random.normal(key, (2,)))
    options = {"steps": 4, "chunk": 3}
    listed = training.fit(draw, SGD, START, [*zip(keys, DATA, strict=True)], **options)
    noise = jnp.stack([jax.random.normal(key, (2,)) for key in keys])
    plain = training.fit(rule, SGD, START, [(row,) for row in DATA + noise], **options)
    chex.assert_trees_all_close(listed[:4], plain[:4], rtol=1e-12)
    with pytest.raises(
        ValueError, match=r"data: a batch\[1\] must be an array, got 'a'"
    ):
        training.fit(draw, SGD, START, [(keys[0], "a")], **options)
    with pytest.raises(
        ValueError, match=r"data must return an iter.*data\(0\) returned"
    ):
        training.fit(draw, SGD, START, lambda step: None, **options)


def test_a_log_has_the_lines_of_one_training(tmp_path):
    log = training.JsonLog(tmp_path / "log.jsonl")
    run = lambda **given: training.fit(
        rule, SGD, START, (DATA[1],), steps=2, chunk=1, log=log, **given
    )
    run()
    before = (tmp_path / "log.jsonl").read_bytes()
    for number, resume in enumerate((None, True, False)):
        given = {}
        if resume is not None:
            folder = tmp_path / str(number)
            given["checkpoint"] = training.Checkpoint(folder, resume=resume)
        with pytest.raises(
            ValueError, match=r"path .*log\.jsonl holds lines of another"
        ):
            run(**given)
        assert (tmp_path / "log.jsonl").read_bytes() == before
    # An empty log file may be used, because it has no lines.
    (tmp_path / "log.jsonl").write_text("")
    run(**given)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_log_of_a_training_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    path, folder = tmp_path / "log.jsonl", tmp_path / "checkpoints"
    path.write_bytes(b'{"step": 1}\n{"step": 2, \xff}\n')
    folder.mkdir()
    # A process that was killed by kill -9 leaves a lock file of this form.
    (folder / ".lock").write_text("")
    training.fit(
        rule, SGD, START, (DATA[1],), steps=1, log=training.JsonLog(path),
        checkpoint=training.Checkpoint(folder),
    )  # fmt: skip
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["step"] == 1


def test_a_log_takes_text_and_refuses_what_it_cannot_hold(tmp_path):
    more = lambda step, metrics: {
        "note": "text", "texts": ["a", None, 1], "path": tmp_path, "z": 1j,
        "key": jax.random.key(0), "flag": np.array([True]), "half": jnp.bfloat16(2),
        "none": None, "inf": [np.inf, 1], 3: {1: 2, "b": MappingProxyType({"c": 4})},
    }  # fmt: skip
    run = lambda name, more: training.fit(
        rule, SGD, START, (DATA[1],), steps=1, log=training.JsonLog(name, more)
    )
    run(tmp_path / "log", more)
    line = json.loads((tmp_path / "log").read_text())
    assert (line["note"], line["texts"], line["path"]) == (
        "text", ["a", None, 1], str(tmp_path)
    )  # fmt: skip
    assert (line["z"], line["flag"], line["half"]) == ("1j", [True], 2.0)
    assert (line["none"], line["inf"]) == (None, [None, 1])
    assert line["3"] == {"1": 2, "b": {"c": 4}}
    for returned in ("text", None, [1], {"step": 3}):
        with pytest.raises(ValueError, match=r"more must return a dict of entries"):
            run(tmp_path / "other", lambda *_, returned=returned: returned)
    with pytest.raises(ValueError, match=r"more must be a function .* got 3"):
        training.JsonLog(tmp_path / "log", 3)
    with pytest.raises(ValueError, match="path must be a path, got 3"):
        training.JsonLog(3)


def test_what_cannot_be_trained_with_is_named():
    train = lambda rate: training.fit(rule, optax.sgd(rate), START, (START,), steps=1)
    with pytest.raises(ValueError, match="traces, but fit is a Python loop"):
        jax.jit(train)(0.1)
    with pytest.raises(ValueError, match=r"data must be a tuple, an iterable.* got 5"):
        training.fit(rule, SGD, START, 5, steps=1)


def test_a_log_makes_the_folders_of_its_path(tmp_path):
    path = tmp_path / "one" / "two" / "log.jsonl"
    log = training.JsonLog(path)
    for _ in range(2):
        log.begin()
        assert path.exists()
