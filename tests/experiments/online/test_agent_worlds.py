"""Tests of the environments of `agents`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.precision import double_precision
from experiments.online._agent_worlds import make_world


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def play(world, state, actions):
    """Return observations and transitions of a sequence of actions, as NumPy arrays."""

    def body(state, action):
        moved = world.step(state, action)
        return moved.state, (world.observe(state), moved)

    found = jax.jit(lambda *args: jax.lax.scan(body, *args)[1])(state, actions)
    return jax.tree.map(np.asarray, found)


def test_memory_chain_asks_for_the_bit_after_its_length():
    world = make_world("chain_3")
    for noise, bit in [(0.2, -1), (0.7, 1)]:
        for answer in (0, 1):
            state = world.begin(jnp.array([noise]))
            xs, moved = play(world, state, jnp.array([1, 0, 1, 0, answer]))
            want = [[bit, 0], [0, 0], [0, 0], [0, 0], [0, 1]]
            np.testing.assert_array_equal(xs, want)
            right = (answer == 1) == (bit == 1)
            assert moved.reward.tolist() == [0, 0, 0, 0, 1 if right else -1]
            assert moved.terminated.tolist() == 4 * [False] + [True]
            assert not moved.truncated.any()


def test_cart_and_pole_move_as_in_gymnasium():
    noise = np.array([0.9, 0.1, 0.6, 0.3])
    actions = np.random.default_rng(0).integers(0, 2, 60)
    with double_precision():
        world = make_world("cartpole")
        xs, moved = play(world, world.begin(jnp.asarray(noise)), jnp.asarray(actions))
    place, speed, angle, turning = 0.1 * noise - 0.05
    for t, action in enumerate(actions):
        np.testing.assert_allclose(
            xs[t], [place / 2.4, angle / (12 * math.pi / 180)], rtol=1e-9, atol=1e-12
        )
        # The equations of CartPole-v1, with masses 1 and 0.1 kg and half length 0.5 m
        force = 10.0 if action else -10.0
        sin, cos = math.sin(angle), math.cos(angle)
        common = (force + 0.05 * turning**2 * sin) / 1.1
        bend = (9.81 * sin - cos * common) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        push = common - 0.05 * bend * cos / 1.1
        place, speed = place + 0.02 * speed, speed + 0.02 * push
        angle, turning = angle + 0.02 * turning, turning + 0.02 * bend
        fallen = abs(place) > 2.4 or abs(angle) > 12 * math.pi / 180
        assert moved.terminated[t] == fallen
        assert moved.reward[t] == 1
        if fallen:
            break
    else:
        pytest.fail("the pole never falls, so its end is not tested")
    late = world.step((jnp.zeros(4), jnp.array(499)), jnp.array(0))
    assert late.truncated
    assert not late.terminated
    assert not world.step((jnp.zeros(4), jnp.array(498)), jnp.array(0)).truncated


def test_the_pendulum_is_that_of_control():
    actions = np.array([2, 2, 0, 1, 2, 0] * 5)
    with double_precision():
        world = make_world("pendulum")
        begin = world.begin(jnp.array([0.75, 0.5]))
        xs, moved = play(world, begin, jnp.asarray(actions))
    fall = lambda s, u: np.array([s[1], 1.5 * 9.81 * math.sin(s[0]) + 3 * u])
    state, h = np.array([math.pi / 2, 0.0]), 0.05
    for t, action in enumerate(actions):
        angle, speed = state
        want = [math.sin(angle), math.cos(angle), speed / 4]
        np.testing.assert_allclose(xs[t], want, rtol=1e-9, atol=1e-12)
        u = 2.0 * (action - 1)
        first = fall(state, u)
        second = fall(state + h / 2 * first, u)
        third = fall(state + h / 2 * second, u)
        fourth = fall(state + h * third, u)
        state = state + h / 6 * (first + 2 * second + 2 * third + fourth)
        cost = 1 - math.cos(state[0]) + 0.01 * state[1] ** 2 + 0.001 * u**2
        np.testing.assert_allclose(moved.reward[t], -cost, rtol=1e-9)
    assert not moved.terminated.any()
    assert world.step((jnp.zeros(2), jnp.array(199)), jnp.array(1)).truncated
