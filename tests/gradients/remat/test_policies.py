"""Tests of rematerialisation policies: equal gradients, at the predicted cost."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.remat._cost import _divisors
from bpvariants.gradients.remat._slots_scan import schedule

POLICIES = [  # the fast tier tests the first four
    gradients.remat.slots(3),
    gradients.remat.every(5, 3, 1),
    gradients.remat.budget(2000),
    "step",
    gradients.remat.every(1),
    gradients.remat.every(3),
    gradients.remat.every(4),
    gradients.remat.every(50),
    gradients.remat.every(4, 2),
    gradients.remat.slots(1),
    gradients.remat.slots(2),
    gradients.remat.slots(50),
    gradients.remat.budget(10**9),
]


def squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.fast_rows(4)
def test_every_policy_gives_the_same_gradients(make_problem, policy):
    """Compare derivatives in params, carry, `initial` and inputs between policies.

    The carry contains an integer counter; masks, resets and loss weights are given.
    """
    step, loss, (params, carry, xs, targets), options = make_problem("nested", T=7)
    flags = {name: options[name] for name in ("mask", "reset")}

    def value(remat, params, carry, xs, initial):
        last, ys = gradients.unroll(
            step, params, carry, xs, initial=initial, remat=remat, **flags
        )
        floating = [leaf for leaf in jax.tree.leaves(last) if leaf.dtype != int]
        ends = sum(jnp.sum(leaf**2) for leaf in floating)
        return jnp.sum(options["weights"] * loss(ys, targets)) + ends, (last, ys)

    def gradient(remat):
        function = partial(value, remat)
        gradient = jax.value_and_grad(function, (0, 1, 2, 3), True, allow_int=True)
        return jax.jit(gradient)(params, carry, xs, options["initial"])

    drop = lambda tree: [
        leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0
    ]
    want, got = gradient(None), gradient(policy)
    chex.assert_trees_all_close(drop(got), drop(want), rtol=1e-12, atol=1e-13)


def count_tanh(jaxpr, trips=1):
    """Count the evaluations of tanh in a jaxpr, in every iteration of its scans."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        total += trips * (name == "tanh")
        inner = [getattr(value, "jaxpr", value) for value in params.values()]
        inner = [program for program in inner if hasattr(program, "eqns")]
        times = params["length"] if name == "scan" else 1
        total += sum(count_tanh(sub, trips * times) for sub in inner)
    return total


def tanh_step(w, h, x):
    h = jnp.tanh(h @ w + x)
    return h, h


@pytest.mark.parametrize(
    ("length", "policy", "evaluations"),
    [
        (12, None, 12),
        (12, "step", 24),
        (12, gradients.remat.every(4), 24),
        (12, gradients.remat.every(4, 1), 36),
        (12, gradients.remat.every(6, 3), 36),
        (12, gradients.remat.every(6, 3, 1), 48),
        (13, gradients.remat.every(5), 23),
        (13, gradients.remat.every(5, 2), 33),
        (13, gradients.remat.every(20, 5), 23),
    ],
)
def test_stretches_cost_what_is_predicted(length, policy, evaluations):
    """Compare the step evaluations in the jaxpr with the predicted number.

    The numbers for sequences of 12 time steps are published numbers.
    """
    rule = gradients.bptt(tanh_step, squared_error, remat=policy)
    xs = jnp.zeros((length, 2))
    program = jax.make_jaxpr(rule)(jnp.eye(2), jnp.zeros(2), xs, xs).jaxpr
    assert gradients.remat.predicted_cost(length, policy).evaluations == evaluations
    assert count_tanh(program) == evaluations


@pytest.mark.parametrize(("length", "m"), [(2, 1), (7, 1), (9, 2), (12, 3), (12, 20)])
@pytest.mark.fast_rows(2)
def test_slots_cost_what_is_predicted(length, m):
    """Compare the predicted number of step evaluations with the number at run time."""
    calls = []

    def counted(w, h, x):
        jax.debug.callback(lambda: calls.append(1))
        return tanh_step(w, h, x)

    rule = gradients.bptt(counted, squared_error, remat=gradients.remat.slots(m))
    xs = jnp.ones((length, 2))
    jax.block_until_ready(jax.jit(rule)(jnp.eye(2), jnp.ones(2), xs, xs))
    jax.effects_barrier()
    cost = gradients.remat.predicted_cost(length, gradients.remat.slots(m))
    assert len(calls) == cost.evaluations


def test_a_second_derivative_of_slots_is_forward_or_names_them():
    args = jnp.array([0.1]), jnp.arange(4.0)[:, None], jnp.zeros((4, 1))
    grad_of = lambda remat: (
        lambda w: gradients.bptt(tanh_step, squared_error, remat=remat)(
            w[None, None], *args
        )[1][0, 0]
    )
    grad, plain, w = grad_of(gradients.remat.slots(2)), grad_of(None), jnp.array(0.5)
    want = jax.jit(jax.grad(plain))(w)
    chex.assert_trees_all_close(jax.jit(jax.jacfwd(grad))(w), want, rtol=1e-12)
    for twice in (jax.grad(grad), jax.jit(jax.grad(grad))):
        with pytest.raises(ValueError, match=r"remat=slots\(…\).*budget.* jax\.jvp"):
            twice(w)


@cache
def optimum(t, m):
    """Compute the least number of step evaluations, as in Gruslys et al. 2016."""
    if t <= 1 or m == 1:
        return t * (t + 1) // 2
    return min(y + optimum(t - y, m - 1) + optimum(y, m) for y in range(1, t))


def test_the_schedule_is_optimal_and_visits_what_it_says():
    for length in range(2, 40):
        for m in range(1, length + 2):
            plan = schedule(length, m)
            evaluations = 2 * length + int(np.sum(plan.end - plan.begin))
            cost = gradients.remat.predicted_cost(length, gradients.remat.slots(m))
            assert evaluations == cost.evaluations
            assert evaluations == optimum(length, min(m, length)) + 1
            slots = {slot: t for t, slot in enumerate(plan.kept)}
            assert max(slots) <= m
            for t in reversed(range(length)):
                at = slots[plan.slot[t]]
                for i in range(plan.begin[t], plan.end[t]):
                    assert plan.step[i] == at
                    slots[plan.keep[i]] = at
                    at += 1
                assert at == t


@pytest.mark.parametrize(
    ("number", "divisors"),
    [(1, [1]), (2, [1, 2]), (9, [1, 3, 9]), (12, [1, 2, 3, 4, 6, 12])],
)
def test_a_budget_tries_every_length_that_divides_the_sequence(number, divisors):
    assert _divisors(number) == divisors


@pytest.mark.parametrize(
    ("m", "published"),
    [(10, 4636), (20, 3747), (32, 3405), (45, 2953), (50, 2948), (60, 2938)],
)
def test_published_counts_for_a_thousand_steps(m, published):
    """Compare the number of step evaluations with published numbers.

    Our number is larger than the published number by one, because our forward pass also
    evaluates the last time step.
    """
    cost = gradients.remat.predicted_cost(1000, gradients.remat.slots(m))
    assert cost.evaluations == published + 1


def lstm_step(params, carry, x):
    h, c = carry
    gates = x @ params[0] + h @ params[1]
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def lstm(length, batch=8, inputs=8, units=32, dtype=jnp.float32):
    params = (
        jnp.ones((inputs, 4 * units), dtype) / 8,
        jnp.ones((units, 4 * units), dtype) / 8,
    )
    carry = (jnp.zeros((batch, units), dtype),) * 2
    sequence = lambda n: jnp.zeros((length, batch, n), dtype)
    return params, carry, sequence(inputs), sequence(units)


def temporary_bytes(policy, arguments):
    rule = gradients.bptt(lstm_step, squared_error, remat=policy)
    program = jax.jit(rule).lower(*arguments).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "policy",
    [
        gradients.remat.every(79),
        gradients.remat.slots(20),
        gradients.remat.every(80, 8),
        None,
        "step",
        gradients.remat.every(20),
    ],
    ids=str,
)
@pytest.mark.fast_rows(2)
def test_memory_is_what_is_predicted(policy):
    arguments = params, carry, xs, targets = lstm(400)
    size = gradients.remat.step_bytes(
        lstm_step, params, carry, xs[0], squared_error, targets[0]
    )
    predicted = gradients.remat.predicted_cost(400, policy, size).bytes
    weights = sum(leaf.nbytes for leaf in params)
    nested = 1 + len(getattr(policy, "lengths", ()))
    used = temporary_bytes(policy, arguments)
    # Memory is also needed for the gradient, of which each nested scan accumulates a
    # copy.
    assert 0.9 * predicted < used < 1.02 * predicted + 4 * nested * weights


def test_slots_take_memory_like_the_root_of_the_length():
    lengths = 64, 256, 1024
    policies = {T: gradients.remat.slots(round(T**0.5)) for T in lengths}
    carries = 2 * sum(leaf.nbytes for leaf in lstm(64)[1])
    constant = temporary_bytes(gradients.remat.slots(1), lstm(64)) - carries
    sizes = [temporary_bytes(policies[T], lstm(T)) - constant for T in lengths]
    assert np.all(np.diff(np.log(sizes)) / np.log(4) < 0.55)


def test_budgets_are_kept_and_refused(make_problem):
    _, carry, xs, targets = arguments = lstm(400)
    size = gradients.remat.step_bytes(
        lstm_step, arguments[0], carry, xs[0], squared_error, targets[0]
    )
    before = 0
    for num_bytes in (10**7, 10**6, 400_000, 50_000, 18_000):
        cost = gradients.remat.predicted_cost(
            400, gradients.remat.budget(num_bytes), size
        )
        assert cost.bytes <= num_bytes
        assert cost.evaluations >= before
        before = cost.evaluations
    odd = gradients.remat.StepBytes(carry=8, kept=48, inputs=4)
    # 997 is prime, so a sequence of this length cannot be divided into parts of equal
    # length.
    cost = gradients.remat.predicted_cost(997, gradients.remat.budget(6000), odd)
    assert cost.evaluations < 2 * 997
    rule = gradients.bptt(lstm_step, squared_error, remat=gradients.remat.budget(100))
    with pytest.raises(ValueError, match=r"budget must be at least \d+ bytes for 400"):
        rule(*arguments)
    with pytest.raises(ValueError, match="size must be given"):
        gradients.remat.predicted_cost(400, gradients.remat.budget(100))


@pytest.mark.parametrize(
    "policy",
    [gradients.remat.every(3), gradients.remat.slots(2)],
    ids=["every", "slots"],
)
@pytest.mark.slow
def test_steps_may_close_over_what_is_differentiated_mapped_or_random(policy):
    xs = jnp.linspace(0.1, 1.0, 16).reshape(8, 2)
    key = jax.random.key(3)

    def value(remat, scale, shift, w):
        def step(w, state, x):
            h, key = state
            key, now = jax.random.split(key)
            noise = jax.random.normal(now, h.shape)
            h = jnp.tanh(scale * (h @ w) + x + shift.astype(x.dtype) + 0.1 * noise)
            return (h, key), h

        start = jnp.ones(2), key
        _, ys = gradients.unroll(step, w, start, xs, remat=remat)
        return jnp.sum(ys**2)

    w = jnp.array([[0.5, -0.3], [0.2, 0.4]])
    results = []
    for remat in (None, policy):
        gradient = jax.grad(partial(value, remat), argnums=(0, 2))
        mapped = jax.vmap(gradient, in_axes=(0, 0, None))
        results.append(jax.jit(mapped)(jnp.array([1.0, 2.0]), jnp.array([0, 1]), w))
    chex.assert_trees_all_close(*results, rtol=1e-12)


@pytest.mark.slow
def test_second_derivatives(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh")

    def products(remat):
        rule = gradients.bptt(step, loss, remat=remat)
        gradient = lambda params: rule(params, carry, xs, targets)[1]
        return jax.jit(lambda p: jax.jvp(gradient, (p,), (p,))[1])(params)

    want = products(None)
    for policy in (gradients.remat.every(2), gradients.remat.slots(2)):
        chex.assert_trees_all_close(products(policy), want, rtol=1e-11)


@pytest.mark.slow
def test_four_devices_equal_one():
    params, carry, xs, targets = lstm(8, dtype=float)
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    put = lambda tree, spec: jax.device_put(tree, jax.NamedSharding(mesh, spec))
    xs, targets = xs + 0.1, targets - 1
    by_batch = put(carry, jax.P("data")), *put((xs, targets), jax.P(None, "data"))
    for policy in (gradients.remat.every(3), gradients.remat.slots(2)):
        rule = jax.jit(gradients.bptt(lstm_step, squared_error, remat=policy))
        got = rule(put(params, jax.P()), *by_batch)
        want = rule(params, carry, xs, targets)
        chex.assert_trees_all_close(got, want, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gradients.remat.every(0),
            "lengths must be an integer of at least 1, got 0",
        ),
        (lambda: gradients.remat.every(), "lengths must be at least one"),
        (
            lambda: gradients.remat.every(4, 4),
            r"each smaller than the one before.*\(4, 4\)",
        ),
        (lambda: gradients.remat.slots(1.5), "number must be an integer of at least 1"),
        (
            lambda: gradients.remat.budget(True),
            "num_bytes must be an integer of at least 1",
        ),
        (
            lambda: gradients.remat.predicted_cost(0, None),
            "num_steps must be an integer",
        ),
        (
            lambda: gradients.remat.predicted_cost(4, None, 3),
            "size must be what gradients.",
        ),
        (
            lambda: gradients.remat.predicted_cost(4, 3),
            "remat must be None, 'step', gr",
        ),
        (
            lambda: gradients.remat.predicted_cost(4, True),
            "remat must be None, 'step'",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_policy_is_named(make_problem):
    step, loss, args, _ = make_problem("tanh")
    with pytest.raises(ValueError, match=r"gradients.remat.every\(k\).*; got 50"):
        gradients.bptt(step, loss, remat=50)(*args)
