"""Tests of `remat.offload`: stored carries lie in the memory of the host."""

import re

import chex
import jax
import jax.export
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from bpvariants import cells, gradients
from bpvariants.gradients.remat import _scan

T, B, D, N, K = 12, 3, 2, 5, 4
OFFLOAD = gradients.remat.offload(every=K)
CARRY, STACK = (
    (B, N),
    (T // K, B, N),
)  # shapes of an array of one carry, and of all kept


def arguments():
    params = cells.lstm.init(jax.random.key(0), D, N)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    return params, cells.lstm.carry(params, (B,)), xs


def gradient(remat):
    def loss(params, carry, xs):
        last, ys = gradients.unroll(cells.lstm, params, carry, xs, remat=remat)
        return jnp.sum(ys**2) + sum(jnp.sum(leaf) for leaf in last)

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def moved_to_host(remat, platform="tpu"):
    """Return the shapes that an exported program writes to the host's memory.

    JAX 0.7 names a stack of carries beside each carry; later versions only the carry.
    """
    exported = jax.export.export(gradient(remat), platforms=[platform])(*arguments())
    pattern = re.compile(r'_xla_buffer_placement = "pinned_host".*tensor<([^>]*)xf64>')
    lines = exported.mlir_module().splitlines()
    shapes = [found[1] for line in lines if (found := pattern.search(line))]
    moved = [tuple(map(int, shape.split("x"))) for shape in shapes]
    assert set(moved) <= {CARRY, STACK}
    return [shape for shape in moved if shape == CARRY]


def memory_kind_is_known():
    """Whether JAX tells in which memory a result of a compiled function lies.

    JAX 0.7 says "device" of every result.
    """
    host = jax.sharding.SingleDeviceSharding(
        jax.devices()[0], memory_kind="pinned_host"
    )
    moved = jax.jit(lambda a: jax.device_put(a, host))(jnp.ones(1))
    return moved.sharding.memory_kind == "pinned_host"


def kept_on_device(remat):
    """Return the shapes of the residuals of `unroll` that lie on the device."""
    params, carry, xs = arguments()
    run = lambda carry: gradients.unroll(cells.lstm, params, carry, xs, remat=remat)
    residuals = jax.tree.leaves(jax.vjp(run, carry)[1])
    kind = lambda leaf: leaf.sharding.memory_kind
    return {leaf.shape for leaf in residuals if kind(leaf) != "pinned_host"}, {
        leaf.shape for leaf in residuals if kind(leaf) == "pinned_host"
    }


@pytest.mark.parametrize("k", [1, 4, 5, 12, 50])
@pytest.mark.slow
def test_gradients_are_those_of_every(k):
    want = gradient(gradients.remat.every(k))(*arguments())
    got = gradient(gradients.remat.offload(every=k))(*arguments())
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_carries_are_moved_to_the_host():
    """The residuals of a stack of carries lie on the host, and none on the device."""
    device, host = kept_on_device(OFFLOAD)
    if memory_kind_is_known():
        assert STACK not in device
        assert host == {STACK}
    else:  # then only the program tells
        assert moved_to_host(OFFLOAD)
    device, host = kept_on_device(gradients.remat.every(K))
    assert STACK in device
    assert not host


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.slow
def test_exported_programs_move_carries_to_the_host(platform):
    """The program of an accelerator moves both arrays of a carry."""
    assert moved_to_host(OFFLOAD, platform) == [CARRY] * 2
    assert moved_to_host(gradients.remat.every(K), platform) == []


@pytest.mark.slow
def test_an_offload_that_does_nothing_is_noticed(monkeypatch):
    """Name the new carry, not the old one: JAX then offloads nothing, without error.

    This was the mistake of https://github.com/jax-ml/jax/issues/23869.
    """

    def offloaded(function):
        policy = jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[_scan.NAME],
            offload_src="device",
            offload_dst="pinned_host",
        )

        def with_named_result(h, x):
            h, y = function(h, x)
            return jax.tree.map(lambda a: checkpoint_name(a, _scan.NAME), h), y

        return jax.checkpoint(with_named_result, prevent_cse=False, policy=policy)

    monkeypatch.setattr(_scan, "_offloaded", offloaded)
    assert moved_to_host(OFFLOAD) == []
    device, host = kept_on_device(OFFLOAD)
    assert STACK in device
    assert not host


def test_the_price_is_predicted():
    cost = lambda k, length=T: gradients.remat.predicted_cost(
        length,
        gradients.remat.offload(every=k),
        gradients.remat.StepBytes(carry=10, kept=70, inputs=3),
    )[1:]
    assert cost(4) == (24, 4 * 70, 3 * 10)
    assert cost(5) == (22, 5 * 70 + T * 3, 2 * 10)  # two steps are left over
    assert cost(12) == cost(50) == (12, 12 * 70, 0)
    assert gradients.remat.predicted_cost(T, OFFLOAD) == (OFFLOAD, 24, None, None)
    assert gradients.remat.predicted_cost(T, gradients.remat.every(4)).host_bytes == 0


def test_a_device_without_host_memory_is_refused(monkeypatch):
    class Memory:
        kind = "device"

    class Device:
        def addressable_memories(self):
            return [Memory()]

        def __str__(self):
            return "Small:0"

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    params, carry, xs = arguments()
    with pytest.raises(
        ValueError, match=r"'pinned_host', but Small:0 has only 'device'"
    ):
        gradients.unroll(cells.lstm, params, carry, xs, remat=OFFLOAD)


def test_every_must_be_a_count():
    with pytest.raises(ValueError, match="every must be an integer of at least 1"):
        gradients.remat.offload(every=0)
