"""Tests of e-prop: traces computed by hand, and networks for which it is exact."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import cells, gradients

N, D, M = 3, 2, 2
KAPPA, RHO, BETA = 0.8, 0.9, 0.3
square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def second(carry):
    return carry[1]


def last(carry):
    return carry[-1]


def rate(params, carry, x):
    """Step leaky units that read each other's rates z = tanh v."""
    v, z = carry
    v = KAPPA * v + z @ params["recurrent"] + x @ params["inputs"]
    z = jnp.tanh(v)
    return (v, z), z @ params["readout"]


@jax.custom_jvp
def spike(distance):
    return (distance > 0).astype(distance.dtype)


def slope(distance):
    return 0.3 * np.maximum(0, 1 - np.abs(distance))


@spike.defjvp
def _(primals, tangents):
    (distance,) = primals
    return spike(distance), tangents[0] * 0.3 * jnp.maximum(0, 1 - jnp.abs(distance))


def adaptive(params, carry, x):
    """Step the ALIF neurons of Bellec et al. 2020.

    The potential V and the threshold adaptation a of a unit determine its spikes.
    """
    v, a, z = carry
    a_new = RHO * a + spike(v - 0.5 - BETA * a)
    v = KAPPA * v + z @ params["recurrent"] + x @ params["inputs"]
    z = spike(v - 0.5 - BETA * a_new)
    return (v, a_new, z), z @ params["readout"]


def lstm(params, carry, x):
    carry, h = cells.lstm(params["cell"], carry, x)
    return carry, h @ params["readout"]


VISIBLE = {rate: second, adaptive: last, lstm: second}


@cache
def problem(step, batch=(2,), T=4, dtype=float):
    keys = iter(jax.random.split(jax.random.key(7), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    if step is lstm:
        cell = cells.lstm.init(next(keys), D, N, dtype=dtype)
        params = {"cell": cell | {"bias": normal(4 * N)}}
    else:
        params = {"recurrent": normal(N, N), "inputs": normal(D, N)}
    params["readout"] = normal(N, M)
    carry = tuple(normal(*batch, N) for _ in range(3 if step is adaptive else 2))
    return params, carry, 2 * normal(T, *batch, D), normal(T, *batch, M)


@cache
def along_sequence(step, feedback="symmetric"):
    rule = gradients.eprop(step, square, visible=VISIBLE[step], feedback=feedback)
    return jax.jit(gradients.over_sequence(rule))


@cache
def bptt(step):
    return jax.jit(gradients.bptt(step, square))


@cache
def fixed_weights():
    return gradients.random_feedback(jax.random.key(8), jnp.zeros(M), jnp.zeros(N))


@cache
def online_rule(step, feedback="symmetric"):
    feedback = fixed_weights() if feedback == "random" else feedback
    rule = gradients.eprop(step, square, visible=VISIBLE[step], feedback=feedback)
    return rule._replace(update=jax.jit(rule.update))


@cache
def with_signal(step):
    """Return e-prop with learning signals that are given as part of the targets.

    A target is the tuple (label, weight of the loss, learning signal).
    """
    loss = lambda y, target: target[1] * square(y, target[0])
    signal = lambda y, target: target[2]
    rule = gradients.eprop(step, loss, visible=VISIBLE[step], signal=signal)
    return rule._replace(update=jax.jit(rule.update))


def online(rule, args, **options):
    """Run an online rule over a sequence; return the gradients of each step."""
    params, carry, xs, targets = args
    of_step = lambda t: jax.tree.map(lambda leaf: leaf[t], (xs, targets))
    state, found = rule.init(params, carry, of_step(0)), []
    everywhere = jnp.ones(xs.shape[:-1], bool)
    weights = jnp.ones(xs.shape[:-1])
    given = {"weight": weights, "mask": everywhere, "reset": ~everywhere}
    for t in range(len(xs)):
        now = {name: values[t] for name, values in (given | options).items()}
        _, grads, state = rule.update(params, state, *of_step(t), **now)
        found.append(grads)
    return found


def mean_of_examples(by_hand, args):
    """Average the gradients from `by_hand` over the examples, for each time step."""
    params, carry, xs, targets = jax.tree.map(np.asarray, args)
    examples = [
        list(by_hand(params, [leaf[b] for leaf in carry], xs[:, b], targets[:, b]))
        for b in range(len(carry[0]))
    ]
    mean = lambda *parts: sum(parts) / len(parts)
    return [jax.tree.map(mean, *step) for step in zip(*examples, strict=True)]


@pytest.mark.parametrize("feedback", ["symmetric", "random"])
def test_traces_of_leaky_units_are_those_of_the_paper(feedback):
    weights = np.asarray(fixed_weights()) if feedback == "random" else None

    def by_hand(params, carry, xs, targets):
        v, z = carry
        filtered_z, filtered_x = np.zeros(N), np.zeros(D)
        for x, target in zip(xs, targets, strict=True):
            filtered_z, filtered_x = KAPPA * filtered_z + z, KAPPA * filtered_x + x
            v = KAPPA * v + z @ params["recurrent"] + x @ params["inputs"]
            z = np.tanh(v)
            error = 2 * (z @ params["readout"] - target)
            signal = error @ (params["readout"].T if weights is None else weights)
            yield {
                "recurrent": np.outer(filtered_z, (1 - z**2) * signal),
                "inputs": np.outer(filtered_x, (1 - z**2) * signal),
                "readout": np.outer(z, error),
            }

    args = problem(rate)
    got = online(online_rule(rate, feedback), args)
    assert_same(got, mean_of_examples(by_hand, args))


def test_traces_of_adaptive_spiking_units_are_those_of_the_paper():
    """Compare eligibility traces of ALIF neurons with the equations of the paper."""

    def by_hand(params, carry, xs, targets):
        v, a, z = carry
        of_v = {"recurrent": np.zeros((N, 1)), "inputs": np.zeros((D, 1))}
        of_a = {"recurrent": np.zeros((N, N)), "inputs": np.zeros((D, N))}
        for x, target in zip(xs, targets, strict=True):
            psi, own = slope(v - 0.5 - BETA * a), v - 0.5 - BETA * a > 0
            for name, presynaptic in {"recurrent": z, "inputs": x}.items():
                of_a[name] = psi * of_v[name] + (RHO - psi * BETA) * of_a[name]
                of_v[name] = KAPPA * of_v[name] + presynaptic[:, None]
            v = KAPPA * v + z @ params["recurrent"] + x @ params["inputs"]
            a = RHO * a + own
            psi = slope(v - 0.5 - BETA * a)
            z = (v - 0.5 - BETA * a > 0).astype(float)
            error = 2 * (z @ params["readout"] - target)
            signal = params["readout"] @ error
            grads = {
                name: signal * psi * (of_v[name] - BETA * of_a[name]) for name in of_v
            }
            yield grads | {"readout": np.outer(z, error)}

    args = problem(adaptive, T=6)
    got, want = online(online_rule(adaptive), args), mean_of_examples(by_hand, args)
    assert_same(got, want)
    assert np.any(want[-1]["recurrent"] != 0)


def test_traces_of_an_lstm_are_those_of_its_cell():
    """Compare an LSTM's eligibility traces with a recursion for a constant output h."""
    logistic = lambda a: 1 / (1 + np.exp(-a))

    def by_hand(params, carry, xs, targets):
        cell, (c, h) = params["cell"], carry
        of_c = {"inputs": np.zeros((D, 4, N)), "recurrent": np.zeros((N, 4, N))}
        of_c["bias"] = np.zeros((4, N))
        for x, target in zip(xs, targets, strict=True):
            gates = x @ cell["inputs"] + h @ cell["recurrent"] + cell["bias"]
            i, f, g, o = gates.reshape(4, N)
            i, f, g, o = logistic(i), logistic(f), np.tanh(g), logistic(o)
            in_c = [i * (1 - i) * g, f * (1 - f) * c, i * (1 - g**2), np.zeros(N)]
            c = f * c + i * g
            in_h = [*np.zeros((3, N)), o * (1 - o) * np.tanh(c)]
            before = {"inputs": x[:, None, None], "recurrent": h[:, None, None]}
            before["bias"] = 1.0
            h = o * np.tanh(c)
            error = 2 * (h @ params["readout"] - target)
            signal, grads = params["readout"] @ error, {}
            for name, a in before.items():
                of_c[name] = f * of_c[name] + a * np.array(in_c)
                trace = o * (1 - np.tanh(c) ** 2) * of_c[name] + a * np.array(in_h)
                grads[name] = (signal * trace).reshape(cell[name].shape)
            yield {"cell": grads, "readout": np.outer(h, error)}

    args = problem(lstm)
    assert_same(online(online_rule(lstm), args), mean_of_examples(by_hand, args))


def total_signals(step, args, shares):
    """Return the derivative of the mean loss in the visible state of each time step."""
    params, carry, xs, targets = args

    def total_loss(nudges):
        def nudged(carry, inputs):
            (x, target, share), nudge = inputs
            new, _ = step(params, carry, x)
            *internal, z = new
            new = (*internal, z + nudge)
            losses = square(new[-1] @ params["readout"], target)
            return new, jnp.sum(share * losses)

        inputs = (xs, targets, shares), nudges
        return jnp.sum(jax.lax.scan(nudged, carry, inputs)[1])

    return jax.jit(jax.grad(total_loss))(jnp.zeros((len(xs), *carry[-1].shape)))


@pytest.mark.parametrize("step", [rate, adaptive, lstm])
@pytest.mark.fast_rows(1)
def test_is_bptt_with_the_total_derivative_and_not_with_that_of_the_step(step):
    *rest, targets = args = problem(step)
    # A learning signal is the derivative of the loss of one example. With two examples,
    # the loss of one example has the weight 1/2 in the batch mean E, so the learning
    # signal for the visible state z is 2 dE/dz.
    signals = 2 * total_signals(step, args, jnp.full((4, 2), 1 / 2))
    given = *rest, (targets, jnp.ones((4, 2)), signals)
    add = lambda *parts: sum(parts) / len(parts)
    _, want = bptt(step)(*args)
    got = jax.tree.map(add, *online(with_signal(step), given))
    assert_same(got, want)
    instantaneous = jax.tree.map(add, *online(online_rule(step), args))
    assert_same(instantaneous["readout"], want["readout"])
    difference = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), instantaneous, want)
    assert max(jax.tree.leaves(difference)) > 1e-3


@pytest.mark.slow
def test_total_derivatives_go_along_a_sequence_also_where_no_loss_counts():
    """Use total derivatives as learning signals, also where losses have weight 0.

    The targets contain the loss weights, because learning signals get the same weights
    as losses. Each of the 8 losses has the weight 1/8 in the mean loss, so a learning
    signal is 8 times the derivative of the mean loss in the visible state.
    """
    args = params, carry, xs, targets = problem(rate)
    weights = jnp.zeros((4, 2)).at[1, 0].set(3.0).at[3].set(jnp.array([1.0, 2.0]))
    shares = weights / jnp.sum(weights)
    signals = 8 * total_signals(rate, args, shares)
    want = bptt(rate)(*args, weights)
    rule = jax.jit(gradients.over_sequence(with_signal(rate)))
    assert_same(rule(params, carry, xs, (targets, 8 * shares, signals)), want)
    everywhere = 8 * total_signals(rate, args, jnp.full((4, 2), 1 / 8))
    given = targets, jnp.ones((4, 2)), everywhere
    assert_same(rule(params, carry, xs, given), bptt(rate)(*args))
    # An update is made after each time step, even if its losses are 0, because the
    # learning signals are not 0.
    sgd = optax.sgd(1.0)
    learn = jax.jit(gradients.over_sequence(with_signal(rate), every=1, update=sgd))
    pair = params, sgd.init(params)
    none = jnp.zeros((1, 2), bool)
    given = xs[:1], (targets[:1], jnp.zeros((1, 2)), signals[:1])
    _, (got, _) = learn(pair, carry, *given, mask=~none)
    (step_grads,) = online(with_signal(rate), (params, carry, *given))
    assert jnp.any(step_grads["recurrent"] != 0)
    assert_same(got, jax.tree.map(jnp.subtract, params, step_grads))
    for nothing in ({"mask": none}, {"weights": jnp.zeros((1, 2))}):
        _, (got, _) = learn(pair, carry, *given, **nothing)
        chex.assert_trees_all_equal(got, params)


@pytest.mark.slow
def test_feedback_goes_on_learning_in_a_state_that_is_kept():
    params, carry, xs, targets = problem(rate)
    feedback = gradients.AdaptiveFeedback(fixed_weights(), 0.05, 0.1)
    rule = gradients.eprop(rate, square, visible=second, feedback=feedback)
    run = jax.jit(gradients.over_sequence(rule, keep_state=True))
    start = state = rule.init(params, carry, (xs[0], targets[0]))
    (value, whole), want = run(params, state, xs, targets)
    values, parts = [], []
    for part in (slice(0, 2), slice(2, 4)):
        (each, state), grads = run(params, state, xs[part], targets[part])
        values, parts = [*values, each], [*parts, grads]
    mean = lambda a, b: (a + b) / 2
    assert_same((mean(*values), state), (value, whole))
    assert_same(jax.tree.map(mean, *parts), want)
    assert jnp.any(state.feedback != start.feedback)
    anew = jax.jit(gradients.over_sequence(rule))(params, carry, xs, targets)
    assert_same(anew, ((value, whole.carry), want))


def unread(params, carry, x):
    """Step a network whose units never read the visible state, so e-prop is exact."""
    v, (z, count) = carry["v"], carry["seen"]
    decay = jnp.broadcast_to(jax.nn.sigmoid(params["decay"]), v.shape)
    new = decay * v + jnp.tanh(x @ params["inputs"][0])
    seen = new * jnp.broadcast_to(params["inputs"][1], v.shape)
    y = (seen + 0.5 * new + 0.3 * v + 0.2 * z) @ params["readout"]
    return {"v": new, "seen": (seen, count + 1)}, y


VISIBLE[unread] = lambda carry: carry["seen"]


@cache
def unread_problem(batch=(2,), T=4, dtype=float):
    keys = iter(jax.random.split(jax.random.key(2), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    params = {"decay": normal(N), "inputs": (normal(D, N), normal(N))}
    params["readout"] = normal(N, M)
    carry = {"v": normal(*batch, N), "seen": (normal(*batch, N), jnp.zeros(batch, int))}
    return params, carry, normal(T, *batch, D), normal(T, *batch, M)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.fast_rows(1)
def test_is_bptt_if_nothing_reads_the_visible_state(batch):
    """Compare e-prop with BPTT; the output depends on the old and on the new carry."""
    args = unread_problem(batch)
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
    want = bptt(unread)(*args, **options)
    assert_same(along_sequence(unread)(*spoilt, **options), want)
    assert jnp.all(want[1]["decay"] != 0)


def test_one_step_is_static_backpropagation():
    args = problem(lstm, T=1)
    assert_same(online(online_rule(lstm), args)[0], bptt(lstm)(*args)[1])


def test_resets_separate_sequences():
    """Reset one of two examples; compare with separate runs of the two examples."""
    params, carry, xs, targets = problem(rate)
    run = lambda xs, targets, **options: online(
        online_rule(rate), (params, carry, xs, targets), **options
    )
    reset = jnp.zeros((4, 2), bool).at[2, 0].set(True)
    only = [jnp.zeros((4, 2)).at[:, b].set(1.0) for b in (0, 1)]
    for b, parts in enumerate([[slice(0, 2), slice(2, 4)], [slice(0, 4)]]):
        got = run(xs, targets, reset=reset, weight=only[b])
        apart = (run(xs[part], targets[part], weight=only[b]) for part in parts)
        assert_same(got, [grads for found in apart for grads in found])


def test_padding_leaves_all_that_is_remembered():
    params, carry, xs, targets = problem(rate)
    rule = with_signal(rate)
    targets = targets, jnp.ones((4, 2)), jnp.ones((4, 2, N))
    of_step = lambda t: jax.tree.map(lambda leaf: leaf[t], (xs, targets))
    before = rule.init(params, carry, of_step(0))
    on, off = jnp.array([False, True]), jnp.zeros(2, bool)
    spoil = lambda leaf: leaf.at[0].set(jnp.nan)
    given = {"weight": jnp.ones(2), "reset": off}
    _, _, state = rule.update(params, before, *of_step(0), mask=~off, **given)
    given |= {"mask": on, "reset": ~on}
    inputs = jax.tree.map(spoil, of_step(1))
    _, grads, after = rule.update(params, state, *inputs, **given)
    chex.assert_tree_all_finite((grads, after))
    of_first = lambda state: jax.tree.map(lambda leaf: leaf[0], state)
    assert_same(of_first(after), of_first(state))
    assert jnp.any(after.influence[0][1] != state.influence[0][1])


def test_adaptive_feedback_nears_the_readout():
    params, carry, xs, targets = problem(rate)
    feedback = gradients.AdaptiveFeedback(fixed_weights(), 0.05, 0.1)
    rule = gradients.eprop(rate, square, visible=second, feedback=feedback)
    state = rule.init(params, carry, (xs[0], targets[0]))
    _, grads, state = jax.jit(rule.update)(params, state, xs[0], targets[0])
    readout = 0.9 * params["readout"] - 0.05 * grads["readout"]
    gap = fixed_weights() - params["readout"].T
    assert_same(state.feedback - readout.T, 0.9 * gap)


@pytest.mark.slow
def test_remembers_in_float32_and_compiles_once():
    params, carry, xs, targets = unread_problem(dtype=jnp.bfloat16)
    rule = gradients.eprop(unread, square, visible=VISIBLE[unread])
    state = rule.init(params, carry, (xs[0], targets[0]))
    traces = []
    update = jax.jit(lambda *args: traces.append(args) or rule.update(*args))
    _, _, state = update(params, state, xs[0], targets[0])
    value, grads, state = update(params, state, xs[1], targets[1])
    assert len(traces) == 1
    chex.assert_type([value, *jax.tree.leaves(state.influence)], jnp.float32)
    chex.assert_type(jax.tree.leaves(grads), jnp.bfloat16)
    chex.assert_tree_all_finite(grads)


def seven(y, target):
    return jnp.zeros((*y.shape[:-1], 7))


@pytest.mark.parametrize(
    ("visible", "options", "message"),
    [
        (
            lambda carry: carry[0] + 9,
            {},
            r"visible must pick leaves .* type\(s\) for \+",
        ),
        (
            lambda carry: carry[0] + carry[1],
            {},
            r"visible must pick .* type\(s\) for \+",
        ),
        (lambda carry: -carry[0], {}, "visible must pick leaves .* for unary -"),
        (lambda carry: max(carry), {}, "visible must pick leaves .* not supported"),
        (lambda carry: 1, {}, r"visible must pick leaves .* it returned \[1\]"),
        (
            lambda carry: (carry[1],) * 2,
            {},
            r"each once, .* \[carry\[1\], carry\[1\]\]",
        ),
        (lambda carry: None, {}, r"it picked none of \[carry\[0\], carry\[1\]\]"),
        (lambda carry: carry[5], {}, "visible must pick leaves .* it says: tuple"),
        (lambda carry: carry[0][..., 1], {}, "visible must pick leaves .* it says: "),
        (second, {"signal": seven}, r"signal must return .* got \[\(2, 7\)\]"),
    ],
)
def test_what_does_not_fit_is_named(visible, options, message):
    params, carry, xs, targets = problem(rate)
    rule = gradients.eprop(rate, square, visible=visible, **options)
    inputs = xs[0], targets[0]
    state = gradients.eprop(rate, square, visible=second).init(params, carry, inputs)
    with pytest.raises(ValueError, match=message):
        rule.update(params, state, *inputs)


def test_a_signal_is_a_function_and_takes_the_place_of_feedback():
    make = partial(gradients.eprop, rate, square, visible=second)
    with pytest.raises(ValueError, match=r"signal must be a function .* got Array"):
        make(signal=jnp.zeros((2, N)))
    with pytest.raises(ValueError, match="signal and feedback weights must not be giv"):
        make(signal=seven, feedback=fixed_weights())


gru = pytest.param(cells.gru, lambda h: h, id="gru")
whole_lstm = pytest.param(cells.lstm, lambda carry: carry, id="lstm")


@pytest.mark.parametrize(("cell", "visible"), [gru, whole_lstm])
def test_warns_where_it_is_truncated_bptt_of_one_step(cell, visible):
    params = cell.init(jax.random.key(0), D, N)
    args = params, cell.carry(params, (2,)), jnp.ones((3, 2, D)), jnp.zeros((3, 2, N))
    rule = gradients.eprop(cell, square, visible=visible)
    with pytest.warns(UserWarning, match="eprop keeps no trace of the past") as caught:
        got = jax.jit(gradients.over_sequence(rule))(*args)
    assert len(caught) == 1
    truncated = gradients.truncated_bptt(cell, square, every=1, lookback=1)
    assert_same(got, jax.jit(truncated)(*args))


def test_does_not_warn_where_a_signal_says_all_or_something_is_traced():
    params = cells.gru.init(jax.random.key(0), D, N)
    inputs, give = (jnp.ones(D), jnp.zeros(N)), lambda y, target: target
    rule = gradients.eprop(cells.gru, square, visible=lambda h: h, signal=give)
    # `init` must not warn here; in tests, a warning raises an error.
    rule.init(params, jnp.zeros(N), inputs)
    params, carry, xs, targets = problem(rate)
    rule = gradients.eprop(rate, square, visible=second)
    rule.init(params, carry, (xs[0], targets[0]))


def test_does_not_warn_of_a_network_of_one_unit_with_memory():
    """Check a unit that depends on its previous value, so that e-prop keeps a trace."""

    def step(w, carry, x):
        v = 0.9 * carry[0] + w * x + 0.5 * carry[1]
        return (v, jnp.tanh(x)), v

    rule = gradients.eprop(step, square, visible=lambda carry: carry[1])
    rule.init(jnp.array([0.3]), (jnp.zeros(1), jnp.zeros(1)), (jnp.ones(1),) * 2)


def test_traces_of_a_delayed_input_are_kept_and_those_of_unread_outputs_are_not():
    """Check a leaf of the carry that delays the input by one time step.

    Only the output is visible, and no unit reads it, so e-prop is exact.
    """

    def step(params, carry, x):
        delayed, v, _ = carry
        v = jnp.tanh(v @ params["own"] + delayed)
        y = v @ params["readout"]
        return (x @ params["inputs"], v, y), y

    keys = iter(jax.random.split(jax.random.key(5), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = {name: normal(2, 2) for name in ("own", "readout", "inputs")}
    args = params, (normal(2), normal(2), normal(2)), normal(4, 2), normal(4, 2)
    rule = gradients.eprop(step, square, visible=lambda carry: carry[2])
    got = jax.jit(gradients.over_sequence(rule))(*args)
    assert_same(got, jax.jit(gradients.bptt(step, square))(*args))
