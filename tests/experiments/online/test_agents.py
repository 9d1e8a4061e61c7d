"""Tests of the study agents."""

import chex
import jax
import numpy as np
import pytest

from experiments.online import _agents_report, agents
from experiments.online._agent_rules import with_fixed_memory
from experiments.online._agent_worlds import make_world
from experiments.online._streaming_agent import init_agent, Record, run, Settings
from experiments.online._streaming_methods import truncated
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.mark.slow
def test_the_study_runs_and_writes_what_it_shows(tmp_path, capsys):
    # Compilation takes almost all of the time, so there are few jobs.
    config = agents.Config(
        worlds=("chain_0",), lookbacks=(), frozen=False, decays=(0.0, 0.5), units=2,
        hidden=2, steps=400, seeds=1, choosing_seeds=1, timed_steps=40,
        out=tmp_path / "out",
    )  # fmt: skip
    result = agents.main(config)
    assert not result.interrupted
    learned, timed = result.rows
    assert learned["world"] == "chain_0"
    assert len(learned["score"]) == len(learned["curve"]) == 1
    assert len(learned["tried"]) == 2
    assert learned["decay"] == (0.0, 0.5)[int(np.argmax(learned["tried"]))]
    assert timed["microseconds"] > 0
    assert (result.folder / "agents.png").stat().st_size > 10_000
    shown = " ".join(capsys.readouterr().out.split())
    assert "MemoryChain-0" in shown
    assert "Speed on MemoryChain-8" in shown
    assert "MemoryChain-0. One seed: no statement about differences in return" in shown
    check_resumed(agents.main, config, result, pictures=["agents.png"])


def test_returns_are_sums_of_the_rewards_of_episodes():
    flags = np.zeros(80, bool)
    ends = flags.copy()
    ends[[3, 39, 79]] = True
    late = flags.copy()
    late[50] = True
    rewards = np.arange(80.0)
    record = Record(rewards, ends, late, rewards, rewards, 1 * ends)
    last, returns = agents.episodes(record)
    assert last.tolist() == [3, 39, 50, 79]
    parts = np.split(rewards, [4, 40, 51])
    np.testing.assert_allclose(returns, [part.sum() for part in parts])
    curve = agents.mean_returns(record)
    assert [place for place, value in enumerate(curve) if value is not None] == [
        1, 19, 25, 39,
    ]  # fmt: skip
    assert curve[25] == parts[2].sum()


def test_answers_are_counted_at_the_ends_of_late_episodes():
    ends, actions = np.zeros(80, bool), np.zeros(80, int)
    ends[[3, 73, 75, 77, 79]] = True
    actions[[3, 74, 77]] = 1
    record = Record(1.0 * ends, ends, 0 * ends, ends, ends, actions)
    assert agents.rarest_answer(record, 2) == 0.25
    assert agents.rarest_answer(record._replace(actions=0 * actions), 2) == 0


@pytest.mark.slow
def test_a_fixed_memory_stays_as_drawn_and_the_rest_learns():
    settings, key = Settings(units=2, hidden=2), jax.random.key(0)
    world = make_world("chain_1")
    first = init_agent(world, settings, key)
    rule = with_fixed_memory(truncated(1))
    _, last = jax.jit(lambda: run(world, rule, settings, 30, key, first))()
    for name, params in first.items():
        chex.assert_trees_all_equal(last[name]["cell"], params["cell"])
        for part in ("hidden", "hidden_bias", "readout", "bias"):
            assert not np.array_equal(last[name][part], params[part]), (name, part)


def test_the_share_of_agents_that_learnt_has_an_interval():
    row = {"world": "chain_8", "score": [0.9, 1.0, 0.89, 0.99, 1.0]}
    assert _agents_report.learned(row) == "4 of 5 (0.38–0.96)"
    assert _agents_report.learned(row | {"world": "pendulum"}) == "–"
    between = _agents_report.between
    assert between("cartpole", [91.0, 92.0, 93.0]) == "89.5 to 94.5"
    assert between("chain_128", [1.0, 0.0, 1.0, 1.0, 1.0]).endswith(" to 1")
    assert between("pendulum", [-1.0, 0.0]).endswith(" to 0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worlds": ("chain", "cartpole")}, "worlds must be some of .*; got chain"),
        ({"worlds": ()}, "worlds must be some of .*; got none"),
        ({"decays": (1.0,)}, r"decays must be in \[0, 1\), got \(1\.0,\)"),
        ({"lookbacks": (0,)}, r"lookbacks must be at least 1, got \(0,\)"),
        ({"steps": 1}, "steps must be at least 40, got 1"),
        ({"rate": 0.0}, "rate must be positive, got 0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        agents.Config(**options)
