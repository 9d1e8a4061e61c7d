"""Tests of losses with weight 0, and of dtypes of losses and loss weights."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import diagnostics, gradients
from tests.problems import RULES

# E-prop warns because the whole carry is visible
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")

KEY = jax.random.key(0)
T, B = 4, 2


def drawing(make):
    return lambda step, loss: partial(make(step, loss), key=KEY)


def online(make):
    return lambda step, loss: gradients.over_sequence(make(step, loss))


def signal(y, target):
    return y - target


SEQUENCES = RULES | {
    "bptt_step": partial(gradients.bptt, remat="step"),
    "truncated_bptt": partial(gradients.truncated_bptt, every=1, lookback=2),
    "artbp": drawing(partial(gradients.artbp, truncation=0.3)),
    "snap": online(partial(gradients.snap, order=1)),
    "rflo": online(gradients.rflo),
    "eprop": online(partial(gradients.eprop, visible=lambda h: h)),
    "eprop_signal": online(
        partial(gradients.eprop, visible=lambda h: h, signal=signal)
    ),
    "uoro": drawing(online(gradients.uoro)),
    "forward_gradient": drawing(online(gradients.forward_gradient)),
    "kf_rtrl": drawing(online(gradients.kf_rtrl)),
    "pes": drawing(online(gradients.pes)),
}
EXACT = {*RULES, "bptt_step"}


def step(params, h, x):
    h = jnp.tanh(h @ params + x)
    return h, h


def root(y, target):
    """Return the Euclidean distance between y and target.

    The slope of the distance is infinite where y equals target.
    """
    return jnp.sqrt(jnp.sum((y - target) ** 2, axis=-1))


def problem():
    normal = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
    carry = jnp.zeros((B, 2)).at[1].set(0.5)
    # This input makes y = 0 at the first step of example 0.
    xs = normal(1, T, B, 2).at[0, 0].set(0)
    return normal(0, 2, 2), carry, xs, normal(2, T, B, 2)


WEIGHTS = jnp.array([[0.0, 1.0], [1.0, 0.5], [0.0, 0.0], [2.0, 1.0]])


# One gradient rule for each implementation of the weighted mean of losses
FEW = ("bptt", "truncated_bptt", "eprop_signal", "pes")
some_then_all = pytest.mark.parametrize(
    "names", [FEW, pytest.param(tuple(SEQUENCES), marks=pytest.mark.slow)], ids=len
)


@cache
def all_rules(loss, names):
    """Return one jitted function that returns the results of all named rules."""

    def run(targets, weights):
        params, carry, xs, _ = problem()
        return {
            name: SEQUENCES[name](step, loss)(params, carry, xs, targets, weights)
            for name in names
        }

    return jax.jit(run)


def missing(number=jnp.nan):
    targets = problem()[-1]
    return jnp.where((WEIGHTS == 0)[..., None], number, targets)


@some_then_all
def test_a_missing_target_of_weight_0_is_as_if_its_loss_were_not_there(names):
    """Check that value, gradient and carry ignore a loss of weight 0.

    The step of the network is run even if the weight of its loss is 0.
    """
    params, carry, xs, targets = problem()

    def without(params):
        ys = gradients.unroll(step, params, carry, xs)[1]
        times, examples = np.nonzero(np.asarray(WEIGHTS))
        losses = root(ys[times, examples], targets[times, examples])
        return jnp.sum(WEIGHTS[times, examples] * losses) / jnp.sum(WEIGHTS)

    want = jax.value_and_grad(without)(params)
    last = gradients.unroll(step, params, carry, xs)[0]
    clean = all_rules(root, names)(targets, WEIGHTS)
    for number in (jnp.nan, jnp.inf):
        found = all_rules(root, names)(missing(number), WEIGHTS)
        for name, ((value, end), grads) in found.items():
            chex.assert_trees_all_close((value, end), (want[0], last), rtol=1e-12)
            chex.assert_trees_all_close(grads, clean[name][1], rtol=1e-12)
            if name in EXACT:
                chex.assert_trees_all_close(grads, want[1], rtol=1e-12)


@some_then_all
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_in_padding_do_not_count_even_if_they_are_infinite(names, weighted):
    """Check losses whose targets in padding are 0.

    The first loss takes the logarithm of the target, so it is infinite in padding. The
    second loss is a square root, whose derivative at 0 is infinite.
    """
    if weighted:
        loss = lambda y, target: jnp.sqrt(jnp.sum(target**2 * (1 + y**2), axis=-1))
    else:
        loss = lambda y, target: jnp.sum((y - jnp.log(target)) ** 2, axis=-1)
    mask = gradients.mask_from_lengths(jnp.array([T, 2]), T)
    flags = {"mask": mask, "weights": jnp.ones((T, B)) if weighted else None}

    def run(targets):
        params, carry, xs, _ = problem()
        return {
            name: SEQUENCES[name](step, loss)(params, carry, xs, targets, **flags)
            for name in names
        }

    real = jnp.exp(problem()[-1])
    padded = [jnp.where(mask[..., None], real, pad) for pad in (1, 0, -1, jnp.nan)]
    want, *found = map(jax.jit(run), padded)
    chex.assert_tree_all_finite(want)
    for results in found:
        chex.assert_trees_all_equal(results, want)


@some_then_all
def test_a_missing_target_that_counts_is_not_silent(names):
    weights = jnp.ones_like(WEIGHTS)
    for (value, _), _ in all_rules(root, names)(missing(), weights).values():
        assert jnp.isnan(value)


def test_missing_targets_while_learning_on_the_way():
    params, carry, xs, targets = problem()
    sgd = optax.sgd(0.1)
    rules = [
        gradients.truncated_bptt(step, root, every=2, lookback=2, update=sgd),
        gradients.over_sequence(gradients.rtrl(step, root), every=2, update=sgd),
    ]

    @jax.jit
    def both(targets):
        pair = params, sgd.init(params)
        return [rule(pair, carry, xs, targets, WEIGHTS) for rule in rules]

    chex.assert_trees_all_close(both(missing()), both(targets), rtol=1e-12)


def test_feedback_weights_do_not_learn_from_missing_targets():
    params, carry, xs, targets = problem()
    feedback = gradients.AdaptiveFeedback(jnp.eye(2), learning_rate=0.5)
    rule = gradients.rflo(step, root, feedback=feedback)
    state = rule.init(params, carry, (xs[1], targets[1]))
    update = jax.jit(rule.update)
    found = [
        update(params, state, xs[1], target, weight=WEIGHTS[0])
        for target in (targets[0], missing()[0])
    ]
    chex.assert_trees_all_close(*found, rtol=1e-12)


def test_missing_targets_without_time():
    (params, *_), weights = problem(), jnp.array([0.0, 2.0])
    x, target = problem()[2][1], problem()[3][1]
    layers = [(lambda w, y: y @ w, jnp.tanh)]
    f = lambda w, h, x: 0.1 * jnp.tanh(h @ w) + x
    settle = gradients.recurrent_backprop(f, root, tol=1e-9)
    rules = {
        "backprop": lambda *args: gradients.backprop(layers, root)((params,), *args),
        "dfa": lambda *args: gradients.feedback_alignment(layers, root, kind="dfa")(
            (params,), *args, feedback=(None,)
        ),
        "recurrent": lambda *args: settle(params, jnp.zeros((2, 2)), *args),
    }
    bad = target.at[0].set(jnp.nan)
    for rule in rules.values():
        want, got = (jax.jit(rule)(x, each, weights) for each in (target, bad))
        chex.assert_tree_all_finite(got)
        chex.assert_trees_all_close((got[0][0], got[1]), (want[0][0], want[1]))


@pytest.mark.slow
def test_diagnostics_do_not_look_at_targets_that_do_not_count():
    params, carry, xs, targets = problem()
    args = step, root, params, carry, xs
    assert diagnostics.first_nonfinite(*args, missing(), weights=WEIGHTS).first is None
    assert diagnostics.first_nonfinite(*args, missing()).first is not None
    flows = [
        diagnostics.gradient_flow(*args, each, weights=WEIGHTS)
        for each in (targets, missing())
    ]
    chex.assert_trees_all_close(flows[0].deltas, flows[1].deltas, rtol=1e-12)


def test_values_are_differentiable_in_weights_that_are_0():
    """Compare derivatives in the loss weights w with (ℓ − value) / Σw.

    The value is the weighted mean Σwℓ / Σw of the losses ℓ. Some of the weights are 0,
    as they are with a forgetting factor of 0.
    """
    params, carry, xs, targets = problem()
    rule = gradients.bptt(step, root)
    value = lambda weights: rule(params, carry, xs, targets, weights)[0][0]
    losses = root(gradients.unroll(step, params, carry, xs)[1], targets)
    want = (losses - value(WEIGHTS)) / jnp.sum(WEIGHTS)
    chex.assert_trees_all_close(jax.grad(value)(WEIGHTS), want, rtol=1e-10)


def test_outer_derivatives_of_missing_targets_are_0():
    params, carry, xs, _ = problem()

    def value(scale, targets):
        loss = lambda y, target: scale * root(y, target)
        return gradients.bptt(step, loss)(params, carry, xs, targets, WEIGHTS)[0][0]

    by_scale, by_targets = jax.grad(value, (0, 1))(2.0, missing())
    assert jnp.isfinite(by_scale)
    assert jnp.all(jnp.where((WEIGHTS == 0)[..., None], by_targets == 0, True))
    chex.assert_tree_all_finite(by_targets)


# Tests of losses and weights of other dtypes.


def count(y, target):
    return jnp.sum(y > target, axis=-1, dtype=jnp.int32)


def too_large(y, target):
    return jnp.sum(y, axis=-1) > jnp.sum(target, axis=-1)


def test_pes_takes_losses_that_count():
    @jax.jit
    def run():
        found = {}
        for loss in (count, too_large):
            floating = lambda y, target, loss=loss: loss(y, target).astype(jnp.float32)
            for weights in (None, WEIGHTS):
                rules = [
                    drawing(online(partial(gradients.pes, sigma=0.5)))(step, each)
                    for each in (loss, floating)
                ]
                both = [rule(*problem(), weights) for rule in rules]
                found[loss.__name__, weights is None] = both
        return found

    for got, want in run().values():
        assert got[0][0].dtype == jnp.float32
        assert jnp.any(want[1] != 0)
        chex.assert_trees_all_equal(got, want)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (count, "loss must give floating numbers, got int32"),
        (too_large, "loss must give floating numbers, got bool"),
        (
            lambda y, _: y[..., 0].astype(complex),
            "loss must give real numbers, got compl",
        ),
        (lambda y, target: (root(y, target), y), "loss must return one array .* tuple"),
        (lambda y, target: None, "loss must return one array .* NoneType"),
    ],
    ids=["int", "bool", "complex", "tuple", "None"],
)
def test_losses_without_derivative_are_refused(loss, message):
    for name, make in SEQUENCES.items():
        if name != "pes" or loss not in (count, too_large):
            with pytest.raises(ValueError, match=message):
                make(step, loss)(*problem())
    (params, *_), x = problem(), problem()[2][0]
    f = lambda w, h, x: 0.1 * jnp.tanh(h @ w) + x
    with pytest.raises(ValueError, match=message):
        gradients.recurrent_backprop(f, loss)(params, x, x, x)
    with pytest.raises(ValueError, match=message):
        gradients.backprop([(lambda w, y: y @ w, jnp.tanh)], loss)((params,), x, x)


@some_then_all
def test_weights_that_count_or_say_yes_or_no(names):
    targets = problem()[-1]
    whole = jnp.array([[0, 1], [1, 1], [0, 0], [1, 1]])
    want = all_rules(root, names)(targets, whole.astype(float))
    for dtype in (jnp.int32, bool):
        got = all_rules(root, names)(targets, whole.astype(dtype))
        chex.assert_trees_all_close(got, want, rtol=1e-6)


def test_complex_weights_are_refused():
    for make in SEQUENCES.values():
        with pytest.raises(ValueError, match="weights must be real, got complex128"):
            make(step, root)(*problem(), WEIGHTS.astype(complex))
    params, _, xs, targets = problem()
    layers = [(lambda w, y: y @ w, jnp.tanh)]
    with pytest.raises(ValueError, match="weights must be real"):
        gradients.backprop(layers, root)(
            (params,), xs[0], targets[0], WEIGHTS[0].astype(complex)
        )
    rule = gradients.rtrl(step, root)
    state = rule.init(params, xs[0], (xs[0], targets[0]))
    with pytest.raises(ValueError, match="weight must be real, got complex128"):
        rule.update(params, state, xs[0], targets[0], weight=WEIGHTS[0].astype(complex))
