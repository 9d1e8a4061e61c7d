"""Tests of promises that all gradient rules make, such as equality with `jax.grad`."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from bpvariants import gradients

CELLS = ["tanh", "gru", "lstm", "linen_rnn", "nnx", "nested"]
every_batch = pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)


@cache
def jitted(make_rule, step, loss):
    return jax.jit(make_rule(step, loss))


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


@every_batch
@pytest.mark.fast_rows(2)
def test_bptt_equals_finite_differences(make_problem, cell, batch):
    step, loss, (params, *rest), options = make_problem(cell, batch)
    rule = jitted(gradients.bptt, step, loss)
    value = lambda params: rule(params, *rest, **options)[0][0]

    def value_and_pullback(params):
        (value, _), grads = rule(params, *rest, **options)
        return value, lambda ct: (jax.tree.map(lambda g: ct * g, grads),)

    jax.test_util.check_vjp(
        value, value_and_pullback, (params,), eps=1e-5, rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize(
    ("cell", "batch"),
    [("lstm", ()), ("nested", (2, 3)), *((cell, (3,)) for cell in CELLS)],
)
def test_exact_rule_equals_bptt(make_rule, make_problem, cell, batch):
    step, loss, args, options = make_problem(cell, batch)
    want = jitted(gradients.bptt, step, loss)(*args, **options)
    assert_same(jitted(make_rule, step, loss)(*args, **options), want)


def test_exact_rule_equals_bptt_by_default(make_rule, make_problem):
    step, loss, args, _ = make_problem()
    want = jitted(gradients.bptt, step, loss)(*args)
    assert_same(jitted(make_rule, step, loss)(*args), want)


def test_one_step_is_static_backpropagation(make_problem, cell):
    step, loss, (params, carry, xs, targets), _ = make_problem(cell, T=1)
    layer = lambda params, carry_and_x: step(params, *carry_and_x)[1]
    static = gradients.backprop([(layer, lambda s: s)], loss)
    (value, _), grads = jax.jit(static)((params,), (carry, xs[0]), targets[0])
    rules = (
        gradients.bptt(step, loss),
        gradients.truncated_bptt(step, loss, every=1, lookback=1),
        gradients.over_sequence(gradients.rtrl(step, loss)),
    )
    for rule in rules:
        (got, _), (got_grads) = jax.jit(rule)(params, carry, xs, targets)
        assert_same((got, got_grads), (value, grads[0]))


@pytest.mark.parametrize("weights", [None, jnp.ones((4, 3))], ids=["default", "ones"])
@pytest.mark.fast_rows(2)
def test_padding_counts_as_absent(make_rule, make_problem, weights):
    step, loss, (params, carry, xs, targets), _ = make_problem(batch=(3,), T=4)
    rule = jitted(make_rule, step, loss)
    example = lambda tree, b: jax.tree.map(lambda leaf: leaf[..., b, :], tree)

    def alone(b, length):
        sequence = example(xs, b)[:length], example(targets, b)[:length]
        return rule(params, example(carry, b), *sequence)

    (long, long_last), long_grads = alone(0, 4)
    (short, short_last), short_grads = alone(1, 1)
    mean = lambda a, b: (4 * a + b) / 5

    mask = gradients.mask_from_lengths(jnp.array([4, 1, 0]), 4)
    spoil = lambda leaf: jnp.where(mask[..., None], leaf, jnp.nan)
    (value, last), grads = rule(
        params, carry, spoil(xs), spoil(targets), weights, mask, reset=~mask
    )
    want = jax.tree.map(mean, (long, long_grads), (short, short_grads))
    assert_same((value, grads), want)
    want = [long_last, short_last, example(carry, 2)]
    assert_same([example(last, b) for b in range(3)], want)


def test_reset_starts_from_the_initial_carry(make_rule, make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem(batch=(), T=5)
    rule = jitted(make_rule, step, loss)
    (first, _), first_grads = rule(params, carry, xs[:2], targets[:2])
    (second, want_last), second_grads = rule(params, carry, xs[2:], targets[2:])
    reset = jnp.arange(5) == 2
    (value, last), grads = rule(params, carry, xs, targets, reset=reset)
    mean = lambda a, b: (2 * a + 3 * b) / 5
    want = jax.tree.map(mean, (first, first_grads), (second, second_grads))
    assert_same((value, grads, last), (*want, want_last))


def test_carry_continues_a_sequence_down_to_single_steps(make_rule, make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem(T=3)
    rule = jitted(make_rule, step, loss)
    (want_value, want_carry), _ = rule(params, carry, xs, targets)
    total = 0.0
    for x, target in zip(xs[:, None], targets[:, None], strict=True):
        (value, carry), _ = rule(params, carry, x, target)
        total += value
    assert_same((total / 3, carry), (want_value, want_carry))


@pytest.mark.parametrize("batch", [(3,), (0,)], ids=str)
@pytest.mark.fast_rows(2)
def test_nothing_that_counts_gives_zero(make_rule, make_problem, batch):
    step, loss, args, _ = make_problem(batch=batch)
    mask = None if batch == (0,) else jnp.zeros((5, 3), bool)
    (value, carry), grads = jitted(make_rule, step, loss)(*args, mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, args[0])
    assert_same((value, carry, grads), (jnp.zeros(()), args[1], zeros))


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_dtypes_also_mixed(make_rule, make_problem, params_dtype, dtype):
    step, loss, (params, *rest), options = make_problem("tanh", dtype=dtype)
    cast = lambda tree, dtype: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
    mixed_step = lambda params, carry, x: step(cast(params, dtype), carry, x)
    rule = make_rule(mixed_step, loss)
    (value, carry), grads = rule(cast(params, params_dtype), *rest, **options)
    chex.assert_type([value, carry], [jnp.float32, dtype])
    chex.assert_type(jax.tree.leaves(grads), params_dtype)
    chex.assert_tree_all_finite(grads)


def test_long_sums_stay_exact_in_bfloat16(make_rule):
    rule = make_rule(lambda w, h, x: (h, w * x), lambda y, target: y)
    one, ones = jnp.ones((), jnp.bfloat16), jnp.ones(1000, jnp.bfloat16)
    assert rule(one, one, ones, ones)[1] == 1


def test_compiles_once_and_maps_over_params(make_rule, make_problem):
    step, loss, (params, *rest), _ = make_problem("tanh")
    rule, traces = make_rule(step, loss), []
    recorded = lambda *args: traces.append(args) or rule(*args)
    sweep = jax.jit(jax.vmap(recorded, in_axes=(0, None, None, None)))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    _, grads = sweep(both, *rest)
    want = jitted(make_rule, step, loss)(params, *rest)[1]
    assert_same(jax.tree.map(lambda leaf: leaf[0], grads), want)
    sweep(grads, *rest)
    assert len(traces) == 1


def test_network_sees_as_many_batch_axes_as_it_is_given(make_rule, make_problem):
    step, loss, args, _ = make_problem("tanh", batch=(2, 3))

    def step_for_two_batch_axes(params, carry, x):
        chex.assert_rank([carry, x], 3)
        return step(params, carry, x)

    make_rule(step_for_two_batch_axes, loss)(*args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": jnp.zeros((4, 3, 4))}, r"targets must have 5 time steps"),
        ({"xs": jnp.zeros((0, 3, 2))}, r"xs must have arrays whose first axis"),
        ({"mask": jnp.ones((5, 3), int)}, r"mask must be bool, got int64"),
        ({"reset": jnp.ones((5, 2), bool)}, r"reset must have one entry for each"),
        ({"weights": jnp.ones(5)}, r"weights? must have one entry for each loss"),
        (
            {"params": {"w": jnp.ones(2, int)}},
            r"params\['w'\] must be a floating array",
        ),
        ({"params": {}}, r"params has no arrays"),
        ({"xs": jnp.zeros((5, 4, 2))}, r"do not fit .* shapes \[\(3, 3\), \(3, 3\)\]"),
        ({"initial": jnp.zeros((3, 3))}, r"initial must have the structure"),
    ],
)
def test_mistakes_are_named(make_rule, make_problem, change, message):
    step, loss, args, _ = make_problem()
    given = dict(zip(("params", "carry", "xs", "targets"), args, strict=True))
    with pytest.raises(ValueError, match=message):
        make_rule(step, loss)(**given | change)


def test_rtrl_takes_examples_one_at_a_time():
    """Check dropout under RTRL: M and h use the same dropout mask for each example.

    M is the influence ∂h/∂θ of the parameters θ on the carry h.
    """
    key = jax.random.key(5)

    def dropping(w, h, x):
        kept = jax.random.bernoulli(key, 0.5, h.shape).astype(h.dtype)
        h = jnp.tanh(w * (h * kept) + x)
        return h, h

    one = lambda w, h, x: jax.tree.map(lambda y: y[0], dropping(w, h[None], x[None]))
    by_example = jax.vmap(one, in_axes=(None, 0, 0))
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    args = jnp.array(0.9), jnp.ones((4, 2)), jnp.ones((3, 4, 2)), jnp.zeros((3, 4, 2))
    want = gradients.bptt(by_example, loss)(*args)
    assert_same(gradients.over_sequence(gradients.rtrl(dropping, loss))(*args), want)
    outside = lambda w, h, x: (w * h + args[1], h)
    with pytest.raises(ValueError, match="one example at a time, as a batch of one"):
        gradients.over_sequence(gradients.rtrl(outside, loss))(*args)


@pytest.mark.slow
def test_rtrl_sees_through_references_and_does_without_state_or_input():
    square = lambda y, target: (y - target) ** 2

    def by_reference(w, h, x):
        ref = jax.new_ref(w * h + x)
        return (h := jnp.tanh(ref[...])), h

    plain = lambda w, h, x: (jnp.tanh(w * h + x),) * 2
    grads = []
    for step in (plain, by_reference):
        rule = gradients.rtrl(step, square)
        state = rule.init(0.9, jnp.ones(()), (jnp.array(0.5), jnp.array(0.0)))
        for _ in range(3):
            _, grad, state = rule.update(0.9, state, jnp.array(0.5), jnp.array(0.0))
        grads.append(grad)
    assert_same(grads[1], grads[0])

    rectangular = jnp.eye(3) / 2, jnp.zeros((0, 3))
    no_input = lambda p, h, x: (jnp.tanh(h @ p[0] + x @ p[1]),) * 2
    no_state = lambda p, h, x: ((), p[0][:, 0] @ x)
    cases = [
        (no_input, jnp.ones((2, 3)), jnp.zeros((4, 2, 0)), jnp.zeros((4, 2, 3))),
        (no_state, (), jnp.ones((4, 3)), jnp.zeros((4, 1))[:, 0]),
    ]
    for step, carry, xs, targets in cases:
        loss = lambda y, t: jnp.sum((y - t) ** 2, axis=tuple(range(y.ndim))[1:])
        rules = gradients.bptt(step, loss), gradients.rtrl(step, loss)
        want = rules[0](rectangular, carry, xs, targets)
        got = gradients.over_sequence(rules[1])(rectangular, carry, xs, targets)
        assert_same(got, want)


def test_weights_of_a_step_that_cancel_are_not_silent():
    step = lambda w, h, x: (h + w * x,) * 2
    square = lambda y, target: (y - target) ** 2
    rule = gradients.over_sequence(gradients.rtrl(step, square))
    args = jnp.array(2.0), jnp.zeros(2), jnp.ones((2, 2)), jnp.zeros((2, 2))
    (value, _), grad = rule(*args, weights=jnp.array([[1.0, -1.0], [1.0, 1.0]]))
    assert jnp.isnan(value)
    assert jnp.isnan(grad)
    (value, _), _ = rule(*args, weights=jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    assert value == 16


@pytest.mark.slow
def test_numbers_and_lists_are_taken_for_arrays():
    step = lambda w, h, x: (h + w * x,) * 2
    square = lambda y, target: (y - target) ** 2
    rule = gradients.rtrl(step, square)
    state = rule.init(2.0, jnp.zeros(()), (jnp.ones(()), jnp.zeros(())))
    options = {"weight": 1.0, "mask": True, "reset": False}
    assert rule.update(2.0, state, jnp.ones(()), jnp.zeros(()), **options)[0] == 4
    args = 2.0, jnp.zeros((), jnp.float32), *jnp.ones((2, 2), jnp.float32)
    for rule in (gradients.bptt, gradients.truncated_bptt):
        settings = {"every": np.int64(1), "lookback": 2}
        rule = rule(step, square, **(settings if rule is not gradients.bptt else {}))
        (value, _), grad = rule(*args, weights=[0.0, 1.0])
        assert (value, grad) == (9, 12)


def test_rtrl_refuses_what_is_complex():
    rule = gradients.rtrl(lambda w, h, x: (w * h, h.real), lambda y, t: y)
    with pytest.raises(ValueError, match="carry must be real, got complex128"):
        rule.init(1.0, jnp.ones((), complex), (1.0, 1.0))
    with pytest.raises(ValueError, match="params must be real, got complex128"):
        rule.init(1j, jnp.ones(()), (1.0, 1.0))


def test_online_rules_name_what_they_are_not_given(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh")
    online = gradients.rtrl(step, loss)
    with pytest.raises(ValueError, match="online must be an OnlineRule"):
        gradients.over_sequence(gradients.rtrl)
    with pytest.raises(ValueError, match="state must be what rtrl's init or update"):
        online.update(params, carry, xs[0], targets[0])


def test_a_loss_for_each_feature_is_named(make_rule, make_problem):
    step, _, args, _ = make_problem()
    with pytest.raises(ValueError, match="loss must give one number for each ex"):
        make_rule(step, lambda y, target: (y - target) ** 2)(*args)


def test_a_carry_that_changes_shape_is_named(make_rule):
    step = lambda w, h, x: (jnp.stack([h, h]), w * h)
    with pytest.raises(
        ValueError, match="carry that step returns must have the struct"
    ):
        make_rule(step, lambda y, target: y)(1.0, jnp.ones(()), *jnp.ones((2, 3)))
