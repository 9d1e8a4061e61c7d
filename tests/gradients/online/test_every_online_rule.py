"""Tests of promises that all online rules make."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

# E-prop warns if all of the carry h is visible to other units, because e-prop then
# stores no trace.
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")


def what_units_see(carry):
    """Return the part of the carry that other units read, for eprop's `visible`."""
    if isinstance(carry, dict):
        return carry["fast"]
    return carry[1] if isinstance(carry, tuple) else carry


ONLINE = {  # online rules that this file tests
    "rtrl": gradients.rtrl,
    "snap": partial(gradients.snap, order=1),
    "rflo": gradients.rflo,
    "eprop": partial(gradients.eprop, visible=what_units_see),
    "uoro": gradients.uoro,
    "forward_gradient": gradients.forward_gradient,
    "kf_rtrl": gradients.kf_rtrl,
    "sketched_rtrl": partial(gradients.sketched_rtrl, rank=1),
    "pes": gradients.pes,
}
RANDOM = {"uoro", "forward_gradient", "kf_rtrl", "pes"}
FACTORS = {"kf_rtrl", "sketched_rtrl"}  # rules for matrices that are used once


def test_every_parameter_gets_a_gradient_by_every_rule(make_problem, cell):
    step, loss, (params, carry, xs, targets), _ = make_problem(cell, (2,), T=3)

    @jax.jit  # one function compiles faster than many
    def all_rules(params):
        found = {"bptt": gradients.bptt(step, loss)(params, carry, xs, targets)}
        for name, make in ONLINE.items():
            if cell == "nested" and name in FACTORS:
                continue  # this cell uses a matrix twice
            rule = gradients.over_sequence(make(step, loss))
            key = {"key": jax.random.key(0)} if name in RANDOM else {}
            found[name] = rule(params, carry, xs, targets, **key)
        return found

    found = all_rules(params)
    (value, last), want = found["bptt"]
    for name, ((got, carry), grads) in found.items():
        chex.assert_trees_all_close((got, carry), (value, last), rtol=1e-12)
        for (path, grad), exact in zip(
            jax.tree.leaves_with_path(grads), jax.tree.leaves(want), strict=True
        ):
            place = name, jax.tree_util.keystr(path)
            assert jnp.any(exact != 0), place
            assert jnp.any(grad != 0), place


@pytest.mark.slow
def test_the_value_and_the_carry_of_every_rule_can_be_differentiated(make_problem):
    step, loss, (params, *rest), _ = make_problem("tanh", (), T=3)

    def total(rule, params, **key):
        (value, last), _ = rule(params, *rest, **key)
        return value + sum(map(jnp.sum, jax.tree.leaves(last)))

    @jax.jit
    def all_rules(params):
        found = {}
        for name, make in ONLINE.items():
            key = {"key": jax.random.key(0)} if name in RANDOM else {}
            rule = gradients.over_sequence(make(step, loss))
            found[name] = jax.grad(partial(total, rule, **key))(params)
        return found, jax.grad(partial(total, gradients.bptt(step, loss)))(params)

    found, want = all_rules(params)
    for grads in found.values():
        chex.assert_trees_all_close(grads, want, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_first_update_keeps_the_types_of_the_state(make_problem):
    """Compare shapes, dtypes and weak types of the state before and after an update.

    If one of them changed, JAX would compile the second update again.
    """
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh", (2,), T=3)
    types = lambda state: [
        (jax.tree_util.keystr(path), leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in jax.tree.leaves_with_path(state)
    ]
    for name, make in ONLINE.items():
        rule = make(step, loss)
        key = {"key": jax.random.key(0)} if name in RANDOM else {}
        first = rule.init(params, carry, (xs[0], targets[0]))
        update = partial(rule.update, **key)
        _, _, second = jax.eval_shape(update, params, first, xs[0], targets[0])
        assert types(first) == types(second), name


def test_a_state_of_another_network_is_named():
    """Raise an error for a state of a network with other inputs, params or settings."""
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)

    def step(params, carry, x):
        v = 0.5 * carry[0] + x @ params["in"] + carry[1] @ params["own"]
        return (v, jnp.tanh(v)), jnp.tanh(v)

    normal = lambda *shape: jax.random.normal(jax.random.key(0), shape)
    ours = {"in": normal(3, 2), "own": normal(2, 2)}
    narrower = ours | {"in": normal(1, 2)}
    richer = ours | {"readout": normal(2, 1)}
    carry, target = (jnp.zeros(2), jnp.zeros(2)), jnp.zeros(2)
    for name, make in ONLINE.items():
        rule = make(step, loss)
        key = {"key": jax.random.key(0)} if name in RANDOM else {}
        for theirs in (narrower, richer):
            x = jnp.ones(len(theirs["in"]))
            if name in FACTORS and theirs is richer:
                # These rules store nothing for a readout, so they cannot detect a state
                # of another readout.
                continue
            state = rule.init(theirs, carry, (x, target))
            with pytest.raises(ValueError, match=r"^state (must|has)"):
                rule.update(ours, state, jnp.ones(3), target, **key)
    feedback = gradients.AdaptiveFeedback((None, jnp.eye(2)), 0.1)
    learning = gradients.rflo(step, loss, feedback=feedback)
    fixed = gradients.rflo(step, loss)
    for one, other in [(learning, fixed), (fixed, learning)]:
        state = one.init(ours, carry, (jnp.ones(3), target))
        with pytest.raises(ValueError, match=r"^state must .* state\.feedback"):
            other.update(ours, state, jnp.ones(3), target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"w": 1.0, "act": "tanh"}}, r"params\['act'\] must be an array"),
        ({"params": {"w": jax.nn.relu}}, r"params\['w'\] must be an array, got .*jvp"),
        ({"carry": "zeros"}, "carry must be an array, got 'zeros', a str"),
        ({"initial": {"h": None, "c": "zeros"}}, r"initial\['c'\] must be an array"),
        ({"x": "x"}, "x must be an array, got 'x', a str"),
        ({"x": [1.0, len]}, r"x\[1\] must be an array, got <built-in function len>"),
        ({"target": "y"}, "target must be an array, got 'y', a str"),
    ],
)
def test_arguments_of_a_wrong_kind_are_named(change, message):
    step = lambda params, h, x: (jnp.tanh(params["w"] * h + x),) * 2
    loss = lambda y, target: (y - target) ** 2
    given = {"params": {"w": 1.0}, "carry": 0.0, "x": 1.0, "target": 0.0} | change
    params, carry, x, target = (given.pop(name) for name in list(given)[:4])
    for name, make in ONLINE.items():
        rule, key = make(step, loss), {"key": jax.random.key(0)}
        with pytest.raises(ValueError, match=message):
            rule.init(params, carry, (x, target), **given)
        if "target" in message or message.startswith("x"):
            if name in FACTORS:
                continue  # this rule does not support the network
            state = rule.init(params, carry, (1.0, 0.0))
            with pytest.raises(ValueError, match=message):
                rule.update(params, state, x, target, **key)


def test_settings_of_a_wrong_kind_are_named():
    step, loss = (lambda params, h, x: (h, h)), (lambda y, target: y)
    with pytest.raises(ValueError, match="sigma must be an array, got 'small', a str"):
        gradients.pes(step, loss, sigma="small")
    with pytest.raises(ValueError, match="sigma must be positive, got True"):
        gradients.pes(step, loss, sigma=True)
    with pytest.raises(ValueError, match="feedback must be an array, got <function"):
        gradients.rflo(step, loss, feedback=step)
    for wrong in (None, 1):
        with pytest.raises(ValueError, match=f"visible must be a fun.* got {wrong}"):
            gradients.eprop(step, loss, visible=wrong)


@pytest.mark.slow
def test_examples_on_several_devices(make_problem):
    """Compare one device with four, over which `jit` or `shard_map` shards examples."""
    step, loss, (params, *rest), _ = make_problem("tanh", (4,), T=3)
    rule = gradients.over_sequence(gradients.rtrl(step, loss))
    mesh = jax.sharding.Mesh(jax.devices()[:4], ("data",))
    split = jax.P("data"), jax.P(None, "data"), jax.P(None, "data")

    def on_device(*args):
        (value, carry), grads = rule(*args)
        return (jax.lax.pmean(value, "data"), carry), jax.lax.pmean(grads, "data")

    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(jax.P(), *split),
        out_specs=((jax.P(), split[0]), jax.P()),
        check_vma=False,
    )
    sharded = [
        jax.device_put(each, jax.NamedSharding(mesh, spec))
        for each, spec in zip(rest, split, strict=True)
    ]
    want = jax.jit(rule)(params, *rest)
    for got in (jax.jit(mapped)(params, *rest), jax.jit(rule)(params, *sharded)):
        chex.assert_trees_all_close(got, want, rtol=1e-12)


@pytest.mark.slow
def test_a_state_is_written_by_its_leaves_and_read_into_one_that_init_makes(tmp_path):
    params = cells.tanh.init(jax.random.key(0), 2, 3, dtype=float)
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    rule = gradients.snap(cells.tanh, loss, order=1)
    x, target = jnp.ones(2), jnp.zeros(3)
    begin = lambda: rule.init(params, jnp.zeros(3), (x, target))
    _, _, state = rule.update(params, begin(), x, target)
    leaves, _ = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as read:
        found = [jnp.asarray(read[name]) for name in read.files]
    again = jax.tree.structure(begin()).unflatten(found)
    chex.assert_trees_all_equal(
        rule.update(params, again, x, target), rule.update(params, state, x, target)
    )


def test_every_rule_takes_a_batch_of_no_examples(make_problem):
    step, loss, args, _ = make_problem("tanh", (0,), T=2)
    for name, make in ONLINE.items():
        key = {"key": jax.random.key(0)} if name in RANDOM else {}
        (value, _), grads = gradients.over_sequence(make(step, loss))(*args, **key)
        assert value == 0
        chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, args[0]))
