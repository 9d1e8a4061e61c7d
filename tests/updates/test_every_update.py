"""Tests of promises that all updates make."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

# Each update of this table must pass every test of this file.
UPDATES = {
    "rprop": updates.rprop,
    "rprop_minus": updates.rprop_minus,
    "rprop_plus": updates.rprop_plus,
    "irprop_plus": updates.irprop_plus,
    "half_back": updates.half_back,
    "rprop_float32": partial(updates.rprop, state="float32"),
    "rprop_packed": partial(updates.rprop, state="packed"),
    "rprop_bfloat16": partial(updates.rprop, state="bfloat16"),
    "rprop_plus_packed": partial(updates.rprop_plus, state="packed"),
    "irprop_plus_after": partial(updates.irprop_plus, after=optax.identity()),
    "rprop_weight_decay": partial(updates.rprop, weight_decay=1e-3),
    "grprop": updates.grprop,
    "probabilistic_rprop": partial(updates.probabilistic_rprop, ema_decay=0.5),
    "manhattan": updates.manhattan,
    "forgetting": partial(updates.forgetting, decay=0.5),
    "forgetting_printed": partial(updates.forgetting, decay=0.05, scale_past=False),
    "forgetting_normalised": partial(updates.forgetting, decay=0.5, normalise=True),
    "forgetting_projected": lambda learning_rate, limit=2.4: optax.chain(
        updates.forgetting(learning_rate, decay=0.5),
        updates.project_spectral_norm(limit),
    ),
}
SIGNED = [name for name in UPDATES if "forgetting" not in name]


@pytest.fixture(params=UPDATES.values(), ids=UPDATES)
def make_update(request):
    return request.param


@pytest.fixture
def params():
    start = {"w": jnp.zeros((2, 3)), "b": [2 * jnp.ones(3), jnp.array(0.5)]}
    return start | {"empty": jnp.zeros((0, 2))}


def distance(params):
    # The sum is in float64, so that the value is accurate for any dtype of the params.
    leaves = [leaf - 1 for leaf in jax.tree.leaves(params)]
    return sum(jnp.sum(leaf**2, dtype=float) for leaf in leaves)


def descend(optimizer, params, steps=4):
    optimizer = optax.with_extra_args_support(optimizer)

    def body(params_and_state, _):
        params, state = params_and_state
        value, grads = jax.value_and_grad(distance)(params)
        update, state = optimizer.update(grads, state, params, value=value)
        return (optax.apply_updates(params, update), state), None

    return jax.lax.scan(body, (params, optimizer.init(params)), length=steps)[0]


def test_table_has_every_optimizer():
    functions = {name for name, value in vars(updates).items() if callable(value)}
    named = {name for name in functions if name.islower() and name[0] != "_"}
    others = {"irprop_minus", "rprop_report", "effective_step", "replay"}
    others |= {"discounted_least_squares", "recursive_least_squares"}
    # The projection only changes the result of another update, so it has its own tests.
    others |= {"project_spectral_norm"}
    assert {name for name in named if "scale" not in name} <= {*UPDATES, *others}


@pytest.mark.fast_rows(2)
def test_descends(make_update, params):
    end, _ = descend(make_update(0.1), params, steps=30)
    assert distance(end) < 0.1 * distance(params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.fast_rows(2)
def test_keeps_dtype_whatever_that_of_traced_hyperparameters(
    make_update, params, dtype
):
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    defaults = inspect.signature(make_update).parameters.items()
    numbers = {name: p.default for name, p in defaults if isinstance(p.default, float)}
    traced = jax.tree.map(jnp.float32, numbers | {"learning_rate": 0.1})
    end, _ = jax.jit(lambda traced: descend(make_update(**traced), start))(traced)
    chex.assert_trees_all_equal_shapes_and_dtypes(end, start)
    # The dtype of the learning rate may differ from the dtype of the params.
    traced["learning_rate"] = jnp.float64(0.1)
    again, _ = jax.jit(lambda traced: descend(make_update(**traced), start))(traced)
    chex.assert_trees_all_close(again, end, rtol=1e-2)


@pytest.mark.fast_rows(2)
def test_hyperparameters_may_be_injected_and_swept(make_update, params):
    want, _ = descend(make_update(0.1), params)
    got, state = descend(optax.inject_hyperparams(make_update)(0.1), params)
    chex.assert_trees_all_close(got, want, rtol=1e-6)
    assert optax.tree.get(state, "learning_rate") == pytest.approx(0.1)
    sweep = jax.vmap(lambda rate: descend(make_update(rate), params)[0])
    got = jax.tree.map(lambda leaf: leaf[1], sweep(jnp.array([0.01, 0.1])))
    chex.assert_trees_all_close(got, want, rtol=1e-6)


@pytest.mark.fast_rows(2)
def test_composes_with_optax(make_update, params):
    want, _ = descend(make_update(0.1), params)
    chained = optax.chain(optax.identity(), make_update(0.1))
    chex.assert_trees_all_close(descend(chained, params)[0], want)
    labels = {"w": "a", "b": "b", "empty": "a"}
    parts = {"a": make_update(0.1), "b": make_update(0.1)}
    # GRprop computes one step size from all params together, so a split of params by
    # labels changes its result.
    if make_update is not updates.grprop:
        by_label = optax.multi_transform(parts, labels)
        chex.assert_trees_all_close(descend(by_label, params)[0], want)
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps of optax promotes dtypes.
        steps = optax.MultiSteps(make_update(0.1), every_k_schedule=2)
        accumulated = optax.GradientTransformationExtraArgs(steps.init, steps.update)
        twice, _ = descend(accumulated, params, steps=8)
    chex.assert_trees_all_close(twice, want)


@pytest.mark.fast_rows(2)
def test_leaves_alone_what_is_masked(make_update, params):
    masks = {"w": True, "b": [False, False], "empty": False}
    for mask in (masks, jax.tree.map(lambda _: False, masks)):
        end, _ = descend(optax.masked(make_update(0.1), mask), params, steps=1)
        # GRprop uses all params together, so the reference has only the unmasked
        # params.
        alone = {"w": params["w"]}
        want, _ = descend(make_update(0.1), alone, steps=1)
        raw = jax.tree.map(jnp.add, params, jax.grad(distance)(params))
        chex.assert_trees_all_close(end["b"], raw["b"])
        chex.assert_trees_all_close(end["w"], want["w"] if mask["w"] else raw["w"])


@pytest.mark.fast_rows(2)
def test_recovers_from_nan(make_update, params):
    def step(optimizer, state, scale):
        grads = jax.tree.map(lambda leaf: scale * jnp.ones_like(leaf), params)
        return optimizer.update(grads, state, params, value=1.0)

    bare = optax.with_extra_args_support(make_update(0.1))
    _, state = step(bare, bare.init(params), 1.0)
    want, _ = step(bare, state, -1.0)
    for optimizer in (bare, optax.apply_if_finite(bare, max_consecutive_errors=3)):
        _, state = step(optimizer, optimizer.init(params), 1.0)
        poisoned, state = step(optimizer, state, jnp.nan)
        nan = [np.isnan(leaf).all() for leaf in jax.tree.leaves(poisoned) if leaf.size]
        assert all(nan) if optimizer is bare else not any(nan)
        got, _ = step(optimizer, state, -1.0)
        chex.assert_trees_all_equal(got, want)


@pytest.mark.fast_rows(3)
def test_compiles_once(make_update, params):
    optimizer, traces = optax.with_extra_args_support(make_update(0.1)), []

    @jax.jit
    def step(grads, state, params):
        traces.append(grads)
        return optimizer.update(grads, state, params, value=1.0)

    weak = params | {"weak": jnp.full((2,), 1.0)}
    state = optimizer.init(weak)
    for _ in range(3):
        _, state = step(weak, state, weak)
    assert len(traces) == 1


@pytest.mark.fast_rows(2)
def test_state_may_be_donated(make_update, params):
    """Donate the state to `update`; params and the new state must stay valid."""
    # XLA may write the returned update to the memory of the donated state, because both
    # have this size.
    params = {"w": jnp.ones(5, jnp.float32)}
    optimizer = optax.with_extra_args_support(make_update(0.1))
    update = lambda state, params: optimizer.update(params, state, params, value=1.0)
    _, state = jax.jit(update, donate_argnums=0)(optimizer.init(params), params)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, params)))


def test_compiles_once_when_a_hyperparameter_is_changed(make_update, params):
    optimizer, traces = optax.inject_hyperparams(make_update)(learning_rate=0.1), []

    @jax.jit
    def step(grads, state, params):
        traces.append(grads)
        return optimizer.update(grads, state, params, value=1.0)

    params = params["w"]
    state, moves = optimizer.init(params), []
    for change in (1.0, 1.0, 0.5):
        hyperparams = {k: v * change for k, v in state.hyperparams.items()}
        state = state._replace(hyperparams=hyperparams)
        move, state = step(jnp.ones_like(params), state, params)
        moves.append(move)
    assert len(traces) == 1
    assert np.all(moves[2] != moves[1])


@pytest.mark.fast_rows(3)
def test_four_devices_are_as_one(make_update):
    """Compare four devices with one, because XLA has bugs with sharded arrays.

    Example of a bug without this library: with v = jnp.arange(8.0) sharded over four
    devices,

        jax.jit(lambda v: jnp.concatenate([v, v]).at[2].set(-1.0))(v)

    is [0, 1, -1, 3, 2, 5, 6, 7, 2, 1, 2, 3, 2, 5, 6, 7] with jax 0.10.2 on CPUs. This
    result is wrong, because elements 4, 8 and 12 are 2 instead of 4, 0 and 4.
    """
    params = {"w": jnp.arange(16.0).reshape(8, 2), "b": jnp.arange(4.0) - 1}
    params |= {"whole": jnp.zeros(2)}
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    layout = {"w": rows, "b": rows, "whole": jax.NamedSharding(mesh, jax.P())}
    sharded = jax.device_put(params, layout)
    assert len(sharded["w"].sharding.device_set) == 4
    step = jax.jit(lambda params: descend(make_update(0.1), params))
    (want, _), (got, state) = step(params), step(sharded)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), rtol=1e-12)
    for leaf in jax.tree.leaves((got, state)):
        if leaf.shape in [(8, 2), (4,)]:
            assert leaf.sharding.is_equivalent_to(rows, leaf.ndim)


@pytest.mark.slow
def test_four_devices_are_as_one_in_float32():
    params = {"w": jnp.linspace(0, 3, 8, dtype="float32").reshape(4, 2)}
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    rows = jax.NamedSharding(mesh, jax.P("data"))

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def descend_all(params):
        return {name: descend(make(0.1), params)[0] for name, make in UPDATES.items()}

    want, got = descend_all(params), descend_all(jax.device_put(params, rows))
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), rtol=1e-6)


@pytest.mark.fast_rows(2)
def test_keeps_the_structure_of_bare_arrays_and_of_nothing(make_update):
    for params in (jnp.ones(()), {}, (jnp.ones(2), {"a": ()})):
        optimizer = optax.with_extra_args_support(make_update(0.1))
        move, _ = optimizer.update(params, optimizer.init(params), params, value=1.0)
        chex.assert_trees_all_equal_shapes_and_dtypes(move, params)


@pytest.mark.fast_rows(2)
def test_params_that_cannot_be_stepped_are_named(make_update):
    with pytest.raises(ValueError, match=r"params\['n'\] must be a floating array"):
        make_update(0.1).init({"n": jnp.arange(3)})


def test_leaves_that_are_no_arrays_are_named(make_update):
    init = make_update(0.1).init
    for leaf, shown in (
        ("tanh", "'tanh'"),
        (jax.nn.relu, "custom_jvp"),
        (len, "built-in"),
    ):
        message = rf"params\['act'\] must be an array, got .*{shown}.*from_equinox"
        with pytest.raises(ValueError, match=message):
            init({"w": jnp.ones(2), "act": leaf})
    with pytest.raises(
        ValueError, match=r"params\['a'\] must be an array, got .*ndarray"
    ):
        init({"a": np.array(["a"])})


def test_gradients_that_do_not_fit_are_named(make_update):
    """Raise an error for gradients that do not fit params; do not broadcast or cast."""
    optimizer = optax.with_extra_args_support(make_update(0.1))
    params = {"w": jnp.ones(3), "b": jnp.ones((2, 1))}
    state = optimizer.init(params)
    update = lambda grads: optimizer.update(grads, state, params, value=1.0)
    name = r"(grads|updates)"
    for changed, message in {
        "w": (jnp.ones((3, 3)), rf"{name}\['w'\] must be of shape \(3,\)"),
        "b": (jnp.ones((2, 4)), rf"{name}\['b'\] must be of shape \(2, 1\)"),
    }.items():
        with pytest.raises(ValueError, match=message[1]):
            update(params | {changed: message[0]})
    for grads, message in (
        ({"w": params["w"]}, rf"{name} must have the leaves .* an array \['b'\]"),
        (params | {"c": jnp.ones(1)}, rf"{name} must have the .* no array \['c'\]"),
        (params | {"w": None}, rf"{name} must have the leaves .* an array \['w'\]"),
        (params | {"w": jnp.arange(3)}, rf"{name}\['w'\] must be a floating array"),
        (params | {"w": "w"}, rf"{name}\['w'\] must be an array, got 'w'"),
        (params | {"w": jnp.ones(3, complex)}, rf"{name}\['w'\] must be real"),
    ):
        with pytest.raises(ValueError, match=message):
            update(grads)


def test_states_of_other_optimizers_are_named(make_update):
    optimizer = optax.with_extra_args_support(make_update(0.1))
    params = jnp.ones(2)
    own = jax.tree.structure(optimizer.init(params))
    others = [make(0.1) for make in (optax.adam, optax.adamw, updates.grprop)]
    for other in (*others, updates.rprop(0.1)):
        state = other.init(params)
        if jax.tree.structure(state) != own:
            # If the update in the table is a chain of optax, optax raises an error with
            # the second message.
            message = r"^state must be|^The number of updates and states"
            with pytest.raises(ValueError, match=message):
                optimizer.update(params, state, params, value=1.0)


@pytest.mark.slow
def test_scalars_and_none_among_leaves(make_update):
    """Update trees with Python numbers and None as leaves, as from `eqx.filter`."""
    optimizer = optax.with_extra_args_support(make_update(0.1))
    params = {"a": 0.5, "none": None, "n": np.ones((), np.float32)}
    state = optimizer.init(params)
    move, _ = optimizer.update(params, state, params, value=1.0)
    assert move["none"] is None
    assert jnp.shape(move["a"]) == jnp.shape(move["n"]) == ()
    assert np.isfinite(move["a"])


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.fast_rows(2)
def test_complex_params_have_no_sign(name):
    z = jnp.ones(2, complex)
    with pytest.raises(ValueError, match="split_real_and_imaginary"):
        UPDATES[name](0.05).init(z)
    split = optax.contrib.split_real_and_imaginary(UPDATES[name](0.05))
    split = optax.with_extra_args_support(split)
    # The wrapper split_real_and_imaginary drops the argument `value`, which irprop_plus
    # needs.
    if "irprop_plus" not in name:
        # The wrapper split_real_and_imaginary promotes dtypes.
        with jax.numpy_dtype_promotion("standard"):
            move, _ = split.update(z * (3 - 4j), split.init(z), 0 * z)
        want = np.full(2, -0.05 + 0.05j)
        # GRprop computes the step of one weight from all other steps and a small
        # constant δ: (0.05 · (3 − 8) + δ) / 3.
        if name == "grprop":
            want[0] = -0.25 / 3 + 0.05j
        np.testing.assert_allclose(move, want, rtol=1e-2)


def test_negative_manhattan_is_named():
    with pytest.raises(ValueError, match=r"learning_rate >= 0, got -0.1"):
        updates.manhattan(-0.1)


def test_manhattan_takes_a_schedule():
    optimizer = updates.manhattan(lambda n: 0.1 / (n.astype(float) + 1))
    body = lambda state, grad: optimizer.update(grad, state)[::-1]
    grads = jnp.array([1.0, -5.0, 2.0])
    _, got = jax.lax.scan(body, optimizer.init(grads[0]), grads)
    np.testing.assert_allclose(got, [-0.1, 0.05, -0.1 / 3], rtol=1e-12)
