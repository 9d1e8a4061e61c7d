"""Tests of batches divided over four devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients
from experiments.scale._collectives import collectives
from experiments.scale._data_parallel import data_parallel

# E-prop warns if all of the carry h is visible to other units, because e-prop then
# stores no trace.
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")

ONLINE = {  # The rule rtrl is already in the table of problems.py.
    "snap": partial(gradients.snap, order=1),
    "rflo": gradients.rflo,
    "eprop": partial(gradients.eprop, visible=lambda h: h),
    "uoro": gradients.uoro,
    "forward_gradient": gradients.forward_gradient,
    "kf_rtrl": gradients.kf_rtrl,
    # PES divides rounding errors by sigma, so sigma is large here.
    "pes": partial(gradients.pes, sigma=1.0),
}
RANDOM = {"uoro", "forward_gradient", "kf_rtrl", "pes"}
BATCH = 8


@pytest.fixture(scope="module")
def mesh():
    return jax.sharding.Mesh(jax.devices(), ("data",))


def put(mesh, *axes):
    sharding = jax.NamedSharding(mesh, jax.P(*axes))
    return partial(jax.device_put, device=sharding)


def divided(mesh, args, options):
    """Place a rule's arguments on the mesh, with batches divided over its devices."""
    params, carry, xs, targets = args
    args = put(mesh)(params), put(mesh, "data")(carry)
    args += put(mesh, None, "data")((xs, targets))
    over_time = {name: options[name] for name in options if name != "initial"}
    initial = put(mesh, "data")(options["initial"])
    return args, put(mesh, None, "data")(over_time) | {"initial": initial}


def assert_within(got, want, tolerance):
    """Compare within a tolerance relative to the largest value of each array."""
    leaves = zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, a), b in leaves:
        gap = np.max(np.abs(np.asarray(a) - np.asarray(b)))
        limit = tolerance * np.max(np.abs(np.asarray(b)))
        assert gap <= limit, (jax.tree_util.keystr(path), gap, limit)


@pytest.mark.parametrize(("dtype", "tolerance"), [(float, 1e-12), ("float32", 1e-6)])
def test_every_rule_on_four_devices_equals_one(
    make_problem, rules, mesh, dtype, tolerance
):
    """Compare the gradient of each rule on four devices with the gradient on one.

    Loss weights, padding and resets are given. All rules are compiled in one program,
    because one program compiles faster than many.
    """
    step, loss, args, options = make_problem("tanh", (BATCH,), T=3, dtype=dtype)
    every = {name: make(step, loss) for name, make in rules.items()}
    for name, make in ONLINE.items():
        every[name] = gradients.over_sequence(make(step, loss))
    key = {name: {"key": jax.random.key(0)} for name in RANDOM}

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(args, options):
        return {
            name: rule(*args, **options, **key.get(name, {}))
            for name, rule in every.items()
        }

    want = run(args, options)
    got = run(*divided(mesh, args, options))
    assert_within(got, want, tolerance)
    for (_, carry), grads in got.values():
        shares = carry.addressable_shards
        assert len(shares) == 4
        assert shares[0].data.shape == (BATCH // 4, 3)
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(grads))


# Each test below is for one row of the table of traps in docs/devices.md, in the same
# order.


@pytest.fixture
def problem(make_problem):
    """Return a problem in which the sums of loss weights differ between devices."""
    step, loss, args, _ = make_problem("tanh", (BATCH,), T=3)
    weights = jnp.arange(3.0 * BATCH).reshape(3, BATCH)
    return step, loss, (*args, weights)


def on_each_device(function, mesh, summed=True, **options):
    """Run a function under shard_map; return one result, or one for each device."""
    over_time = jax.P(None, "data")
    shares = (jax.P(), jax.P("data"), over_time, over_time, over_time)
    out = jax.P() if summed else jax.P("data")
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=shares, out_specs=out, **options)
    )


def test_a_mean_of_means_is_not_the_mean(problem, mesh):
    step, loss, args = problem
    rule = gradients.bptt(step, loss)
    (value, _), grads = jax.jit(rule)(*args)

    def mean_of_means(*args):
        (value, _), grads = rule(*args)
        return jax.lax.pmean((value, grads), "data")

    wrong = on_each_device(mean_of_means, mesh, check_vma=False)(*args)
    assert abs(wrong[0] / value - 1) > 1e-3
    (right, _), right_grads = jax.jit(data_parallel(rule, mesh))(*args)
    assert_within((right, right_grads), (value, grads), 1e-12)


def test_gradients_under_shard_map_are_sums_over_devices_already(problem, mesh):
    step, loss, args = problem
    args = (*args[:4], jnp.ones((3, BATCH)))
    rule = gradients.bptt(step, loss)
    (_, _), grads = jax.jit(rule)(*args)
    summed = lambda *args: jax.lax.pmean(rule(*args)[1], "data")
    assert_within(
        on_each_device(summed, mesh)(*args), jax.tree.map(lambda g: 4 * g, grads), 1e-12
    )
    unsummed = on_each_device(summed, mesh, check_vma=False)(*args)
    assert_within(unsummed, grads, 1e-12)


def test_jit_sums_a_scan_over_devices_in_each_step(problem, mesh):
    step, loss, args = problem
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(args[0]))
    placed, options = divided(mesh, args[:4], {"weights": args[4], "initial": args[1]})

    def sent(rule):
        program = jax.jit(rule).lower(*placed, **options).compile().as_text()
        return [(one.num_bytes, one.times) for one in collectives(program)]

    assert max(sent(gradients.bptt(step, loss))) == (size, 3)
    once = [gradients.bptt(step, loss, backward="two_phase")]
    once.append(data_parallel(gradients.bptt(step, loss), mesh))
    for rule in once:
        (num_bytes, times), *others = sorted(sent(rule), reverse=True)
        assert times == 1
        assert size <= num_bytes + sum(b for b, _ in others) <= size + 4 * 8


def test_forward_rules_need_shard_map_unchecked(problem, mesh):
    step, loss, args = problem
    rule = gradients.over_sequence(gradients.rtrl(step, loss))
    backward = gradients.truncated_bptt(step, loss, every=1, lookback=2)
    for refused in (rule, backward):
        grads = lambda *args, rule=refused: jax.lax.psum(rule(*args)[1], "data")
        with pytest.raises((ValueError, TypeError), match=r"V:data|varying"):
            on_each_device(grads, mesh)(*args)
    got = jax.jit(data_parallel(rule, mesh))(*args)
    assert_within(got, jax.jit(rule)(*args), 1e-12)


def test_one_key_draws_the_same_on_each_device(mesh):
    key, x = jax.random.key(0), jnp.ones((BATCH, 3))
    draw = lambda key, x: jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0)
    shares = {"mesh": mesh, "in_specs": (jax.P(), jax.P("data"))}
    shares |= {"out_specs": jax.P("data")}
    own = lambda key, x: draw(jax.random.fold_in(key, jax.lax.axis_index("data")), x)
    same, apart = (jax.jit(jax.shard_map(f, **shares))(key, x) for f in (draw, own))
    assert (same == jnp.tile(same[:2], (4, 1))).all()
    assert len(np.unique(np.reshape(apart, (4, 6)), axis=0)) > 1
    by_jit = jax.jit(draw)(key, put(mesh, "data")(x))
    assert (by_jit == draw(key, x)).all()


def test_a_batch_that_cannot_be_divided_is_named(problem, mesh):
    step, loss, (params, carry, xs, targets, weights) = problem
    with pytest.raises(ValueError, match=r"partitioned 4 times, but .* size is 6"):
        put(mesh, "data")(carry[:6])
    rule = data_parallel(gradients.bptt(step, loss), mesh)
    with pytest.raises(ValueError, match=r"a multiple of the 4 devices .* got 6"):
        rule(params, carry[:6], xs[:, :6], targets[:, :6], weights[:, :6])


def test_a_norm_under_shard_map_is_that_of_a_share(mesh):
    w = jnp.arange(8.0)
    clip = optax.clip_by_global_norm(1.0)
    clipped = lambda w: clip.update(w, clip.init(w))[0]
    shares = jax.shard_map(
        clipped, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")
    )
    norm = lambda w: float(jnp.linalg.norm(w))
    # Each of four devices clips its part of the gradient to norm 1, so the whole
    # gradient has norm √4 = 2.
    assert norm(jax.jit(shares)(w)) == pytest.approx(2)
    assert norm(jax.jit(clipped)(put(mesh, "data")(w))) == pytest.approx(1)
