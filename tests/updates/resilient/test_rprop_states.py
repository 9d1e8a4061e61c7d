"""Tests of Rprop states of 8, 5, 4 and 2 bytes per parameter, and of reports."""

from functools import cache

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

VARIANTS = ["rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus"]
VARIANTS += ["half_back", "manhattan"]
BYTES = {"float32": 8, "int8_sign": 5, "packed": 4, "bfloat16": 2}
STEPS, SIZE = 1000, 200
# Tolerances of updates, relative to the updates with a float32 state. Updates that are
# 0 with a float32 state must be exactly 0.
TOLERANCES = {"int8_sign": 0, "packed": 1e-5, "bfloat16": 0.1}


@cache
def draw():
    """Draw gradients whose signs follow a trend that changes at random; 5 % are 0."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = STEPS, SIZE
    turn = jnp.where(jax.random.bernoulli(keys[0], 0.02, shape), -1.0, 1.0)
    trend = jnp.cumprod(turn, axis=0) * jnp.linspace(0, 1.5, SIZE)[None]
    grads = jax.random.normal(keys[1], shape) + trend
    zero = jax.random.bernoulli(keys[2], 0.05, shape)
    values = jax.random.normal(keys[3], (STEPS,))
    return jnp.where(zero, 0, grads).astype(jnp.float32), values


@cache
def trajectory(variant, state, dtype="float32"):
    rule = updates.scale_by_rprop(0.1, variant=variant, state=state)
    grads, values = draw()

    @jax.jit
    def run(grads, values):
        def body(state, inputs):
            grad, value = inputs
            move, state = rule.update(grad, state, value=value)
            return state, move

        return jax.lax.scan(body, rule.init(grads[0]), (grads, values))

    state, moves = run(grads.astype(dtype), values)
    return state, np.asarray(moves, float)


@pytest.mark.parametrize("state", TOLERANCES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.fast_rows(4)
def test_a_thousand_steps_are_those_of_float32(variant, state):
    _, want = trajectory(variant, "float32")
    _, got = trajectory(variant, state)
    np.testing.assert_allclose(got, want, rtol=TOLERANCES[state], atol=0)
    assert (want == 0).sum() > 0.04 * want.size
    if variant.startswith("irprop"):
        # At a sign change, the update is 0, too.
        assert (want == 0).sum() > 0.1 * want.size


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_float64_is_kept_in_8_bytes(variant):
    _, want = trajectory(variant, "float32", "float64")
    state, got = trajectory(variant, "packed", "float64")
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=0)
    assert state.step_sizes.dtype == jnp.float64


@pytest.mark.parametrize("state", BYTES)
@pytest.mark.parametrize(
    ("dtype", "tiny"), [("float32", 1e-30), ("float16", 1e-4), ("bfloat16", 1e-30)]
)
def test_products_of_small_gradients_do_not_underflow(state, dtype, tiny):
    """Check that a product of two tiny gradients keeps its sign.

    In PyTorch, the product of two such gradients underflows to 0, so step sizes do not
    adapt.
    """
    signs = np.array([1.0, 1, 1, -1, 1, 1, 0, np.inf, np.nan, -1])
    rule = updates.scale_by_rprop(0.1, state=state)
    results = []
    for scale in (tiny, 1.0):
        kept, moves = rule.init(jnp.zeros((), dtype)), []
        for sign in signs:
            grad = jnp.asarray(sign * scale).astype(dtype)
            move, kept = rule.update(grad, kept)
            moves.append(float(move))
        results.append(moves)
    np.testing.assert_array_equal(*results)
    want = [0.1, 0.12, 0.144, 0, 0.072, 0.0864, 0, 0.0864, np.nan, 0]
    np.testing.assert_allclose(results[0], want, rtol=0.02)


@pytest.mark.parametrize(("state", "size"), BYTES.items())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bytes_of_a_parameter(state, size, dtype):
    params = jnp.ones(1000, dtype)
    kept = updates.rprop(0.1, state=state).init(params)
    arrays = [leaf for leaf in jax.tree.leaves(kept) if leaf.size > 1]
    assert sum(leaf.nbytes for leaf in arrays) == 1000 * size


@pytest.mark.parametrize("state", BYTES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.fast_rows(6)
def test_step_sizes_stay_within_bounds_and_start_clipped(variant, state):
    for first, want in ((100.0, 7.3), (1e-9, 0.013), (0.1, 0.1)):
        rule = updates.scale_by_rprop(
            first, min_step_size=0.013, max_step_size=7.3, variant=variant, state=state
        )
        kept = rule.init(jnp.zeros(3, jnp.float32))
        for grads in 40 * [[1.0, -1.0, 0.0]]:
            move, kept = rule.update(jnp.array(grads, jnp.float32), kept, value=0.0)
        report = updates.rprop_report(kept, min_step_size=0.013, max_step_size=7.3)
        steps = report.step_sizes["params"]
        rtol = 0.01 if state == "bfloat16" else 1e-6
        grown = want if variant == "manhattan" else 7.3
        np.testing.assert_allclose(steps[-1], grown, rtol=rtol)
        np.testing.assert_allclose(steps[0], want, rtol=rtol)
        np.testing.assert_allclose(np.abs(move[:2]), steps[-1], rtol=1e-6)
        share = 1.0 if want == 7.3 else 0.0 if variant == "manhattan" else 2 / 3
        assert float(report.at_max["params"]) == pytest.approx(share)


@pytest.mark.parametrize("state", BYTES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.fast_rows(4)
def test_report_counts_what_a_plain_loop_counts(variant, state):
    rule = updates.scale_by_rprop(0.1, variant=variant, state=state)
    grads = np.array(draw()[0][:30])
    kept, last = rule.init(jnp.zeros(SIZE, jnp.float32)), np.zeros(SIZE)
    update = jax.jit(lambda g, kept: rule.update(g, kept, value=0.0)[1])
    for g in grads:
        kept = update(g, kept)
        flipped = last * np.sign(g) < 0
        keeps = variant in ("rprop_minus", "manhattan")
        last = np.where(flipped & (not keeps), 0, np.sign(g))
    report = jax.jit(updates.rprop_report)(kept)
    if keeps and BYTES[state] < 5:  # these states do not record sign changes
        assert np.isnan(report.flips["params"])
        assert report.table().split()[-1] == "-"
    else:
        assert flipped.sum() > 20
        assert report.flips["params"] == pytest.approx(flipped.mean())
    steps = np.abs(trajectory(variant, "float32")[0].step_sizes)
    assert report.sizes["params"] == SIZE == steps.size


def test_report_looks_into_wrappers_and_names_leaves():
    params = {"a": {"w": jnp.ones((2, 2))}, "b": jnp.ones(3), "none": jnp.ones((0,))}
    chain = optax.chain(optax.clip(1.0), updates.irprop_plus(0.1))
    report = updates.rprop_report(chain.init(params))
    assert report.sizes == {"a.w": 4, "b": 3, "none": 0}
    assert len(report.table().splitlines()) == 4
    both = optax.multi_transform(
        {"x": updates.rprop(0.1), "y": updates.rprop_minus(0.2, state="packed")},
        {"a": "x", "b": "y", "none": "x"},
    )
    report = updates.rprop_report(both.init(params))
    assert sorted(report.sizes.values()) == [0, 3, 4]
    # With several optimizers, the names of leaves begin with the path of the state of
    # their optimizer.
    names = [name.rpartition(": ") for name in report.sizes]
    assert sorted(leaf for *_, leaf in names) == ["a.w", "b", "none"]
    assert all(path for path, *_ in names)
    assert {round(float(steps[2]), 3) for steps in report.step_sizes.values()} >= {
        0.1,
        0.2,
    }
    after = updates.rprop_plus(0.1, after=optax.scale(0.5))
    assert updates.rprop_report(after.init(params)).sizes["b"] == 3
    with pytest.raises(ValueError, match="ScaleByRpropState in it"):
        updates.rprop_report(optax.adam(0.1).init(params))


@pytest.mark.parametrize("state", BYTES)
@pytest.mark.fast_rows(1)
def test_a_state_goes_through_flax_and_back(state):
    optimizer = updates.rprop_plus(0.1, state=state, after=optax.identity())
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(3)}
    start = optimizer.init(params)
    _, kept = optimizer.update(params, start, params)
    again = flax.serialization.from_bytes(start, flax.serialization.to_bytes(kept))
    chex.assert_trees_all_equal_shapes_and_dtypes(again, kept)
    chex.assert_trees_all_equal(again, kept)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (updates.rprop(0.1, state="packed"), r"rprop \(irprop_minus\) with .*'packed'"),
        (updates.irprop_plus(0.1), "irprop_plus with state='int8_sign'"),
    ],
)
def test_the_state_of_another_optimizer_is_named(other, message):
    g = jnp.ones(2)
    made = updates.rprop(0.1).init(g)
    with pytest.raises(ValueError, match=f"state must be of this.*{message}"):
        other.update(g, made, g, value=1.0)


@pytest.mark.parametrize("state", ["packed", "bfloat16"])
def test_a_step_size_of_nothing_stays_nothing(state):
    """Check that a step size that underflows to 0 stays 0, if Δ_min = 0."""
    rule = updates.scale_by_rprop(
        0.1, min_step_size=0.0, variant="rprop_minus", state=state
    )

    def body(kept, sign):
        move, kept = rule.update(sign * jnp.ones(2, jnp.float32), kept)
        return kept, move

    signs = (-1.0) ** jnp.arange(300).astype(jnp.float32)
    _, moves = jax.lax.scan(body, rule.init(jnp.zeros(2, jnp.float32)), signs)
    assert np.isfinite(moves).all()
    np.testing.assert_array_equal(moves[-1], jnp.zeros(2))
    np.testing.assert_allclose(np.abs(moves[20]), 0.1 * 0.5**20, rtol=0.02)
