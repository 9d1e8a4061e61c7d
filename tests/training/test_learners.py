"""Tests of learners in files: programs that predict and learn, in another process."""

import copy
import json
import math
import os
import subprocess
import sys
import zipfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import cells, gradients, training, updates

pytest.importorskip("flatbuffers", reason="jax.export needs it to write programs")

RULES = {
    "rtrl": gradients.rtrl,
    "snap": partial(gradients.snap, order=1),
    "uoro": gradients.uoro,
    "kf_rtrl": gradients.kf_rtrl,
    "rflo": gradients.rflo,
    "pes": partial(gradients.pes, sigma=0.1),
}
DRAWS = ("uoro", "kf_rtrl", "pes")
UPDATES = {
    "momentum": partial(optax.sgd, 0.02, momentum=0.8),
    "adam": partial(optax.adam, 0.01),  # not with the strict promotion of these tests
    "rprop": partial(updates.rprop, 0.01),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(0.1),
}
LENGTH = 300


def network(inputs=2, units=3, cell=cells.gru):
    """Return the step, the params and the carry of a cell with a readout."""
    params = {
        "cell": cell.init(jax.random.key(0), inputs, units),
        "readout": jax.random.normal(jax.random.key(1), (units,)),
    }

    def step(params, carry, x):
        carry, h = cell(params["cell"], carry, x)
        return carry, h @ params["readout"]

    return step, params, cell.carry(params["cell"])


def squared(y, target):
    return (y - target) ** 2


def stream(length, inputs=2, seed=0):
    """Return inputs and targets; a target depends on the input of two steps ago."""
    xs = np.random.default_rng(seed).normal(size=(length, inputs)).astype(np.float32)
    return xs, np.tanh(np.roll(xs[:, 0], 2))


def export(path, rule="rtrl", update="momentum", inputs=2, **options):
    """Export a small network; return (rule, update, step, pair, state)."""
    step, params, carry = network(inputs)
    online, made = RULES[rule](step, squared), UPDATES[update]()
    example = jnp.zeros(inputs), jnp.zeros(())
    state = online.init(params, carry, example)
    if rule in DRAWS:
        options = {"key": jax.random.key(7)} | options
    pair = params, made.init(params)
    training.export_learner(online, made, step, pair, state, example, path, **options)
    return online, made, step, pair, state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.learner"


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("rule", "update"), [*[(rule, "momentum") for rule in RULES], ("rtrl", "rprop")]
)
def test_a_learner_equals_a_loop_over_the_rule(rule, update, path):
    online, made, step, (params, opt_state), state = export(path, rule, update)
    learner, key = training.load_learner(path), jax.random.key(7)
    made = optax.with_extra_args_support(made)

    @jax.jit
    def advance(params, opt_state, state, key, x, target):
        key, own = jax.random.split(key)
        _, y = step(params, state.carry, x)
        value, grads, state = online.update(params, state, x, target, key=own)
        change, opt_state = made.update(grads, opt_state, params, value=value)
        return optax.apply_updates(params, change), opt_state, state, key, y, value

    for x, target in zip(*map(jnp.asarray, stream(20)), strict=True):
        x, target = x.astype(float), target.astype(float)
        *going, y, value = advance(params, opt_state, state, key, x, target)
        params, opt_state, state, key = going
        predicted = learner.predict(x)
        got, got_value = learner.learn(x, target)
        np.testing.assert_allclose(predicted, got, rtol=1e-12)
        np.testing.assert_allclose(got, y, rtol=1e-10)
        np.testing.assert_allclose(got_value, value, rtol=1e-10)
    found = learner.state
    np.testing.assert_allclose(
        found["params['readout']"], params["readout"], rtol=1e-10
    )
    leaves = jax.tree.leaves((params, opt_state, state))
    assert len(found) == len(leaves) + (rule in DRAWS)
    if rule in DRAWS:
        np.testing.assert_array_equal(found["key"], jax.random.key_data(key))


CHILD = """
import sys
import numpy as np
from bpvariants import training

before, inputs, after, results = sys.argv[1:]
learner = training.load_learner(before)
data = np.load(inputs)
got = [learner.learn(x, target) for x, target in zip(data["xs"], data["targets"])]
learner.save(after)
np.savez(results, ys=[y for y, _ in got], values=[value for _, value in got])
"""


def in_another_process(before, xs, targets, folder):
    """Let a new process learn from steps; return its outputs, and the file it saved."""
    np.savez(folder / "inputs.npz", xs=xs, targets=targets)
    names = before, folder / "inputs.npz", folder / "after", folder / "results.npz"
    subprocess.run([sys.executable, "-c", CHILD, *map(str, names)], check=True)
    return np.load(folder / "results.npz"), training.load_learner(folder / "after")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["rtrl", "uoro"])
def test_another_process_goes_on_bit_by_bit(rule, path, tmp_path, plain_jax):
    """Learn LENGTH steps here; do the second half again elsewhere, from a saved state.

    The same is done with all steps, from the file that was exported.
    """
    xs, targets = stream(2 * LENGTH)
    with plain_jax():
        export(path, rule, "adam")
        here, ys, values = training.load_learner(path), [], []
        for i, (x, target) in enumerate(zip(xs, targets, strict=True)):
            if i == LENGTH:
                here.save(tmp_path / "half")
            y, value = here.learn(x, target)
            ys.append(y)
            values.append(value)
        if rule == "rtrl":
            assert np.mean(values[-100:]) < 0.8 * np.mean(values[:100])
        for begin, before in {0: path, LENGTH: tmp_path / "half"}.items():
            given = before, xs[begin:], targets[begin:], tmp_path
            results, there = in_another_process(*given)
            np.testing.assert_array_equal(results["ys"], np.array(ys[begin:]))
            np.testing.assert_array_equal(results["values"], np.array(values[begin:]))
            assert there.state.keys() == here.state.keys()
            for name, leaf in here.state.items():
                np.testing.assert_array_equal(there.state[name], leaf, name)


def test_a_file_says_what_it_holds_and_pickles_nothing(path):
    *_, pair, state = export(path, "uoro")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert set(parts) == {"learner.json", "predict", "learn", "state"}
    about = json.loads(parts["learner.json"])
    assert about["format"] == 1
    assert about["jax"] == jax.__version__
    assert about["platforms"] == ["cpu"]
    assert about["x"] == {"structure": "leaf", "leaves": [[[2], "float64"]]}
    names = [name for name, *_ in about["layout"]["leaves"]]
    assert "params['readout']" in names
    assert names[-1] == "key"
    whole = jax.tree.leaves((pair, state))
    size = sum(leaf.nbytes for leaf in whole)
    assert len(parts["state"]) == size + 8  # and two words of the key
    for part in parts.values():
        assert b"cnumpy" not in part  # what a pickled array begins with
        assert not part.startswith(b"\x80\x04")
    learner = training.load_learner(path)
    assert repr(learner).startswith("Learner(x float64[2], target float64[]; state of")


def test_small_arrays_share_a_vector_and_large_ones_do_not(path):
    step = lambda w, h, x: (h, x @ w["large"] @ w["small"])
    params = {"large": jnp.ones((2, 3000)), "small": jnp.ones((3000, 1))}
    online = gradients.rtrl(step, lambda y, target: squared(y[0], target))
    example = jnp.ones(2), jnp.zeros(())
    state, sgd = online.init(params, jnp.zeros(()), example), optax.sgd(1e-3)
    pair = params, sgd.init(params)
    training.export_learner(online, sgd, step, pair, state, example, path)
    learner = training.load_learner(path)
    groups = learner.about["layout"]["groups"]
    sizes = [leaf[1] for leaf in learner.about["layout"]["leaves"]]
    assert [sizes.index([2, 3000])] in groups  # the large array is alone
    assert max(map(len, groups)) > 1
    np.testing.assert_array_equal(learner.state["params['large']"], np.ones((2, 3000)))
    assert learner.predict(np.ones(2)) == 6000


def test_trees_of_inputs_and_outputs(path):
    """Inputs are a dict and a tuple; the output is a dict; the batch has an axis."""

    def step(w, h, x):
        a, (b,) = x["a"], x["b"]
        h = h + w * a
        return h, {"sum": h + b, "pair": [h, b]}

    loss = lambda y, target: squared(y["sum"], target)
    online, sgd, w = gradients.rtrl(step, loss), optax.sgd(0.1), jnp.array(1.0)
    x = {"b": (jnp.ones(4),), "a": jnp.arange(4.0)}
    example = x, jnp.zeros(4)
    state = online.init(w, jnp.zeros(4), example)
    training.export_learner(online, sgd, step, (w, sgd.init(w)), state, example, path)
    learner = training.load_learner(path)
    y, value = learner.learn(x, np.zeros(4))
    np.testing.assert_array_equal(y["sum"], np.arange(4) + 1)
    np.testing.assert_array_equal(y["pair"][1], np.ones(4))
    assert isinstance(y["pair"], list)
    assert value == np.mean(np.arange(1.0, 5) ** 2)
    with pytest.raises(ValueError, match=r"x must be a dict with the names \['a', 'b'"):
        learner.learn({"a": 1}, np.zeros(4))
    with pytest.raises(ValueError, match=r"x\['b'\] must be a tuple of 1, got"):
        learner.learn({"a": x["a"], "b": ()}, np.zeros(4))


def test_flags_weigh_mask_and_reset(path):
    export(path, flags={"weight": 1.0, "mask": True, "reset": False})
    learner = training.load_learner(path)
    (xs, targets), start = stream(4), learner.state
    first, _ = learner.learn(xs[0], targets[0])
    before = learner.state
    learner.learn(xs[1], np.nan, weight=0)  # the target is missing
    after = learner.state
    for name in before:
        same = np.array_equal(before[name], after[name])
        assert same == name.startswith(("params", "opt_state", "rule.initial")), name
    learner.learn(xs[1], targets[1], mask=False)  # padding changes nothing
    for name, leaf in learner.state.items():
        np.testing.assert_array_equal(leaf, after[name])
    one = learner.predict(xs[0])
    again = learner.predict(xs[0], reset=True)
    assert one != again
    learner.state = start
    np.testing.assert_allclose(learner.predict(xs[0]), first, rtol=1e-12)
    plain = path.with_suffix(".plain")
    export(plain)
    with pytest.raises(ValueError, match="reset was given, but the learner was export"):
        training.load_learner(plain).learn(xs[0], 0.0, reset=True)


def test_hyperparameters_in_the_state_may_be_changed(path):
    export(path, update="injected")
    learner, (xs, targets) = training.load_learner(path), stream(1)
    state = learner.state
    (name,) = [name for name in state if "learning_rate" in name]
    learner.state = state | {name: 0.0}
    learner.learn(xs[0], targets[0])
    for each in [name for name in state if name.startswith("params")]:
        np.testing.assert_array_equal(learner.state[each], state[each])
    with pytest.raises(ValueError, match=r"missing: .*learning_rate"):
        learner.state = {n: leaf for n, leaf in state.items() if n != name}
    with pytest.raises(ValueError, match="must be an array float64"):
        learner.state = state | {name: np.zeros(2)}


def test_a_call_that_fails_leaves_the_state(path):
    export(path)
    learner, (xs, targets) = training.load_learner(path), stream(2)
    learner.learn(xs[0], targets[0])
    before, twin = learner.state, copy.deepcopy(learner)
    for x, target, words in [
        (xs[:2], 0.0, r"x must be an array float64\[2\], .* got shape \(2, 2\)"),
        (xs[0], np.zeros(1), r"target must be an array float64\[\], .* shape \(1,\)"),
        (["a", "b"], 0.0, r"x must be an array float64\[2\], as the learner"),
        (xs[0] * 1j, 0.0, r"x must be an array float64\[2\], as .* complex"),
        (None, 0.0, "x must be an array, got None"),
    ]:
        with pytest.raises(ValueError, match=words):
            learner.learn(x, target)
    for name, leaf in learner.state.items():
        np.testing.assert_array_equal(leaf, before[name])
    twin.learn(xs[1], targets[1])
    assert not np.array_equal(twin.state["rule.carry"], learner.state["rule.carry"])


def altered(path, **changes):
    """Rewrite the file of a learner with other values in learner.json."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(parts["learner.json"]) | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            data = json.dumps(about) if name == "learner.json" else part
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, and this version of bpvariants reads format 1"),
        ({"kind": "other"}, "is not a file that training.export_learner .* 'other'"),
        ({"calling_convention": 99}, r"calling convention 99 .* runs \d+ to \d+"),
        ({"calling_convention": 1, "jax": "0.4.1"}, "Install jax 0.4.1, or export"),
        ({"platforms": ["tpu"]}, r"for tpu, and .* on cpu.*platforms=\['tpu', 'cpu'\]"),
    ],
)
def test_files_that_cannot_run_here_are_refused(changes, words, path):
    export(path)
    altered(path, **changes)
    with pytest.raises(ValueError, match=words):
        training.load_learner(path)


def test_damaged_files_are_refused(path, tmp_path):
    export(path)
    content = path.read_bytes()
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    (tmp_path / "text").write_text("a text")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("word/document.xml", "…")
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    for name in ("short", "text", "zip", "flipped"):
        with pytest.raises(ValueError, match=f"{name} is not a file that training.exp"):
            training.load_learner(tmp_path / name)
    for name in ("", "missing"):
        with pytest.raises(ValueError, match="there is no file"):
            training.load_learner(tmp_path / name)
    altered(path, layout=json.loads('{"leaves": [], "groups": []}'))
    with pytest.raises(ValueError, match="its state has another size than it says"):
        training.load_learner(path)


def test_64_bits_need_the_setting(path, plain_jax):
    export(path)
    with plain_jax(), pytest.raises(ValueError, match=r"float64.*jax_enable_x64"):
        training.load_learner(path)


def test_an_old_file_survives_a_failed_save(path, monkeypatch):
    export(path)
    learner, content = training.load_learner(path), path.read_bytes()
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        learner.save(path)
    assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def dict_learner(path, **options):
    export(path)
    learner = training.load_learner(path)
    return training.DictLearner(learner, ["a", "b"], **options)


def test_features_as_dicts_equal_arrays(path):
    one, (xs, targets) = dict_learner(path), stream(20)
    other = training.load_learner(path)
    for (a, b), target in zip(xs.tolist(), targets.tolist(), strict=True):
        y = one.predict_one({"b": b, "c": "ignored", "a": a})
        assert isinstance(y, float)
        one.learn_one({"a": a, "b": b}, target)
        want, _ = other.learn(np.array([a, b]), target)
        assert y == pytest.approx(float(want), rel=1e-12)


def of_whole_numbers(path):
    """Export a learner whose x and target are small whole numbers."""
    step = lambda w, h, x: (h, w * x.astype(w.dtype).sum(-1))
    rule = gradients.rtrl(step, lambda y, target: (y - target.astype(y.dtype)) ** 2)
    sgd, w = optax.sgd(0.1), jnp.array(1.0)
    inputs = jnp.zeros(2, jnp.int8), jnp.array(0, jnp.uint8)
    state = rule.init(w, jnp.zeros(()), inputs)
    training.export_learner(rule, sgd, step, (w, sgd.init(w)), state, inputs, path)
    return training.load_learner(path)


def test_whole_numbers_are_neither_rounded_nor_wrapped(path):
    learner = of_whole_numbers(path)
    assert learner.predict(np.array([3, -4])).item() == -1.0
    with pytest.raises(ValueError, match="x must have numbers of type int8"):
        learner.predict(np.array([300, 1]))
    with pytest.raises(ValueError, match=r"target must have numbers of type uint8.*-1"):
        learner.learn(np.array([3, 1]), -1)
    with pytest.raises(ValueError, match=r"floating x, target and y, .* int8, uint8"):
        training.DictLearner(learner, ["a", "b"])


@pytest.mark.parametrize("value", [None, math.nan, "absent"])
def test_features_may_be_missing_if_a_number_stands_for_them(value, path):
    x = {"a": 1.0} if value == "absent" else {"a": 1.0, "b": value}
    one = dict_learner(path)
    with pytest.raises(ValueError, match="feature 'b' must be a finite number"):
        one.predict_one(x)
    with pytest.raises(ValueError, match="feature 'b' must be a finite number"):
        one.learn_one(x, 1.0)
    one = training.DictLearner(one.learner, ["a", "b"], missing=0.5)
    assert one.predict_one(x) == one.predict_one({"a": 1.0, "b": 0.5})
    with pytest.raises(ValueError, match="feature 'a' must be a finite number, got"):
        one.predict_one({"a": math.inf, "b": 0.5})
    with pytest.raises(ValueError, match="feature 'a' must be a number, got 'red'"):
        one.predict_one({"a": "red", "b": 0.5})
    with pytest.raises(ValueError, match="y must be a finite number, got inf"):
        one.learn_one({"a": 1.0, "b": 0.5}, math.inf)
    with pytest.raises(ValueError, match="y must be a finite number, got nan"):
        one.learn_one({"a": 1.0, "b": 0.5}, math.nan)


def test_river_takes_the_learner(path, plain_jax):
    """Run river's own evaluation, alone and in a pipeline that scales the features."""
    pytest.importorskip("river", reason="the interface of river is tested with river")
    from river import evaluate, metrics, preprocessing

    xs, targets = stream(60)
    data = [
        ({"a": float(a), "b": float(b)}, float(target))
        for (a, b), target in zip(xs, targets, strict=True)
    ]
    one = dict_learner(path)
    errors = []
    for x, y in data:
        errors.append(abs(one.predict_one(x) - y))
        one.learn_one(x, y)
    other = dict_learner(path).for_river()
    score = evaluate.progressive_val_score(data, other, metrics.MAE())
    assert score.get() == pytest.approx(np.mean(errors), rel=1e-12)
    assert other.predict_one(data[0][0]) == one.predict_one(data[0][0])
    pipeline = preprocessing.StandardScaler() | dict_learner(path).for_river()
    score = evaluate.progressive_val_score(data, pipeline, metrics.MAE())
    assert 0 < score.get() < 10
