"""Tests of ARTBP: mean and variance over all random cuts of the sequence."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.through_time import _artbp


def probability(pattern, schedule, mask, reset):
    """Return the probability of a pattern of cuts of one example's sequence.

    The probability of a cut is 0 at time steps where no cut is possible.
    """
    age, weight = 0, 1.0
    for cut, real, again in zip(pattern, mask, reset, strict=True):
        kappa = 0.0
        if real:
            age = 0 if again else age
            kappa = schedule(age) if age > 0 else 0.0
            age = 1 if cut else age + 1
        weight *= kappa if cut else 1 - kappa
    return weight


def all_patterns(length):
    return np.array(list(itertools.product([False, True], repeat=length)))


def estimate(step, loss, truncation):
    """Return the gradient estimate as a function of random draws.

    `draws` are uniform random numbers: 0 cuts if a cut is possible, and 1 never cuts.

    The returned function is compiled only once for all draws.
    """
    rule = _artbp._with_cuts(step, loss, None)

    def with_draws(draws, *args, weights=None, mask=None, reset=None, initial=None):
        draw = lambda shape, dtype, mask, reset: _artbp._cuts(
            truncation, draws.reshape(shape), mask, reset
        )
        return rule(draw, *args, weights, mask, reset, initial)

    return with_draws


SCHEDULES = {
    "constant": (0.4, lambda age: 0.4),
    "growing": (gradients.growing_truncation(2, 4.0), lambda age: 4 / (2 * 2 + age)),
    "rising": (lambda age: 1 - 1 / (1 + age), lambda age: 1 - 1 / (1 + age)),
}
T = 5
FLAGS = {  # Format: {name: (mask, reset)}.
    "plain": ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
    "masked": ([1, 1, 0, 1, 1], [0, 0, 0, 0, 0]),
    "reset": ([1, 1, 1, 1, 1], [0, 0, 0, 1, 0]),
    "both": ([1, 1, 0, 1, 1], [0, 1, 1, 0, 0]),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.fast_rows(1)
def test_the_mean_over_all_cuts_is_bptt(make_problem, schedule):
    step, loss, args, more = make_problem("tanh", batch=(), T=T)
    truncation, plain = schedule
    given = {name: more[name] for name in ("weights", "initial")}
    with_draws = estimate(step, loss, truncation)
    patterns = all_patterns(T)
    one = lambda draws, flags: with_draws(draws, *args, **given, **flags)
    several = jax.jit(jax.vmap(one, in_axes=(0, None)))
    exact = jax.jit(lambda flags: gradients.bptt(step, loss)(*args, **given, **flags))
    for mask, reset in FLAGS.values():
        flags = {"mask": jnp.array(mask, bool), "reset": jnp.array(reset, bool)}
        want = exact(flags)
        (values, _), grads = several(1.0 - patterns, flags)
        chex.assert_trees_all_close(values, jnp.full(2**T, want[0][0]), rtol=1e-12)
        weights = np.array([probability(p, plain, mask, reset) for p in patterns])
        assert weights.sum() == pytest.approx(1, rel=1e-12)
        mean = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)  # noqa: B023
        chex.assert_trees_all_close(mean, want[1], rtol=1e-12, atol=1e-13)
        gap = jnp.mean(grads["hidden"][0], axis=0) - want[1]["hidden"][0]
        # The unweighted mean is different, so this test detects wrong probabilities.
        assert jnp.max(jnp.abs(gap)) > 1e-3


def test_examples_are_cut_each_by_itself(make_problem):
    """Check the mean gradient over independent cuts of a long and a short example."""
    step, loss, args, _ = make_problem("tanh", batch=(2,), T=4)
    truncation, plain = SCHEDULES["growing"]
    mask = gradients.mask_from_lengths(jnp.array([4, 3]), 4)
    with_draws = estimate(step, loss, truncation)
    patterns = all_patterns(8).reshape(-1, 4, 2)
    several = jax.jit(jax.vmap(lambda draws: with_draws(draws, *args, mask=mask)))
    _, grads = several(1.0 - patterns)
    never = np.zeros(4, bool)
    weight = lambda p, b: probability(p[:, b], plain, np.asarray(mask)[:, b], never)
    weights = np.array([weight(p, 0) * weight(p, 1) for p in patterns])
    mean = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)
    want = gradients.bptt(step, loss)(*args, mask=mask)[1]
    chex.assert_trees_all_close(mean, want, rtol=1e-12, atol=1e-13)


def by_hand(args, cut, kappa, rescaled=True):
    """Compute ARTBP's gradient for given cuts of the sequence, in NumPy.

    The error signals are δ_t = c_t + (1 − cut_t) / (1 − κ) · δ_{t+1} J_{t+1}. Here c_t
    is the derivative of the loss of step t in the carry, J_{t+1} is the Jacobian of the
    next step, and κ is the probability of a cut. The network is probe P.
    """
    (W, U, b), h, xs, targets = jax.tree.map(np.asarray, args)
    hs = [h]
    for x in xs:
        hs.append(np.tanh(W @ hs[-1] + U @ x + b))
    delta, grads = np.zeros(3), [np.zeros_like(p) for p in (W, U, b)]
    # Here, delta is δ_{t+1} J_{t+1}, the error signal from the next step.
    for t in range(len(xs), 0, -1):
        delta = hs[t] - targets[t - 1] + delta
        s = (1 - hs[t] ** 2) * delta
        for grad, part in zip(
            grads, (np.outer(s, hs[t - 1]), np.outer(s, xs[t - 1]), s), strict=True
        ):
            grad += part / len(xs)
        delta = W.T @ s
        if t > 1:
            scale = 1 / (1 - kappa) if rescaled else 1
            delta = delta * (0 if cut[t - 1] else scale)
    return np.concatenate([grad.ravel() for grad in grads])


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


# Reference: relative RMS error on probe P for κ = .1, .3, .5, .8; NumPy enumerates all
# cuts.
RMS = {0.1: 0.374884, 0.3: 0.831258, 0.5: 1.563054, 0.8: 7.480234}


def test_each_draw_is_the_recursion_and_variance_grows_with_kappa(make_probe):
    step, loss, args, _ = make_probe()
    exact = np.asarray(flat(gradients.bptt(step, loss)(*args)[1]))
    # A cut before the first time step has no effect, so use only half of the patterns.
    patterns = all_patterns(6)[:32]

    @jax.jit  # compiled only once for all κ
    @partial(jax.vmap, in_axes=(0, None))
    def several(draws, kappa):
        return flat(estimate(step, loss, kappa)(draws, *args)[1])

    for kappa, rms in RMS.items():
        grads = np.asarray(several(1.0 - patterns, kappa))
        want = [by_hand(args, cut, kappa) for cut in patterns]
        np.testing.assert_allclose(grads, want, rtol=1e-12, atol=1e-14)
        cuts = patterns.sum(axis=1)
        weights = kappa**cuts * (1 - kappa) ** (5 - cuts)
        np.testing.assert_allclose(weights @ grads, exact, rtol=1e-12, atol=1e-14)
        squares = weights @ np.sum((grads - exact) ** 2, axis=1)
        got = np.sqrt(squares) / np.linalg.norm(exact)
        assert got == pytest.approx(rms, abs=1e-6)
        plain = [by_hand(args, cut, kappa, rescaled=False) for cut in patterns]
        bias = np.linalg.norm(weights @ np.array(plain) - exact)
        # Without the scaling by 1 / (1 − κ), the mean is biased.
        assert bias > 0.05 * np.linalg.norm(exact)


def integrate(w, h, x):
    return (h + w * x,) * 2


square = lambda y, target: (y - target) ** 2
ARGS = jnp.array(2.0), jnp.zeros(3), jnp.ones((4, 3)), jnp.zeros((4, 3))


def test_keys_draw_each_example_and_each_call_anew():
    keys = jax.random.split(jax.random.key(0), 2000)
    rule = gradients.artbp(integrate, square, truncation=0.3)
    draw = jax.jit(jax.vmap(lambda key: rule(*ARGS, key=key)[1]))
    grads, exact = draw(keys), gradients.bptt(integrate, square)(*ARGS)[1]
    alone = jax.tree.map(lambda leaf: leaf[..., :1], ARGS[1:])
    single = jax.vmap(lambda key: rule(ARGS[0], *alone, key=key)[1])(keys)
    assert float(jnp.mean(grads)) == pytest.approx(float(exact), abs=5 * 30 / 2000**0.5)
    # The mean of three independent examples has a third of the variance of one.
    assert jnp.var(single) / jnp.var(grads) == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("truncation", [1.0, 1.5, -0.1, jnp.nan], ids=str)
def test_what_cannot_be_made_up_for_is_nan(truncation):
    scheduled = lambda age: jnp.where(age < 2, 0.5, truncation)
    key = jax.random.key(0)

    @jax.jit
    def both(kappa):
        rules = (
            gradients.artbp(integrate, square, truncation=truncation)
            for truncation in (kappa, scheduled)
        )
        return [rule(*ARGS, key=key) for rule in rules]

    for (value, _), grad in both(truncation):
        assert value == pytest.approx(30)
        assert jnp.isnan(grad)


def test_cut_errors_may_have_overflowed():
    """Check that an infinite error signal becomes 0 at a cut, and not NaN."""
    step = lambda w, h, x: (w * x + jnp.float32(1e20) * h, h)
    rule = estimate(step, lambda y, target: y, 0.5)
    args = jnp.float32(1.0), jnp.float32(0.0), *jnp.zeros((2, 4), jnp.float32)
    _, uncut = rule(jnp.ones(4, jnp.float32), *args)
    _, cut = rule(jnp.array([1, 0, 1, 1], jnp.float32), *args)
    assert jnp.isnan(uncut)
    assert cut == 0


def test_mistakes_are_named():
    for wrong in (1, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="within 0 <= truncation < 1, got"):
            gradients.artbp(integrate, square, truncation=wrong)
    rule = gradients.artbp(integrate, square, truncation=0.5)
    with pytest.raises(ValueError, match="key must be given, as a keyword"):
        rule(*ARGS)
    rule = gradients.artbp(integrate, square, truncation=lambda age: jnp.ones(2))
    with pytest.raises(ValueError, match="one for each age it is given, shape"):
        rule(*ARGS, key=jax.random.key(0))
    with pytest.raises(ValueError, match="alpha must be greater than 2, got 2"):
        gradients.growing_truncation(16, 2.0)
    with pytest.raises(ValueError, match=r"\(alpha - 2\) = 1.5, got 1.5"):
        gradients.growing_truncation(1.5, 4.0)


def test_ages_of_growing_truncation():
    """Compare the mean age and mean length of the segments between cuts with theory.

    For growing truncation with the settings ℓ₀ and α, the mean age is ℓ₀, and the mean
    length of a segment is (α − 2) / (α − 1) · ℓ₀.
    """
    length, alpha = 200.0, 4.0
    ages = np.arange(1, 200_000)
    kappa = np.asarray(gradients.growing_truncation(length, alpha)(ages))
    # Probability that a segment with a length of at least `age` steps has one more step
    longer = np.cumprod(1 - kappa)
    mean_length = 1 + longer.sum()
    mean_age = (ages * longer).sum() / (1 + longer.sum())
    assert mean_age == pytest.approx(length, rel=0.02)
    assert mean_length == pytest.approx(length * (alpha - 2) / (alpha - 1), rel=0.02)
