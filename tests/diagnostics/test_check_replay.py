"""Replays of rollouts: what check_replay finds, and where."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import diagnostics, gradients

STEPS, BATCH, N, ACTIONS = 8, 3, 4, 5
NUMBERS = np.random.default_rng(3)
PARAMS = {
    "recurrent": NUMBERS.normal(size=(N, N)),
    "head": 2 * NUMBERS.normal(size=(N, ACTIONS)),
}
START = 0.5 + np.zeros((BATCH, N))
XS = (
    NUMBERS.normal(size=(STEPS, BATCH, N)),
    NUMBERS.integers(0, ACTIONS, size=(STEPS, BATCH)),
)
DONES = np.zeros((STEPS, BATCH), bool)
DONES[3, 1] = DONES[5, 0] = DONES[5, 2] = True
RESET = np.concatenate([np.zeros((1, BATCH), bool), DONES[:-1]])


def policy(params, carry, x):
    """Return the new carry, and the log-probability of the action that was taken."""
    observation, action = x
    carry = jnp.tanh(carry @ params["recurrent"] + observation)
    logits = jax.nn.log_softmax(carry @ params["head"])
    picked = jnp.take_along_axis(logits, action[:, None], axis=-1)
    return carry, {"log_prob": picked[:, 0]}


def acted():
    """Act in NumPy, and clear the memory after each episode, as an agent does."""
    carry, outputs, carries = START, [], []
    for observation, action, done in zip(*XS, DONES, strict=True):
        carry = np.tanh(carry @ PARAMS["recurrent"] + observation)
        logits = carry @ PARAMS["head"]
        logits -= np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
        outputs.append(logits[np.arange(BATCH), action])
        carries.append(carry)
        carry = np.where(done[:, None], START, carry)
    return {"log_prob": np.stack(outputs)}, np.stack(carries)


OUTPUTS, CARRIES = acted()


def altered(array, place, change):
    array = array.copy()
    array[place] += change
    return array


def check(reset=RESET, outputs=OUTPUTS, carries=CARRIES, xs=XS, start=START, **options):
    return diagnostics.check_replay(
        policy, PARAMS, start, xs,
        outputs=outputs, carries=carries, reset=reset, **options,
    )  # fmt: skip


def test_a_faithful_replay_agrees():
    found = check()
    assert found.first is None
    assert found.differences == []
    assert float(found.largest_ratio) == pytest.approx(1, abs=1e-6)
    assert not found.agrees_if_later
    assert not found.agrees_if_earlier
    assert found.table() == "The replay agrees with the rollout (tol = 0.001)."
    assert found.outputs["log_prob"].shape == (STEPS, BATCH)
    assert found.carries.shape == (STEPS, BATCH)


def test_dones_given_as_resets_are_found():
    """The bug of several libraries: a reset one step before the episode's end."""
    found = check(reset=DONES)
    assert found.first.time == 3  # the done step; its reset belongs before step 4
    assert found.first.example == (1,)
    assert found.agrees_if_later
    assert not found.agrees_if_earlier
    assert "gradients.resets_from_dones(dones)" in found.table()
    # The ratio is that of the probabilities, computed here from the replay.
    _, replay = gradients.unroll(policy, PARAMS, START, XS, reset=DONES)
    gap = np.max(np.abs(replay["log_prob"] - OUTPUTS["log_prob"]))
    assert found.largest_ratio == pytest.approx(math.exp(gap), rel=1e-5)
    (line,) = [each for each in found.differences if "outputs" in each.place]
    assert line.place == "outputs['log_prob']"
    assert line.difference == pytest.approx(gap, rel=1e-5)
    assert line.ratio == pytest.approx(math.exp(gap), rel=1e-5)


def test_resets_one_step_late_are_found():
    found = check(reset=gradients.resets_from_dones(RESET))
    assert (found.first.time, found.first.example) == (4, (1,))
    assert found.agrees_if_earlier
    assert not found.agrees_if_later
    assert "first steps of episodes" in found.table()


@pytest.mark.parametrize(
    ("change", "place", "time", "example"),
    [
        ({"start": START + 0.3}, "outputs['log_prob']", 0, (0,)),
        ({"reset": None}, "outputs['log_prob']", 4, (1,)),
        ({"outputs": None, "reset": None}, "carries", 4, (1,)),
        (
            {"outputs": {"log_prob": altered(OUTPUTS["log_prob"], (6, 2), np.nan)}},
            "outputs['log_prob']", 6, (2,),
        ),
        ({"carries": altered(CARRIES, (2, 1, 0), 0.01)}, "carries", 2, (1,)),
    ],
)  # fmt: skip
def test_other_differences_are_located(change, place, time, example):
    found = check(**change)
    assert found.first[:3] == (place, time, example)
    assert place in found.table()
    assert not found.agrees_if_later
    assert not found.agrees_if_earlier


def test_the_tolerance_decides():
    shifted = altered(CARRIES, (2, 1, 0), 0.01)
    assert check(carries=shifted, tol=0.02).first is None
    assert check(carries=shifted, tol=0.005).first.time == 2
    assert check(carries=shifted, tol=0.02).carries[2, 1] == pytest.approx(
        0.01, rel=1e-3
    )
    # The tolerance of large numbers is relative.
    large = {"log_prob": 1000 * OUTPUTS["log_prob"]}
    scaled = lambda p, c, x: (lambda c, y: (c, {"log_prob": 1000 * y["log_prob"]}))(
        *policy(p, c, x)
    )
    near = {"log_prob": large["log_prob"] * 1.0005}
    found = diagnostics.check_replay(
        scaled, PARAMS, START, XS, outputs=near, reset=RESET
    )
    assert found.outputs["log_prob"][1, 0] > 0.1
    assert found.first is None


@pytest.mark.slow
def test_padding_is_not_compared():
    mask = gradients.mask_from_lengths(jnp.array([STEPS, 5, 0]), STEPS)
    spoil = lambda leaf: jnp.where(
        mask.reshape(mask.shape + (1,) * (leaf.ndim - 2)), leaf, jnp.nan
    )
    outputs = jax.tree.map(spoil, OUTPUTS)
    found = check(outputs=outputs, carries=spoil(CARRIES), mask=mask)
    assert found.first is None
    assert check(outputs=outputs).first is not None


@pytest.mark.slow
def test_works_within_jit_and_on_equal_infinities():
    run = jax.jit(lambda dones: check(reset=dones, tol=jnp.asarray(1e-3)))
    found = run(DONES)
    assert found.first.time == 3
    forbidden = lambda w, h, x: (h, jnp.where(x > 0, -jnp.inf, x))
    xs = jnp.array([-1.0, 1.0, -2.0])
    got = diagnostics.check_replay(
        forbidden, 1.0, jnp.array(0.0), xs, outputs=jnp.array([-1.0, -jnp.inf, -2.0])
    )
    assert got.first is None
    assert got.largest_ratio == 1


@pytest.mark.slow
def test_integers_and_keys_of_a_carry_are_compared():
    def count(w, carry, x):
        number, key, h = carry
        return (number + 1, jax.random.split(key)[0], w * h + x), h

    carry = jnp.array(0), jax.random.key(1), jnp.array(0.5)
    xs, stored = jnp.ones(4), []
    for x in xs:
        carry, _ = count(0.5, carry, x)
        stored.append(carry)
    stored = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stored)
    start = jnp.array(0), jax.random.key(1), jnp.array(0.5)
    run = lambda start: diagnostics.check_replay(count, 0.5, start, xs, carries=stored)
    assert run(start).first is None
    found = run((jnp.array(1), jax.random.key(2), jnp.array(0.5)))
    assert [each.place for each in found.differences] == ["carries[0]", "carries[1]"]
    assert [each.time for each in found.differences] == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": None, "carries": None}, "outputs or carries must be given"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"outputs": OUTPUTS["log_prob"]}, "structure of the step's y and shapes"),
        ({"carries": CARRIES[..., :2]}, "structure of the carry and shapes"),
        (
            {"outputs": {"log_prob": OUTPUTS["log_prob"][:3]}},
            "outputs must have 8 time",
        ),
        ({"reset": jnp.zeros((STEPS, BATCH))}, "reset must be bool"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check(**change)
