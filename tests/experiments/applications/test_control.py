"""Tests of the study control: simulated systems, LQR and iLQR, learned policies."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import experiments
from experiments import asking
from experiments.applications.control import ilqr, policy, reference, study as control
from experiments.applications.control.mechanics import advance
from experiments.applications.control.systems import SYSTEMS, tip
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


FREE = {
    name: system._replace(friction=tuple(0.0 for _ in system.limit))
    for name, system in SYSTEMS.items()
}
# Every entry of these states is nonzero, so no term of the equations vanishes.
STATES = {
    "pendulum": [2.0, 1.5],
    "cartpole": [0.3, -0.7, 2.0, 1.5],
    "arm": [0.4, 1.1, 2.0, -1.5],
}


@pytest.fixture(params=SYSTEMS)
def name(request):
    return request.param


@cache
def rolled(system, steps):
    """Simulate an episode with a constant action; return the states [steps, n]."""

    @jax.jit
    def roll(state, action):
        def body(state, _):
            state = advance(system, state, action)
            return state, state

        return jax.lax.scan(body, state, length=steps)[1]

    return roll


def test_energy_stays_without_action_and_friction(name):
    system = FREE[name]
    state, still = jnp.array(STATES[name]), jnp.zeros(len(system.limit))
    states = rolled(system._replace(dt=0.01), 200)(state, still)
    energies = system.energy(jnp.concatenate([state[None], states]))
    # Every component of the state changes during the episode.
    assert np.ptp(states, axis=0).min() > 0.1
    np.testing.assert_allclose(energies, energies[0], rtol=1e-4, atol=1e-4)


def test_power_is_what_energy_gains(name):
    """Check the rate at which the energy of a system changes.

    The rate must equal the power of the action minus the power lost by friction.
    """
    system = SYSTEMS[name]
    state, action = jnp.array(STATES[name]), 0.6 * jnp.array(system.limit)
    dt = 1e-3
    after = advance(system._replace(dt=dt), state, action)
    gain = (system.energy(after) - system.energy(state)) / dt
    speed = state[jnp.array(system.speeds)]
    want = jnp.sum((action - jnp.array(system.friction) * speed) * speed)
    np.testing.assert_allclose(gain, want, rtol=0.02)


def pendulum_points(q):
    return RODS * _turned(q[0])


def cartpole_points(q):
    pole = RODS * _turned(q[1]) + jnp.stack([q[0], jnp.zeros(())])[None]
    return jnp.concatenate([jnp.stack([q[0], jnp.zeros(())])[None], pole])


def arm_points(q):
    first, second = (_turned(angle) / 2 for angle in (q[0], q[0] + q[1]))
    return jnp.concatenate([RODS * first, first + RODS * second])


# A uniform rod moves like two point masses at the Gauss nodes, because energy is a
# quadratic function of the position along the rod.
RODS = np.array([[0.5 - 12**-0.5], [0.5 + 12**-0.5]])
_turned = lambda angle: jnp.stack([jnp.sin(angle), jnp.cos(angle)])[None]
# Format: {system: (function from the coordinates q to the positions of point masses,
# masses, gravity, indices of the entries of (q, dq/dt) in a state)}.
POINTS = {
    "pendulum": (pendulum_points, [0.5, 0.5], 9.81, [0, 1]),
    "cartpole": (cartpole_points, [1.0, 0.05, 0.05], 9.81, [0, 2, 1, 3]),
    "arm": (arm_points, 4 * [0.5], 0.0, [0, 1, 2, 3]),
}


def test_motion_is_that_of_points_by_euler_and_lagrange(name):
    points, masses, gravity, order = POINTS[name]
    masses, state, half = jnp.array(masses), jnp.array(STATES[name]), len(order) // 2
    action = 0.3 * jnp.array(SYSTEMS[name].limit)
    force = jnp.zeros(half).at[: len(action)].set(action)

    def lagrangian(q, v):
        places, speeds = jax.jvp(points, (q,), (v,))
        kinetic = masses @ jnp.sum(speeds**2, axis=1) / 2
        return kinetic - gravity * masses @ places[:, 1]

    @jax.jit
    def slope(state):
        q, v = jnp.split(state, 2)
        momentum = jax.grad(lagrangian, 1)
        by_q, by_v = jax.jacfwd(momentum, (0, 1))(q, v)
        pull = force + jax.grad(lagrangian)(q, v) - by_q @ v
        return jnp.concatenate([v, jnp.linalg.solve(by_v, pull)])

    order = np.array(order)
    slope_of = lambda _, state: np.asarray(slope(state.astype(np.float32)))
    begin = np.array(state)[order]
    want = solve_ivp(slope_of, (0, 1), begin, rtol=1e-5, atol=1e-5).y[:, -1]
    got = rolled(FREE[name], 20)(state, action)[-1][order]
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)


def test_policies_keep_to_limits_and_rests_are_at_rest(name):
    system = SYSTEMS[name]

    @jax.jit  # one function compiles faster than many
    def found(keys):
        params = policy.init(system, 8, keys[0])
        params[-1]["bias"] += 100.0
        states, drawn = policy.episodes(system, 5, 3, keys[1])
        actions = policy.act(system, params, states, drawn[0])
        rests, _, goals = reference.near_rest(system, 4, 2, keys[2])
        still = jnp.zeros((4, len(system.limit)))
        after = advance(system, rests, still)
        cost = system.cost(rests, still, goals[0])
        return drawn, actions, rests, after, cost, system.errors(rests, goals[0])

    keys = [jax.random.key(i) for i in range(3)]
    drawn, actions, rests, after, cost, errors = found(keys)
    assert drawn.shape[:2] == (3, 5)
    np.testing.assert_allclose(actions, 5 * [system.limit], rtol=1e-6)
    np.testing.assert_allclose(after, rests, atol=1e-6)
    np.testing.assert_allclose(cost, 0, atol=1e-6)
    assert np.all(errors < 1e-6)


def test_the_arm_sees_nothing_of_where_north_is():
    arm, turn = SYSTEMS["arm"], 0.7
    state, goal = arm.start(jax.random.key(0))
    rotation = jnp.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], jnp.float32
    )
    turned = state.at[0].add(turn)
    seen = arm.features(state, goal), arm.features(turned, rotation @ goal)
    np.testing.assert_allclose(*seen, atol=1e-5)
    assert 0.2 <= np.linalg.norm(goal) <= 0.9
    np.testing.assert_allclose(rotation @ tip(state), tip(turned), atol=1e-6)


def test_lqr_is_the_best_linear_policy():
    """Compare the gain of the linear-quadratic regulator with a Riccati recursion."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 2))
    C, R = np.diag([1.0, 2.0, 0.5]), np.diag([0.3, 0.1])
    V, K = C, np.zeros((2, 3))
    for _ in range(500):
        K = np.linalg.solve(R + B.T @ V @ B, B.T @ V @ A)
        V = C + A.T @ V @ (A - B @ K)
    np.testing.assert_allclose(reference.lqr_gain(A, B, C, R), K, rtol=1e-8)


def test_ilqr_is_lqr_near_the_goal_and_finds_a_way_from_afar():
    system, steps = SYSTEMS["pendulum"], 20
    rests, near, goals = reference.near_rest(system, 2, steps, jax.random.key(0))
    by_lqr = reference.lqr_costs(system, rests, near, goals)
    start = jnp.concatenate([near, jnp.array([[1.0, 0.0], [2.0, 0.0]])])
    nothing = jax.tree.map(jnp.zeros_like, policy.init(system, 2, jax.random.key(0)))
    goals = jnp.zeros((steps, 4, 1))
    idle = policy.play(system, nothing, start, goals)
    states, raw, costs = ilqr.ilqr(system, idle.states, idle.actions, goals)
    # The costs of iLQR and LQR differ slightly. The cost of iLQR is over only 1 s, but
    # that of LQR is over infinite time. LQR assumes sin(angle) = angle, but iLQR does
    # not.
    np.testing.assert_allclose(costs[:2], by_lqr, rtol=0.02)
    actions = system.limit[0] * np.tanh(raw)
    again = system.cost(states[1:], actions, goals).mean(axis=0)
    np.testing.assert_allclose(again, costs, rtol=1e-4)
    assert np.all(costs < 0.9 * idle.costs.mean(axis=0))


def test_success_is_within_tolerance_to_the_end():
    system = SYSTEMS["cartpole"]
    params = jax.tree.map(jnp.zeros_like, policy.init(system, 2, jax.random.key(0)))
    start = jnp.array([[0.0, 0, 0, 0], [0.6, 0, 0, 0], [0, 0, 6.283185, 0]])
    start = jnp.concatenate([start, jnp.array([[0.0, 0, np.pi, 0], [np.nan] * 4])])
    played = policy.play(system, params, start, jnp.zeros((30, 5, 1)))
    assert played.success.tolist() == [True, False, True, False, False]
    assert played.states.shape == (31, 5, 4)


def test_quick(fast, tmp_path, capsys):
    out = tmp_path / "run"
    result = control.main(control.Config(quick=True, judged=64, compared=2, out=out))
    (row,) = result.rows
    assert json.loads((out / "results.jsonl").read_text()) == row
    for picture in ("pendulum.png", "learning.png", "flow.png", "pendulum.gif"):
        assert (out / picture).stat().st_size > 10_000
    assert row["success"][0] > 40 > 10 > max(row["untrained"][0], row["idle"][0])
    assert row["cost"][0] < 0.5 * min(row["untrained_cost"][0], row["idle_cost"][0])
    assert row["to_ilqr"][0] >= 1
    assert row["to_lqr"][0] >= 0.99
    before, after = (np.array(flow["curve"]) for flow in row["flow"])
    assert np.isfinite(before).all()
    assert after[0, 0] != before[0, 0]
    shown = " ".join(capsys.readouterr().out.split())
    assert "truncated_bptt, 600" in shown
    assert "pendulum: One seed: no statement about differences in cost" in shown
    check_resumed(control.main, control.Config(out=out), result)
    model = experiments.load(out)
    answer = model.predict([3.1, 0.2])
    params = policy.load(out / "policy-pendulum-truncated_bptt.npz")
    first = jax.tree.map(lambda leaf: leaf[0], params)
    system = SYSTEMS["pendulum"]
    action = policy.act(system, first, jnp.array([3.1, 0.2]), jnp.zeros(1))
    np.testing.assert_allclose(answer.value, action, atol=1e-4)
    assert not answer.unlike
    assert model.predict([0.0, 40.0]).unlike
    capsys.readouterr()
    assert asking.main([str(out), "--state", "3.1, 0.2"]) == 0
    assert capsys.readouterr().out == f"{answer.value[0]}\n"
    for text, message in (("3", "2 for the pendulum; got"), ("a,0", "separated by")):
        assert asking.main([str(out), "--state", text]) == 1
        assert message in capsys.readouterr().err
    assert sum(leaf[0].size for leaf in jax.tree.leaves(params)) == row["params"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": ("pendulun",)}, "system must be some of .* Did you mean 'pend"),
        ({"rule": ("ppo",)}, "rule must be one of bptt"),
        ({"rule": ()}, "rule must have one value at least"),
        ({"update": "addam"}, "Did you mean 'adam'"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"compared": 300}, "compared must be at most judged, 256; got 300"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        control.Config(**options)
