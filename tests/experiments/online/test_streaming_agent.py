"""Tests of the agent of `agents`: gradients, traces, λ-returns, resets, one program."""

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from experiments.harness.precision import double_precision
from experiments.online._agent_worlds import make_world
from experiments.online._streaming_agent import (
    bounded_rate,
    init_agent,
    lambda_returns,
    make_scores,
    network_step,
    normalise,
    Record,
    run,
    sample,
    Settings,
    Statistics,
)
from experiments.online._streaming_methods import truncated

SMALL = Settings(units=2, hidden=2, entropy=0.1)


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_actions_have_their_probabilities():
    noise = (jnp.arange(1000) + 0.5) / 1000
    probabilities = jnp.array([0.2, 0.5, 0.3])
    drawn = jax.vmap(sample, (None, 0))(probabilities, noise)
    assert np.bincount(drawn).tolist() == [200, 500, 300]


def test_the_step_is_bounded_as_in_the_paper():
    z = {"a": jnp.array([3.0, -1.0]), "b": jnp.array(-4.0)}
    assert bounded_rate(0.5, 2.0, jnp.array(-3.0), z) == pytest.approx(0.5 / 24)
    assert bounded_rate(0.5, 2.0, jnp.array(0.2), z) == pytest.approx(0.5 / 8)
    assert bounded_rate(0.01, 2.0, jnp.array(0.2), z) == pytest.approx(0.01)


def normalised(seen):
    """Return the last observation, by the mean and variance of all of them."""
    seen = np.array(seen, float)
    if len(seen) == 1:
        return jnp.zeros_like(seen[0])
    variance = seen.var(axis=0, ddof=1)
    scale = np.sqrt(np.where(variance > 0, variance, 1) + 1e-8)
    return jnp.asarray((seen[-1] - seen.mean(axis=0)) / scale)


def test_observations_are_normalised_by_those_so_far():
    xs = np.random.default_rng(0).normal(3.0, 5.0, (20, 2))
    xs[:, 1] = 7.0
    with double_precision():
        start = Statistics(jnp.array(0.0), jnp.zeros(2), jnp.zeros(2))
        _, got = jax.lax.scan(normalise, start, jnp.asarray(xs))
        want = [normalised(xs[: t + 1]) for t in range(20)]
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def explicit(world, settings, steps, key, params):
    """Learn in a Python loop, with RTRL by dense Jacobians and traces as vectors."""
    _, of_noise = jax.random.split(key)
    noise = jax.random.uniform(of_noise, (steps + 1, 1 + world.draws))
    carry = cells.rtu.carry(params["critic"]["cell"])
    rest, unflatten = jax.flatten_util.ravel_pytree(carry)
    flat, shaped = {}, {}
    for name, leaf in params.items():
        flat[name], shaped[name] = jax.flatten_util.ravel_pytree(leaf)

    def score(name, w, h, x, target):
        new, y = network_step(shaped[name](w), unflatten(h), x)
        new = jax.flatten_util.ravel_pytree(new)[0]
        if name == "critic":
            return y[0], new
        action, sign = target
        p = jnp.exp(y) / jnp.sum(jnp.exp(y))
        bonus = -settings.entropy * sign * jnp.sum(p * jnp.log(p))
        return jnp.log(p)[action] + bonus, new

    def slope(name, w, h, influence, x, target):
        """Return the score, its gradient through time, the state and its influence."""
        of = lambda part: lambda w, h: score(name, w, h, x, target)[part]
        by_w, by_h = jax.grad(of(0), (0, 1))(w, h)
        later = jax.jacobian(of(1), 1)(w, h) @ influence + jax.jacobian(of(1), 0)(w, h)
        value, new = score(name, w, h, x, target)
        # dv/dθ = ∂v/∂θ + ∂v/∂h_{t−1} dh_{t−1}/dθ, because v depends on h_{t−1}
        return value, by_w + by_h @ influence, new, later

    slope = jax.jit(slope, static_argnums=0)
    forward = jax.jit(
        lambda name, w, h, x: network_step(shaped[name](w), unflatten(h), x)[1],
        static_argnums=0,
    )
    state, begins, found = world.begin(noise[0, 1:]), True, []
    seen = [world.observe(state)]
    x = normalised(seen)
    for t in range(steps):
        if begins:
            h = dict.fromkeys(flat, rest)
            influence = {n: jnp.zeros((len(rest), len(w))) for n, w in flat.items()}
            z = {n: jnp.zeros_like(w) for n, w in flat.items()}
        logits = forward("actor", flat["actor"], h["actor"], x)
        p = np.exp(logits) / np.exp(logits).sum()
        action = jnp.array(int(np.sum(noise[t + 1, 0] >= np.cumsum(p)[:-1])))
        moved = world.step(state, action)
        out = {
            "critic": slope(
                "critic", flat["critic"], h["critic"], influence["critic"], x, None
            )
        }
        value = float(out["critic"][0])
        seen.append(world.observe(moved.state))
        next_x = normalised(seen)
        next_value = float(
            forward("critic", flat["critic"], out["critic"][2], next_x)[0]
        )
        kept = 0.0 if moved.terminated else settings.discount
        delta = world.scale * float(moved.reward) + kept * next_value - value
        target = action, jnp.sign(jnp.array(delta))
        out["actor"] = slope(
            "actor", flat["actor"], h["actor"], influence["actor"], x, target
        )
        for name, kappa in [("actor", 1), ("critic", 2)]:
            _, gradient, h[name], influence[name] = out[name]
            z[name] = settings.discount * settings.decay * z[name] + gradient
            bound = kappa * max(abs(delta), 1) * np.abs(z[name]).sum()
            flat[name] = flat[name] + delta / max(1, bound) * z[name]
        begins = bool(moved.terminated | moved.truncated)
        found.append((float(moved.reward), value, next_value, begins))
        state, x = moved.state, next_x
        if begins:
            state = world.begin(noise[t + 1, 1:])
            seen.append(world.observe(state))
            x = normalised(seen)
    return found, {name: shaped[name](w) for name, w in flat.items()}


@pytest.mark.slow
def test_an_agent_learns_as_an_explicit_loop_does():
    world, steps, key = make_world("chain_1"), 25, jax.random.key(3)
    with double_precision():
        params = noisy(init_agent(world, SMALL, jax.random.key(4)))
        want, last = explicit(world, SMALL, steps, key, params)
        rule = gradients.diagonal_rtrl
        record, got = jax.jit(lambda: run(world, rule, SMALL, steps, key, params))()
        chex.assert_trees_all_close(got, last, rtol=1e-9, atol=1e-11)
        moved = np.abs(
            got["actor"]["cell"]["in_real"] - params["actor"]["cell"]["in_real"]
        )
        assert moved.max() > 1e-3
        ends = record.terminated | record.truncated
        columns = record.rewards, record.values, record.next_values, ends
        np.testing.assert_allclose(np.stack(columns, 1).astype(float), want, atol=1e-10)
        assert np.sum(ends) == 8


@pytest.mark.slow
def test_the_gradients_are_those_of_the_whole_episode():
    """Compare with jax.grad of value and policy, unrolled from the episode's begin."""
    rng = np.random.default_rng(1)
    with double_precision():
        params = noisy(init_agent(make_world("chain_1"), SMALL, jax.random.key(0)))
        carry = cells.rtu.carry(params["critic"]["cell"])
        xs = jnp.asarray(rng.normal(size=(7, 2)))
        reset = np.arange(7) == 2  # steps 2 to 6 are of a new episode
        targets = {
            "critic": jnp.zeros(7),
            "actor": (
                jnp.asarray(rng.integers(0, 2, 7)),
                jnp.asarray([1.0, -1] * 4)[:7],
            ),
        }

        def score(name, w, t):
            h = carry
            for x in xs[2 : t + 1]:
                h, y = network_step(w, h, x)
            if name == "critic":
                return y[0]
            action, sign = jax.tree.map(lambda leaf: leaf[t], targets["actor"])
            p = jnp.exp(y) / jnp.sum(jnp.exp(y))
            return jnp.log(p[action]) - SMALL.entropy * sign * jnp.sum(p * jnp.log(p))

        for name, own in params.items():
            rule = gradients.diagonal_rtrl(
                network_step, make_scores(SMALL.entropy)[name]
            )
            inputs = xs, targets[name], jnp.asarray(reset)
            first = jax.tree.map(lambda leaf: leaf[0], inputs[:2])

            def body(state, inputs, rule=rule, own=own):
                x, target, reset = inputs
                value, slope, state = rule.update(own, state, x, target, reset=reset)
                return state, (value, slope)

            _, (values, slopes) = jax.lax.scan(
                body, rule.init(own, carry, first), inputs
            )
            for t in (2, 6):
                want, slope = jax.value_and_grad(score, 1)(name, own, t)
                np.testing.assert_allclose(values[t], want, rtol=1e-12)
                got = jax.tree.map(lambda leaf, t=t: leaf[t], slopes)
                chex.assert_trees_all_close(got, slope, rtol=1e-9, atol=1e-12)


def noisy(params):
    """Replace each array of params by random numbers, so that no output is 0."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    draw = lambda key, leaf: 0.5 * jax.random.normal(key, leaf.shape, leaf.dtype)
    return structure.unflatten(map(draw, keys, leaves))


@pytest.mark.slow
def test_an_agent_forgets_where_an_episode_begins():
    world, key, steps = make_world("chain_1"), jax.random.key(0), 20
    params = noisy(init_agent(world, SMALL, key))
    still = SMALL._replace(actor_rate=0.0, critic_rate=0.0)
    once = truncated(1)  # its carry is that of the network, at little compilation
    record, last = jax.jit(lambda: run(world, once, still, steps, key, params))()
    chex.assert_trees_all_equal(last, params)
    noise = jax.random.uniform(jax.random.split(key)[1], (steps + 1, 2))
    bits = np.where(noise[:, 1] < 0.5, -1.0, 1.0)
    seen = np.zeros((steps, 2), np.float32)
    seen[::3, 0], seen[2::3, 1] = bits[:steps:3], 1.0
    reset = gradients.resets_from_dones(record.terminated | record.truncated)
    carry = cells.rtu.carry(params["critic"]["cell"])
    # The state after the end of an episode is observed too, as (0, 0)
    all_seen, x = [], []
    for t in range(steps):
        all_seen.append(seen[t])
        x.append(normalised(all_seen))
        if t % 3 == 2:
            all_seen.append(np.zeros(2))
    xs = jnp.asarray(np.array(x, np.float32))
    _, ys = gradients.unroll(network_step, params["critic"], carry, xs, reset=reset)
    np.testing.assert_allclose(record.values, ys[:, 0], rtol=1e-4, atol=1e-5)
    inside = ~np.asarray(record.terminated)[:-1]
    np.testing.assert_allclose(
        np.asarray(record.next_values)[:-1][inside],
        np.asarray(record.values)[1:][inside],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_lambda_returns_are_those_of_a_loop(decay):
    rng, steps, discount = np.random.default_rng(0), 40, 0.9
    terminated = rng.random(steps) < 0.15
    truncated_ = (rng.random(steps) < 0.15) & ~terminated
    assert terminated.any()
    assert truncated_.any()
    rewards, values, following = rng.normal(size=(3, steps))
    with double_precision():
        actions = np.zeros(steps, int)
        parts = (rewards, terminated, truncated_, values, following, actions)
        record = Record(*map(jnp.asarray, parts))
        got = lambda_returns(record, discount, decay)
    later = following[-1]
    for t in reversed(range(steps)):
        ends = terminated[t] or truncated_[t]
        blend = following[t] if ends else (1 - decay) * following[t] + decay * later
        later = rewards[t] + (0 if terminated[t] else discount) * blend
        np.testing.assert_allclose(got[t], later, rtol=1e-12)


@pytest.mark.slow
def test_a_run_is_one_scan_and_new_settings_do_not_compile_it_again():
    world = make_world("chain_1")

    @jax.jit
    @chex.assert_max_traces(n=1)
    def learn(rate, decay, key):
        settings = SMALL._replace(actor_rate=rate, critic_rate=rate, decay=decay)
        return run(world, truncated(1), settings, 9, key)[0].values

    args = jnp.array(1.0), jnp.array(0.5), jax.random.key(0)
    first = learn(*args)
    other = learn(jnp.array(0.5), jnp.array(0.9), jax.random.key(0))
    assert not np.array_equal(first, other)
    jaxpr = jax.make_jaxpr(learn.__wrapped__.__wrapped__)(*args)
    scans = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
    lengths = [scan.params["length"] for scan in scans]
    # The rule's first state is found by one masked step, a scan of length 1.
    assert [length for length in lengths if length > 1] == [9]
