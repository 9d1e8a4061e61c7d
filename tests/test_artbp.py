"""ARTBP by enumeration of all it can draw: its mean, its variance, its mistakes."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients import _artbp


def ages_and_weight(pattern, schedule, mask, reset):
    """Follow one example by hand: return P(pattern), where κ is 0 if none can be."""
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
    """Return the estimate as a function of what is drawn: 0 cuts, where it can, 1 not.

    It is one program for all draws.
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
mask = np.array([True, True, False, True, True])
reset = np.array([False, False, True, True, False])
OPTIONS = {
    "plain": {},
    "masked": {"mask": mask},
    "reset": {"reset": reset & mask},
    "all": {"mask": mask, "reset": np.array([0, 1, 1, 0, 0], bool)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_mean_over_all_cuts_is_bptt(make_problem, schedule, options):
    step, loss, args, more = make_problem("tanh", batch=(), T=T)
    truncation, plain = schedule
    options = options | {"weights": more["weights"], "initial": more["initial"]}
    want = gradients.bptt(step, loss)(*args, **options)
    with_draws = estimate(step, loss, truncation)
    patterns = all_patterns(T)
    several = jax.jit(jax.vmap(lambda draws: with_draws(draws, *args, **options)))
    (values, _), grads = several(1.0 - patterns)
    chex.assert_trees_all_close(values, jnp.full(2**T, want[0][0]), rtol=1e-12)
    real = options.get("mask", np.ones(T, bool))
    again = options.get("reset", np.zeros(T, bool))
    weights = np.array([ages_and_weight(p, plain, real, again) for p in patterns])
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    mean = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)
    chex.assert_trees_all_close(mean, want[1], rtol=1e-12, atol=1e-13)
    # That this could fail: as they come, without what makes up for the cuts.
    unweighted = jax.tree.map(lambda g: jnp.mean(g, axis=0), grads)
    gap = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), unweighted, want[1])
    assert gap["hidden"][0] > 1e-3


def test_examples_are_cut_each_by_itself(make_problem):
    """Both at once: the mean over the cuts of two examples, one of them shorter."""
    step, loss, args, _ = make_problem("tanh", batch=(2,), T=4)
    truncation, plain = SCHEDULES["growing"]
    mask = gradients.mask_from_lengths(jnp.array([4, 3]), 4)
    with_draws = estimate(step, loss, truncation)
    patterns = all_patterns(8).reshape(-1, 4, 2)
    several = jax.jit(jax.vmap(lambda draws: with_draws(draws, *args, mask=mask)))
    _, grads = several(1.0 - patterns)
    never = np.zeros(4, bool)
    weight = lambda p, b: ages_and_weight(p[:, b], plain, np.asarray(mask)[:, b], never)
    weights = np.array([weight(p, 0) * weight(p, 1) for p in patterns])
    mean = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)
    want = gradients.bptt(step, loss)(*args, mask=mask)[1]
    chex.assert_trees_all_close(mean, want, rtol=1e-12, atol=1e-13)


def probe_p():
    t = jnp.arange(1.0, 7.0)
    xs = jnp.stack([jnp.sin(0.7 * t), jnp.cos(0.4 * t)], axis=1)
    targets = jnp.cos(0.3 * t[:, None] + jnp.arange(3.0)[None]) / 2
    W = jnp.array([[0.5, -0.8, 0.3], [0.9, 0.4, -0.6], [-0.2, 0.7, 0.6]])
    U = jnp.array([[0.6, -0.4], [0.3, 0.5], [-0.7, 0.2]])
    b = jnp.array([0.1, -0.2, 0.05])
    return (W, U, b), jnp.array([0.3, -0.1, 0.2]), xs, targets


def probe_step(params, h, x):
    W, U, b = params
    h = jnp.tanh(W @ h + U @ x + b)
    return h, h


half_square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1) / 2


def by_hand(args, cut, kappa, rescaled=True):
    """δ_t = c_t + (1 − cut_t) / (1 − κ) · δ_{t+1} J_{t+1} on probe P, in NumPy."""
    (W, U, b), h, xs, targets = jax.tree.map(np.asarray, args)
    hs = [h]
    for x in xs:
        hs.append(np.tanh(W @ hs[-1] + U @ x + b))
    delta, grads = np.zeros(3), [np.zeros_like(p) for p in (W, U, b)]
    for t in range(len(xs), 0, -1):  # delta: that of t + 1, sent back to t
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
    return grads


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def test_each_draw_is_the_recursion_and_variance_grows_with_kappa():
    args = probe_p()
    exact = flat(gradients.bptt(probe_step, half_square)(*args)[1])
    patterns = all_patterns(6)[:32]  # the first entry, before the first step, is moot
    rms = []
    for kappa in (0.1, 0.3, 0.5, 0.8):
        with_draws = estimate(probe_step, half_square, kappa)
        several = jax.vmap(lambda draws: flat(with_draws(draws, *args)[1]))  # noqa: B023
        grads = several(1.0 - patterns)
        want = np.array([flat(by_hand(args, cut, kappa)) for cut in patterns])
        np.testing.assert_allclose(grads, want, rtol=1e-12, atol=1e-14)
        cuts = patterns.sum(axis=1)
        weights = kappa**cuts * (1 - kappa) ** (5 - cuts)
        np.testing.assert_allclose(weights @ grads, exact, rtol=1e-12, atol=1e-14)
        squares = weights @ np.sum((grads - exact) ** 2, axis=1)
        rms.append(np.sqrt(squares) / np.linalg.norm(exact))
        plain = [flat(by_hand(args, cut, kappa, rescaled=False)) for cut in patterns]
        bias = np.linalg.norm(weights @ np.array(plain) - exact)
        assert bias > 0.05 * np.linalg.norm(exact)  # what the scaling is for
    print(rms)
