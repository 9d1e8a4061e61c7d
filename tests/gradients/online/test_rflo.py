"""Tests of RFLO: its published equations, feedback weights and learning signals."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from bpvariants import gradients

N, D, M, ALPHA = 3, 2, 2, 0.4
square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def leaky(params, h, x):
    """Step the cell of Murray 2019, without biases."""
    u = h @ params["recurrent"] + x @ params["inputs"]
    h = (1 - ALPHA) * h + ALPHA * jnp.tanh(u)
    return h, h @ params["readout"]


def element_wise(params, carry, x):
    """Step a network whose units do not read each other; RFLO is exact for it."""
    v, (slow, count) = carry["v"], carry["slow"]
    along = lambda leaf: jnp.broadcast_to(leaf, v.shape)
    decay = along(jax.nn.sigmoid(params["decay"]))
    new = decay * v + jnp.tanh(x @ params["inputs"][0]) - 0.3 * slow * v
    slow = 0.7 * slow + along(params["inputs"][1]) * v
    y = jnp.tanh(new + slow) @ params["readout"] + v @ params["readout"]
    return {"v": new, "slow": (slow, count + 1)}, y


def leaky_problem(batch=(2,), T=4):
    keys = iter(jax.random.split(jax.random.key(1), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = {"recurrent": normal(N, N), "inputs": normal(D, N)}
    params["readout"] = normal(N, M)
    return params, normal(*batch, N), normal(T, *batch, D), normal(T, *batch, M)


@cache
def element_wise_problem(batch=(2,), T=4, dtype=float):
    keys = iter(jax.random.split(jax.random.key(2), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    params = {"decay": normal(N), "inputs": (normal(D, N), normal(N))}
    params["readout"] = normal(N, M)
    carry = {"v": normal(*batch, N), "slow": (normal(*batch, N), jnp.zeros(batch, int))}
    return params, carry, normal(T, *batch, D), normal(T, *batch, M)


@cache
def along_sequence(step, rule=gradients.rflo, **options):
    return jax.jit(gradients.over_sequence(rule(step, square, **options)))


@cache
def bptt(step):
    return jax.jit(gradients.bptt(step, square))


@cache
def fixed_weights():
    return gradients.random_feedback(jax.random.key(3), jnp.zeros(M), jnp.zeros(N))


@cache
def online_rule(step, feedback="symmetric"):
    feedback = fixed_weights() if feedback == "random" else feedback
    return jit_update(gradients.rflo(step, square, feedback=feedback))


def jit_update(rule):
    return rule._replace(update=jax.jit(rule.update))


def run_online(rule, params, carry, xs, targets, **options):
    """Run an online rule over a sequence.

    Return the gradients of each time step and the last state.
    """
    state, all_grads = rule.init(params, carry, (xs[0], targets[0])), []
    everywhere = jnp.ones(targets.shape[:-1], bool)
    weights = jnp.ones(targets.shape[:-1])
    given = {"weight": weights, "mask": everywhere, "reset": ~everywhere}
    for t, (x, target) in enumerate(zip(xs, targets, strict=True)):
        now = {name: values[t] for name, values in (given | options).items()}
        _, grads, state = rule.update(params, state, x, target, **now)
        all_grads.append(grads)
    return all_grads, state


def published(params, h, xs, targets, feedback):
    """Yield the gradients of Murray 2019's recursion for one example, in NumPy."""
    params = {name: np.asarray(value) for name, value in params.items()}
    weights, inputs, readout = (params[k] for k in ("recurrent", "inputs", "readout"))
    h, of_recurrent, of_inputs = np.asarray(h), np.zeros((N, N)), np.zeros((D, N))
    for x, target in zip(np.asarray(xs), np.asarray(targets), strict=True):
        z = np.tanh(h @ weights + x @ inputs)
        slope = ALPHA * (1 - z**2)
        of_recurrent = (1 - ALPHA) * of_recurrent + np.outer(h, slope)
        of_inputs = (1 - ALPHA) * of_inputs + np.outer(x, slope)
        h = (1 - ALPHA) * h + ALPHA * z
        error = 2 * (h @ readout - target)
        signal = error @ (readout.T if feedback is None else feedback)
        yield {
            "recurrent": of_recurrent * signal,
            "inputs": of_inputs * signal,
            "readout": np.outer(h, error),
        }


@pytest.mark.parametrize("feedback", ["symmetric", "random"])
def test_is_the_published_recursion(feedback):
    args = params, carry, xs, targets = leaky_problem()
    got, _ = run_online(online_rule(leaky, feedback), *args)
    weights = np.asarray(fixed_weights()) if feedback == "random" else None
    examples = [
        published(params, carry[b], xs[:, b], targets[:, b], weights) for b in (0, 1)
    ]
    mean = lambda a, b: (a + b) / 2
    want = [jax.tree.map(mean, *both) for both in zip(*examples, strict=True)]
    assert_same(got, want)


def test_is_bptt_without_recurrent_weights_and_only_then():
    params, *rest = leaky_problem()
    errors = []
    for scale in (0.0, 1.0):
        scaled = params | {"recurrent": scale * params["recurrent"]}
        want = bptt(leaky)(scaled, *rest)
        got = along_sequence(leaky)(scaled, *rest)
        assert_same(got[0], want[0])
        difference = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), got, want)[1]
        errors.append(max(jax.tree.leaves(difference)))
    assert errors[0] < 1e-12
    assert errors[1] > 1e-3


def test_with_the_own_recurrence_kept_is_snap_1():
    """Compare RFLO with SnAp-1 on a network with a separate self-recurrence per unit.

    SnAp-1 stores the entries of the influence ∂h/∂θ that are nonzero after one time
    step. RFLO's traces are the same entries.
    """

    def own_recurrence_apart(params, h, x):
        own = jnp.diag(params["recurrent"])
        others = params["recurrent"] - jnp.diag(own)
        u = h @ others + h * jnp.broadcast_to(own, h.shape) + x @ params["inputs"]
        h = (1 - ALPHA) * h + ALPHA * jnp.tanh(u)
        return h, h @ params["readout"]

    params, carry, xs, targets = leaky_problem(batch=())
    snap = jit_update(gradients.snap(leaky, square, order=1))
    got, _ = run_online(online_rule(own_recurrence_apart), params, carry, xs, targets)
    assert_same(got, run_online(snap, params, carry, xs, targets)[0])
    weights, readout = params["recurrent"], np.asarray(params["readout"])
    influence, h = np.zeros((N, N, N)), carry
    unit = np.eye(N)[:, None, :]  # only h_i depends on the weights W[:, i]
    for x, target, grads in zip(xs, targets, got, strict=True):
        new, _ = leaky(params, h, x)
        slope = np.asarray(ALPHA - (new - (1 - ALPHA) * h) ** 2 / ALPHA)
        jacobian = (1 - ALPHA) * np.eye(N) + slope[:, None] * np.asarray(weights).T
        immediate = unit * np.asarray(h)[None, :, None] * slope[:, None, None]
        influence = unit * np.tensordot(jacobian, influence, 1) + immediate
        h = new
        signal = readout @ np.asarray(2 * (h @ params["readout"] - target))
        assert_same(grads["recurrent"], np.tensordot(signal, influence, 1))


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.fast_rows(1)
def test_is_bptt_where_every_number_has_its_own_memory(batch):
    args = element_wise_problem(batch)
    T = len(args[2])
    keys = jax.random.split(jax.random.key(4), 3)
    options = {
        "weights": jax.random.uniform(keys[0], (T, *batch)),
        "mask": jax.random.bernoulli(keys[1], 0.7, (T, *batch)),
        "reset": jax.random.bernoulli(keys[2], 0.3, (T, *batch)),
        "initial": jax.tree.map(lambda leaf: 2 * leaf, args[1]),
    }
    spoil = lambda leaf: jnp.where(options["mask"][..., None], leaf, jnp.nan)
    spoilt = *args[:2], spoil(args[2]), spoil(args[3])
    want = bptt(element_wise)(*args, **options)
    assert_same(along_sequence(element_wise)(*spoilt, **options), want)
    assert jnp.any(want[1]["readout"] != 0)


@pytest.mark.parametrize("cell", ["gru", "nested"])
@pytest.mark.slow
def test_one_step_is_static_backpropagation(make_problem, cell):
    step, loss, args, _ = make_problem(cell, T=1)
    want = jax.jit(gradients.bptt(step, loss))(*args)
    rule = gradients.over_sequence(gradients.rflo(step, loss))
    assert_same(jax.jit(rule)(*args), want)


def test_resets_separate_sequences():
    """Reset one of two examples; compare with separate runs of the two examples."""
    params, carry, xs, targets = leaky_problem()
    run = lambda xs, targets, **options: run_online(
        online_rule(leaky), params, carry, xs, targets, **options
    )[0]
    reset = jnp.zeros((4, 2), bool).at[2, 0].set(True)
    only = [jnp.zeros((4, 2)).at[:, b].set(1.0) for b in (0, 1)]
    for b, parts in enumerate([[slice(0, 2), slice(2, 4)], [slice(0, 4)]]):
        got = run(xs, targets, reset=reset, weight=only[b])
        apart = (run(xs[part], targets[part], weight=only[b]) for part in parts)
        assert_same(got, [grads for found in apart for grads in found])


def test_padding_leaves_all_that_is_remembered():
    params, carry, xs, targets = leaky_problem()
    rule = online_rule(leaky)
    _, state = run_online(rule, params, carry, xs, targets)
    nan, off = jnp.full_like(xs[0], jnp.nan), jnp.zeros(2, bool)
    value, grads, after = rule.update(
        params, state, nan, targets[0], weight=jnp.ones(2), mask=off, reset=~off
    )
    assert_same(after, state)
    assert_same((value, grads), jax.tree.map(jnp.zeros_like, (value, grads)))


def test_adaptive_feedback_nears_the_readout_by_a_share_a_step():
    """Check that the feedback B approaches the transposed readout Wᵀ exponentially.

    The feedback and the readout get the same updates and the same decay.
    """
    args = params, carry, xs, targets = leaky_problem()
    rate, decay = 0.05, 0.1
    feedback = gradients.AdaptiveFeedback(fixed_weights(), rate, decay)
    rule = jit_update(gradients.rflo(leaky, square, feedback=feedback))
    given = {"weight": jnp.array([1.0, 0.5]), "mask": jnp.ones(2, bool)}
    state = rule.init(params, carry, (xs[0], targets[0]))
    gap, first = fixed_weights() - params["readout"].T, None
    for x, target in zip(xs, targets, strict=True):
        _, grads, state = rule.update(params, state, x, target, **given)
        first = grads if first is None else first
        readout = (1 - decay) * params["readout"] - rate * grads["readout"]
        params = params | {"readout": readout}
        gap = (1 - decay) * gap
        assert_same(state.feedback - readout.T, gap)
    weight = jnp.broadcast_to(given["weight"], targets.shape[:-1])
    fixed = online_rule(leaky, "random")
    assert_same(first, run_online(fixed, *args, weight=weight)[0][0])
    given["mask"] = jnp.zeros(2, bool)
    padded = rule.update(params, state, xs[0], targets[0], **given)[2]
    assert_same(padded.feedback, state.feedback)


def test_a_signal_that_is_given_takes_the_place_of_the_derivative():
    args = leaky_problem()
    # The learning signal is the derivative of the loss of one example. In the mean over
    # two examples, the loss of one example has the weight ½.
    signal = lambda y, target: 2 * (y - target) @ args[0]["readout"].T
    rule = jit_update(gradients.rflo(leaky, square, signal=signal))
    assert_same(run_online(rule, *args)[0], run_online(online_rule(leaky), *args)[0])


@pytest.mark.slow
def test_feedback_goes_to_the_leaves_that_have_weights():
    """Give feedback weights to two outputs, and to a nested carry with a counter."""

    def two_outputs(params, carry, x):
        carry, y = element_wise(params, carry, x)
        return carry, {"first": y, "second": (jnp.sum(y, axis=-1), carry["slow"][1])}

    loss = lambda y, target: square(y["first"], target) + y["second"][0] ** 2
    params, carry, xs, targets = element_wise_problem()
    example = jax.tree.map(lambda leaf: leaf[0], carry)
    y = jax.eval_shape(two_outputs, params, example, xs[0, 0])[1]
    weights = gradients.random_feedback(jax.random.key(6), y, example)
    assert weights["second"][1] == {"v": None, "slow": (None, None)}
    weights["first"]["slow"] = None, None
    rule = gradients.rflo(two_outputs, loss, feedback=weights)
    state = rule.init(params, carry, (xs[0], targets[0]))
    _, got, _ = jax.jit(rule.update)(params, state, xs[0], targets[0])

    error = lambda y: jax.grad(lambda y: jnp.mean(loss(y, targets[0])), allow_int=True)(
        y
    )
    new, y = two_outputs(params, carry, xs[0])
    found = error(y)
    to_v = found["first"] @ weights["first"]["v"]
    to_v += found["second"][0][:, None] @ weights["second"][0]["v"][None]
    to_slow = found["second"][0][:, None] @ weights["second"][0]["slow"][0][None]

    def projected(params):
        new, _ = two_outputs(params, carry, xs[0])
        return jnp.sum(to_v * new["v"]) + jnp.sum(to_slow * new["slow"][0])

    want = jax.grad(projected)(params)
    direct = jax.tree.map(jnp.zeros_like, params) | {
        "readout": (jnp.tanh(new["v"] + new["slow"][0]) + carry["v"]).T
        @ (found["first"] + found["second"][0][:, None] @ jnp.ones((1, M)))
    }
    assert_same(got, jax.tree.map(jnp.add, want, direct))


@pytest.mark.parametrize("kind", ["twins", "passed_on", "constant", "named", "both"])
@pytest.mark.fast_rows(2)
def test_is_exact_however_the_output_hangs_together_with_the_carry(kind):
    """Check outputs if carry leaves are equal, unchanged, constant or named.

    The output depends on leaves of the old and the new carry.
    """

    def step(params, carry, x):
        a, b = carry
        along = lambda leaf: jnp.broadcast_to(leaf, a.shape)
        new = jnp.tanh(along(params["decay"]) * a + x @ params["inputs"][0] + b)
        if kind == "twins":
            return (new, new), new @ params["readout"]
        if kind == "passed_on":
            return (new, a), (new + a) @ params["readout"]
        if kind == "constant":
            return (new, jnp.zeros_like(b)), new @ params["readout"]
        if kind == "named":
            named = checkpoint_name(new, "h")
            return (named, b), new @ params["readout"]
        return (new, 0.5 * b + new), (a + new) @ params["readout"]

    params, carry, xs, targets = element_wise_problem()
    args = params, (carry["v"], carry["slow"][0]), xs, targets
    assert_same(along_sequence(step)(*args), bptt(step)(*args))


def test_takes_the_derivatives_that_a_network_defines():
    """Check that custom derivatives in a network are used, as for spikes."""

    @jax.custom_jvp
    def spike(v):
        return (v > 0).astype(v.dtype)

    spike.defjvp(lambda v, dot: (spike(*v), dot[0] / (1 + v[0] ** 2)))

    def spiking(params, carry, x):
        v = 0.8 * carry[0] + x @ params["inputs"][0]
        z = spike(v)
        return (v, z), z @ params["readout"] + spike(carry[0]) @ params["readout"]

    params, carry, xs, targets = element_wise_problem()
    args = params, (carry["v"], carry["slow"][0]), xs, targets
    want = bptt(spiking)(*args)
    assert jnp.any(want[1]["inputs"][0] != 0)
    assert_same(along_sequence(spiking)(*args), want)


@pytest.mark.slow
def test_remembers_in_float32_and_returns_dtypes_of_params():
    params, carry, xs, targets = element_wise_problem(dtype=jnp.bfloat16)
    rule = gradients.rflo(element_wise, square)
    state = rule.init(params, carry, (xs[0], targets[0]))
    value, grads, state = jax.jit(rule.update)(params, state, xs[0], targets[0])
    chex.assert_type([value, *jax.tree.leaves(state.influence)], jnp.float32)
    chex.assert_type(jax.tree.leaves(grads), jnp.bfloat16)
    chex.assert_tree_all_finite(grads)


def test_compiles_once_and_takes_rates_that_are_traced():
    params, carry, xs, targets = leaky_problem()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(rate, params, carry):
        feedback = gradients.AdaptiveFeedback(fixed_weights(), rate)
        rule = gradients.rflo(leaky, square, feedback=feedback)
        return gradients.over_sequence(rule)(params, carry, xs, targets)

    (_, last), grads = run(0.1, params, carry)
    _, others = run(0.2, params, carry)
    assert jnp.any(grads["recurrent"] != others["recurrent"])
    assert_same(grads["recurrent"].shape, others["recurrent"].shape)
    run(0.1, grads, last)


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ("random", "feedback must be 'symmetric', weights as .* got 'random'"),
        (jnp.zeros((N, M)), r"feedback must have an array of shape .* = \(2, 3\)"),
        ([jnp.zeros((M, N))], r"feedback must have an array of shape .*; got list"),
        ({"y": None}, "feedback must have .*; got dict"),
    ],
)
def test_feedback_that_does_not_fit_is_named(feedback, message):
    run = lambda: gradients.rflo(leaky, square, feedback=feedback)
    with pytest.raises(ValueError, match=message):
        gradients.over_sequence(run())(*leaky_problem())


def test_feedback_to_a_leaf_without_derivative_is_refused():
    feedback = {"v": jnp.zeros((M, N)), "slow": (None, jnp.zeros(M))}
    rule = gradients.rflo(element_wise, square, feedback=feedback)
    with pytest.raises(ValueError, match="must be None if one of them has no deriv"):
        gradients.over_sequence(rule)(*element_wise_problem())


def test_a_state_of_something_else_is_named():
    params, carry, xs, targets = leaky_problem()
    with pytest.raises(ValueError, match="state must be what rflo's init or update"):
        gradients.rflo(leaky, square).update(params, carry, xs[0], targets[0])
