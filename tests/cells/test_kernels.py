"""Tests of the Pallas kernels of GRUs and LSTMs: interpret mode against the cells."""

import contextlib
import copy
import pickle
from functools import cache, partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from bpvariants.cells import _sequence

T, D, N = 5, 4, 6
INTERPRET = [None, "tpu", "gpu"]  # None: the scan that CPUs run
FLAGS = ["plain", "mask", "reset", "both"]


@cache
def problem(name, dtype="float64", batch=(3,), units=N, length=T):
    """Return params, a carry, inputs and a carry for resets, with nonzero biases."""
    cell = getattr(cells, name)
    noise = lambda tree, seed: jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(seed), leaf.shape) / 2,
        tree,
    )
    params = cell.init(jax.random.key(0), D, units)
    carry, initial = (noise(cell.carry(params, batch), seed) for seed in (1, 2))
    xs = jax.random.normal(jax.random.key(3), (length, *batch, D))
    arguments = noise(params, 4), carry, xs, initial
    return jax.tree.map(lambda leaf: leaf.astype(dtype), arguments)


def flags(kind, batch=(3,), length=T):
    draw = lambda seed: jax.random.bernoulli(
        jax.random.key(seed), 0.6, (length, *batch)
    )
    mask, reset = draw(7), draw(8)
    chosen = {"mask": mask} if kind in ("mask", "both") else {}
    return chosen | ({"reset": reset} if kind in ("reset", "both") else {})


def gradient(step, **given):
    """Return a function of params, carry, xs, initial: a loss and its derivatives.

    The loss depends on all outputs, also those in padding, and on the last carry.
    """

    def loss(params, carry, xs, initial):
        last, ys = gradients.unroll(step, params, carry, xs, initial=initial, **given)
        leaves = jax.tree.leaves((last, ys))
        wide = jnp.float64 if ys.dtype == jnp.float64 else jnp.float32
        leaves = [leaf.astype(wide) for leaf in leaves]
        return sum(jnp.sum(jnp.sin(leaf + 1) ** 2) for leaf in leaves), (last, ys)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))


@pytest.mark.parametrize("interpret", INTERPRET)
@pytest.mark.parametrize("kind", FLAGS)
@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.slow
def test_kernels_equal_the_cell(name, kind, interpret):
    cell, arguments = getattr(cells, name), problem(name)
    want = gradient(cell, **flags(kind))(*arguments)
    kernel = cell.with_kernel("pallas", interpret=interpret)
    got = gradient(kernel, **flags(kind))(*arguments)
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("interpret", INTERPRET)
@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.slow
def test_kernels_equal_the_cell_in_float32(name, interpret):
    """Errors relative to the largest element of an array are at most 1e-6."""
    cell, arguments = getattr(cells, name), problem(name, "float32")
    exact = jax.tree.map(lambda leaf: leaf.astype("float64"), arguments)
    right = gradient(cell, **flags("both"))(*exact)
    kernel = cell.with_kernel("pallas", interpret=interpret)
    got = gradient(kernel, **flags("both"))(*arguments)

    def check(a, b):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, np.max(np.abs(b))))

    jax.tree.map(check, got, right)


@pytest.mark.parametrize("interpret", INTERPRET)
@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.slow
def test_bfloat16_is_no_less_exact_than_the_cell(name, interpret):
    cell = getattr(cells, name)
    narrow = problem(name, "bfloat16")
    exact = jax.tree.map(lambda leaf: leaf.astype(float), narrow)
    flat = lambda tree: jnp.concatenate(
        [leaf.astype(float).ravel() for leaf in jax.tree.leaves(tree)]
    )
    right = flat(gradient(cell, **flags("both"))(*exact)[1])
    kernel = cell.with_kernel("pallas", interpret=interpret)

    def error(step):
        got = gradient(step, **flags("both"))(*narrow)[1]
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("bfloat16")}
        return jnp.linalg.norm(flat(got) - right)

    assert error(kernel) < 1.25 * error(cell)
    assert error(kernel) > 0  # it was computed in bfloat16


@pytest.mark.parametrize(
    ("batch", "units", "length"),
    [((), 3, 2), ((17,), 20, 3), ((2, 3), 5, 1), ((2,), 130, 2), ((130,), 3, 2)],
)
@pytest.mark.parametrize("interpret", ["tpu", "gpu"])
@pytest.mark.slow
def test_sizes_that_fit_no_tile(batch, units, length, interpret):
    arguments = problem("lstm", batch=batch, units=units, length=length)
    given = flags("both", batch, length)
    want = gradient(cells.lstm, **given)(*arguments)
    got = gradient(cells.lstm.with_kernel("pallas", interpret=interpret), **given)
    chex.assert_trees_all_close(got(*arguments), want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 4])  # 5 steps: with a remainder, and without
@pytest.mark.slow
def test_chunks_of_a_long_sequence(size, monkeypatch):
    arguments = problem("gru")
    want = gradient(cells.gru, **flags("both"))(*arguments)
    step = 4 * 128 * 128  # elements of the largest array of a padded step
    monkeypatch.setattr(_sequence, "MOST_ELEMENTS", size * step)
    kernel = cells.gru.with_kernel("pallas", interpret="tpu")
    got = gradient(kernel, **flags("both"))(*arguments)
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)


def largest_operand(jaxpr):
    """Return the number of elements of the largest array of any Pallas kernel."""
    largest = 0
    for equation in jaxpr.eqns:
        variables = [*equation.invars, *equation.outvars]
        if equation.primitive.name == "pallas_call":
            largest = max([largest, *(variable.aval.size for variable in variables)])
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                largest = max(largest, largest_operand(inner))
    return largest


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.slow
def test_kernels_see_fewer_than_2_to_the_31_elements(platform, plain_jax):
    length, batch, units = 20_000, 1024, 512  # ys alone has 10^10 elements
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
    params = {
        "inputs": shape(8, 4 * units),
        "recurrent": shape(units, 4 * units),
        "bias": shape(4 * units),
    }
    carry = shape(batch, units), shape(batch, units)
    step = cells.lstm.with_kernel("pallas", interpret=platform)

    def loss(params, carry, xs):
        return jnp.sum(gradients.unroll(step, params, carry, xs)[1].astype("float32"))

    with plain_jax():
        trace = jax.make_jaxpr(jax.grad(loss, (0, 1)))
        jaxpr = trace(params, carry, shape(length, batch, 8)).jaxpr
    assert 2**30 < largest_operand(jaxpr) < 2**31


def test_a_step_that_is_too_large_is_refused():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
    units, batch = 4096, 2**18
    params = {"inputs": shape(1, 4 * units), "recurrent": shape(units, 4 * units)}
    params["bias"] = shape(4 * units)
    carry, xs = (shape(batch, units),) * 2, shape(3, batch, 1)
    step = cells.lstm.with_kernel("pallas")
    with pytest.raises(ValueError, match="at most 2147483647 elements per time step"):
        jax.eval_shape(partial(gradients.unroll, step), params, carry, xs)


def squared(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


@pytest.mark.parametrize("interpret", [None, "tpu"])
@pytest.mark.slow
def test_rules_use_the_kernel_and_agree(interpret):
    """Inputs and targets in padding are NaN."""
    params, carry, xs, initial = problem("gru")
    given = flags("both") | {"initial": initial}
    mask = given["mask"]
    xs = jnp.where(mask[..., None], xs, jnp.nan)
    targets = jnp.where(mask[..., None], jnp.ones((T, 3, N)), jnp.nan)
    weights = jax.random.uniform(jax.random.key(9), (T, 3))
    kernel = cells.gru.with_kernel("pallas", interpret=interpret)
    for weight in (None, weights):
        run = lambda step, make=gradients.bptt, weight=weight: jax.jit(
            make(step, squared)
        )(params, carry, xs, targets, weights=weight, **given)
        want = run(cells.gru)
        chex.assert_trees_all_close(run(kernel), want, rtol=1e-11, atol=1e-12)
        remat = partial(gradients.bptt, remat="step")
        chex.assert_trees_all_close(run(kernel, remat), want, rtol=1e-11, atol=1e-12)
    both = [
        gradients.bidirectional(
            step, step, (params, params), (carry, carry), xs, mask=mask
        )
        for step in (cells.gru, kernel)
    ]
    chex.assert_trees_all_close(both[1], both[0], rtol=1e-11, atol=1e-12)


def count(jaxpr, name):
    return str(jaxpr).count(f"{name}[")


@pytest.mark.slow
def test_only_whole_sequences_run_the_kernel():
    params, carry, xs, _ = problem("gru")
    kernel = cells.gru.with_kernel("pallas", interpret="tpu")
    run = lambda **options: jax.make_jaxpr(
        lambda *given: gradients.unroll(kernel, *given, **options)
    )(params, carry, xs)
    assert count(run(), "pallas_call") == 1
    assert count(run(remat="step"), "pallas_call") == 0
    assert count(run(backward="two_phase"), "pallas_call") == 0
    assert count(jax.make_jaxpr(kernel)(params, carry, xs[0]), "pallas_call") == 0


@pytest.mark.slow
def test_a_vmapped_kernel_runs_each_example():
    params, carry, xs, initial = problem("lstm")
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    for interpret in INTERPRET:
        kernel = cells.lstm.with_kernel("pallas", interpret=interpret)
        run = gradient(kernel, **flags("both"))
        got = jax.vmap(run, (0, None, None, None))(many, carry, xs, initial)
        for i in range(2):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], many)
            want = gradient(cells.lstm, **flags("both"))(one, carry, xs, initial)
            each = jax.tree.map(lambda leaf, i=i: leaf[i], got)
            chex.assert_trees_all_close(each, want, rtol=1e-11, atol=1e-12)


def test_a_cell_with_a_kernel_is_one_object():
    first = cells.gru.with_kernel("pallas")
    assert first is cells.gru.with_kernel("pallas")
    assert first is not cells.gru.with_kernel("pallas", interpret="tpu")
    assert first is not cells.lstm.with_kernel("pallas")
    assert pickle.loads(pickle.dumps(first)) is first
    assert copy.deepcopy(first) is first
    assert repr(first) == "<cell gru with kernel='pallas'>"


def test_mistakes_are_named():
    params, carry, xs, _ = problem("gru")
    with pytest.raises(ValueError, match="kernel must be 'pallas', got 'cuda'"):
        cells.gru.with_kernel("cuda")
    with pytest.raises(ValueError, match="interpret must be None, 'tpu' or 'gpu'"):
        cells.gru.with_kernel("pallas", interpret=True)
    step = cells.gru.with_kernel("pallas")
    narrow = params | {"bias": params["bias"].astype("float16")}
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(ValueError, match="same dtype, float32 or bfloat16"),
    ):
        gradients.unroll(step, narrow, carry, xs)
    with pytest.raises(ValueError, match="mask must have one entry for each example"):
        gradients.unroll(step, params, carry, xs, mask=jnp.ones((T, 2), bool))
    with pytest.raises(ValueError, match="mask must be bool"):
        gradients.unroll(step, params, carry, xs, mask=jnp.ones((T, 3)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.slow
def test_kernels_lower_for_accelerators(name, dtype, plain_jax):
    """Lowering needs no device. It shows neither that a kernel compiles nor its speed.

    The lowered program has one kernel for each direction, and no float64.
    """
    kernel = getattr(cells, name).with_kernel("pallas")
    calls = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}
    # JAX does not promise that later versions read a stored Triton kernel.
    checks = [jax.export.DisabledSafetyCheck.custom_call(calls["cuda"])]
    arguments = problem(name, dtype)
    with plain_jax():
        run = jax.jit(gradient(kernel, **flags("both")))
        for platform, call in calls.items():
            export = jax.export.export(
                run, platforms=[platform], disabled_checks=checks
            )
            with known_gpu():
                text = export(*arguments).mlir_module()
            assert text.count(f"@{call}") == 2, platform
            assert "xf64" not in text


def known_gpu():
    """Name the GPU to lower for, which JAX 0.11 and later ask for without a GPU."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("device",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)
