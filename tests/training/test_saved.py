"""Tests of params saved to a folder: structures, damage, kills and other files."""

import os
import signal
import subprocess
import sys
import textwrap
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import training
from bpvariants.training.checkpoints import _saved

TREE = {
    "w": jnp.arange(6.0).reshape(2, 3),
    "half": jnp.ones(2, jnp.bfloat16),
    "empty": jnp.zeros((0, 2)),
    "layers": [jnp.arange(2), (None, jnp.array(True), {})],
    "number": 1.5,
}


class Pair(NamedTuple):
    a: jax.Array
    b: jax.Array


def test_what_is_saved_is_loaded(tmp_path):
    training.save(tmp_path / "model", TREE)
    loaded = training.load(tmp_path / "model")
    chex.assert_trees_all_equal(loaded, jax.tree.map(jnp.asarray, TREE), strict=True)
    assert jax.tree.structure(loaded) == jax.tree.structure(TREE)
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.slow
def test_other_containers_and_keys_need_like(tmp_path):
    pair = Pair(jnp.ones(2), jax.random.key(3))
    training.save(tmp_path, pair)
    with pytest.raises(ValueError, match=r"holds params with random keys.*give like="):
        training.load(tmp_path)
    loaded = training.load(tmp_path, Pair(jnp.zeros(2), jax.random.key(0)))
    assert isinstance(loaded, Pair)
    chex.assert_trees_all_equal(loaded.a, pair.a)
    assert jax.random.uniform(loaded.b) == jax.random.uniform(pair.b)
    with pytest.raises(
        ValueError, match=r"like does not.*\.a was float64\[2\] and is "
    ):
        training.load(tmp_path, pair._replace(a=jnp.ones(3)))


@pytest.mark.slow
def test_overwriting_replaces_the_params_and_leaves_nothing_else(tmp_path):
    for number in range(3):
        training.save(tmp_path, (jnp.full(2, number),), overwrite=True)
        assert training.load(tmp_path)[0].tolist() == [number] * 2
        assert len([*tmp_path.iterdir()]) == 1
    with pytest.raises(ValueError, match="holds saved params"):
        training.save(tmp_path, TREE)
    assert training.load(tmp_path)[0].tolist() == [2, 2]


@pytest.mark.slow
def test_params_of_a_training_are_loaded_but_not_overwritten(tmp_path):
    rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
    checkpoint = training.Checkpoint(tmp_path)
    result = training.fit(
        rule, optax.sgd(0.5), 0.0, (3.0,), steps=2, checkpoint=checkpoint
    )
    assert training.load(tmp_path, 0.0) == result.params
    with pytest.raises(ValueError, match=r"holds checkpoints of a.*give like="):
        training.load(tmp_path)
    with pytest.raises(ValueError, match=r"training\.save has not written, such as 2"):
        training.save(tmp_path, 0.0, overwrite=True)


@pytest.mark.slow
def test_damaged_files_are_named(tmp_path, monkeypatch):
    training.save(tmp_path, {"w": jnp.arange(1000.0)})
    with monkeypatch.context() as changed:
        # Arrays whose checksums differ from those that were written.
        changed.setattr("bpvariants.training.checkpoints._store.checksum", id)
        with pytest.raises(
            ValueError, match=r"cannot be read: .* not what was written"
        ):
            training.load(tmp_path)
    meta = tmp_path / "0" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("1000", "1001"))
    with pytest.raises(ValueError, match="cannot be read: its metadata is not what"):
        training.load(tmp_path)


@pytest.mark.slow
def test_float64_without_x64_is_named(tmp_path, plain_jax):
    training.save(tmp_path, {"w": np.arange(2.0)})
    with plain_jax(), pytest.raises(ValueError, match="Set jax_enable_x64"):
        training.load(tmp_path)


@pytest.mark.slow
def test_sharded_params_keep_the_shardings_of_like(tmp_path):
    mesh = jax.sharding.Mesh(jax.devices(), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    w = jax.device_put(jnp.arange(8.0), sharding)
    training.save(tmp_path, {"w": w})
    loaded = training.load(tmp_path, {"w": w})["w"]
    assert loaded.sharding.is_equivalent_to(sharding, 1)
    chex.assert_trees_all_equal(loaded, w)
    assert len(training.load(tmp_path)["w"].sharding.device_set) == 1


def test_orbax_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    for call in (lambda: training.save(tmp_path, 0.0), lambda: training.load(tmp_path)):
        with pytest.raises(ImportError, match="pip install orbax-checkpoint"):
            call()


KILLED = """
    import os, signal, sys
    import jax.numpy as jnp
    import orbax.checkpoint as ocp
    from bpvariants import training

    training.save(sys.argv[1], jnp.zeros(2), overwrite=True)
    begin = ocp.CheckpointManager.save

    def begin_and_die(*args, **kwargs):
        begin(*args, **kwargs)  # writes in the background
        os.kill(os.getpid(), signal.SIGKILL)

    ocp.CheckpointManager.save = begin_and_die
    training.save(sys.argv[1], jnp.ones(2), overwrite=True)
"""


@pytest.mark.slow
def test_a_kill_while_writing_leaves_old_or_new_params(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "model"],
        check=False, capture_output=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    loaded = training.load(tmp_path / "model", jnp.zeros(2, jnp.float32))
    assert loaded.tolist() in ([0.0, 0.0], [1.0, 1.0])
    training.save(tmp_path / "model", jnp.full(2, 3.0), overwrite=True)
    assert training.load(tmp_path / "model").tolist() == [3.0, 3.0]


def test_the_nesting_of_containers_is_json():
    nested = {"b": [1.0, None], "a": (2.0,)}
    leaf = ["leaf", []]
    assert _saved._containers(nested) == [
        "dict",
        [["a", ["tuple", [leaf]]], ["b", ["list", [leaf, ["none", []]]]]],
    ]
    assert _saved._containers(Pair(1.0, 2.0)) is None
    assert _saved._containers({1: 2.0}) is None
