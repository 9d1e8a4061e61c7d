"""Checks of gradient rules with random estimates, without statistical tests.

For UORO, KF-RTRL and ARTBP, the mean over all possible random draws is compared with
the exact gradient. For forward gradients and persistent evolution strategies (PES), one
random estimate is compared with its definition.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.gradients.online import _kf_rtrl, _uoro
from bpvariants.gradients.through_time import _artbp
from bpvariants.types import OnlineRule
from tests.random_programs import oracle
from tests.random_programs.build import Problem
from tests.random_programs.compare import assert_close, refusals, Unfit

DRAWS = 9  # at most 2^DRAWS combinations of signs are enumerated
KEY = jax.random.key(0)


def uoro(problem: Problem) -> None:
    """Check that UORO's mean gradient over all random signs is exact."""
    rank = len(problem.program.batch)

    def draw(signs, leaves):
        shapes = [leaf.shape[rank:] for leaf in leaves]
        parts = jnp.split(signs, np.cumsum([math.prod(s) for s in shapes])[:-1])
        return [
            jnp.broadcast_to(part.reshape((1,) * rank + shape), leaf.shape)
            for part, shape, leaf in zip(parts, shapes, leaves, strict=True)
        ]

    online = _uoro._with_signs(problem.step, problem.loss, draw)
    h, _ = oracle.floats(next(oracle.examples_of(problem))[0])
    check_mean(problem, online, lambda state: h.size)


def kf_rtrl(problem: Problem) -> None:
    """Check that KF-RTRL's mean gradient over all random signs is exact."""
    draw = lambda signs, shape, dtype: jnp.broadcast_to(
        signs.reshape(shape[-2:]), shape
    )
    online = _kf_rtrl._with_signs(problem.step, problem.loss, draw)
    check_mean(problem, online, lambda state: 2 * len(state.influence))


def check_mean(problem: Problem, online: OnlineRule, count: Callable) -> None:
    """Check that the mean gradient of an online rule over all random signs is exact.

    At each time step, the rule takes its random signs as the argument `key`.
    count(state) is the number of these signs. The signs of the last time step have no
    effect, so they are not varied. All examples have the same signs. This does not
    change the mean, because the gradient is a sum over examples.
    """
    params, carry, xs, targets = problem.args
    at = lambda tree, t: jax.tree.map(lambda leaf: leaf[t], tree)
    with refusals("does not factorise"):
        state = online.init(
            params, carry, at((xs, targets), 0), initial=problem.options["initial"]
        )
    size = count(state)
    length = min(problem.program.T, 1 + DRAWS // size) if size else 1
    if length == 1 < problem.program.T and size:
        raise Unfit("too many signs")
    problem = problem.first_steps(length)
    signs = itertools.product([-1.0, 1.0], repeat=(length - 1) * size)
    signs = np.reshape(list(signs), (2 ** ((length - 1) * size), length - 1, size))
    signs = np.pad(signs, [(0, 0), (0, 1), (0, 0)], constant_values=1)
    run = partial(over_steps, problem, online, state, step_shares(problem))
    estimate = jax.jit(jax.vmap(run))
    value_and_carry, grads = estimate(signs)
    want = oracle.exact(problem)
    mean = jax.tree.map(lambda leaf: leaf.mean(0), grads)
    assert_close((at(value_and_carry, -1), mean), want)


def over_steps(
    problem: Problem, online: OnlineRule, state: Any, shares: Any, signs: Any
) -> Any:
    """Run an online rule with given signs [T, size]; return ((loss, carry), gradient).

    shares[t] is the part of the total loss weight that belongs to time step t.
    """
    params, _, xs, targets = problem.args
    flags = [problem.options[name] for name in ("weights", "mask", "reset")]

    def body(state, inputs):
        x, target, (weight, mask, reset), signs = inputs
        value, grads, state = online.update(
            params, state, x, target, weight=weight, mask=mask, reset=reset, key=signs
        )
        return state, (value, grads)

    state, found = jax.lax.scan(body, state, (xs, targets, flags, signs))
    total = lambda a: jnp.tensordot(shares, a, axes=1)
    value, grads = jax.tree.map(total, found)
    return (value, state.carry), grads


def step_shares(problem: Problem) -> np.ndarray:
    """Return the part [T] of the total loss weight that belongs to each time step."""
    shares = np.zeros(len(problem.args[2]["x"]))
    for _, _, steps in oracle.examples_of(problem):
        for t, _, _, weight, _ in steps:
            shares[t] += weight / oracle.total_weight(problem)
    return shares


def artbp(problem: Problem) -> None:
    """Check that ARTBP's mean gradient over all possible cuts is exact."""
    kappa, T = 0.4, problem.program.T
    rule = _artbp._with_cuts(problem.step, problem.loss, None)
    cuts = np.array(list(itertools.product([0.0, 1.0], repeat=T - 1)))
    cuts = cuts.reshape(2 ** (T - 1), T - 1)
    chances = np.prod(np.where(cuts == 1, kappa, 1 - kappa), axis=1)
    options = problem.options

    def estimate(cuts):
        # ARTBP cuts the sequence at steps where a uniform random number is below the
        # probability κ. Here 0 makes a cut and 0.9 makes none. Never cut before the
        # first step.
        uniforms = jnp.concatenate([jnp.full(1, 0.9), 0.9 * (1 - cuts)])

        def draw(shape, dtype, mask, reset):
            of_examples = uniforms.reshape(T, *[1] * (len(shape) - 1))
            return _artbp._cuts(
                kappa, jnp.broadcast_to(of_examples, shape), mask, reset
            )

        return rule(draw, *problem.args, **options)

    value_and_carry, grads = jax.jit(jax.vmap(estimate))(cuts)
    mean = jax.tree.map(lambda leaf: np.tensordot(chances, leaf, axes=1), grads)
    first = jax.tree.map(lambda leaf: leaf[0], value_and_carry)
    assert_close((first, jax.tree.map(jnp.asarray, mean)), oracle.exact(problem))


def forward_gradient(problem: Problem) -> None:
    """Compare a forward gradient with its definition, the mean of (g · v) v.

    Here g is the exact gradient, and the mean is over the random directions v.
    """
    online = gradients.forward_gradient(problem.step, problem.loss, directions=2)
    params, carry, xs, targets = problem.args
    options = dict(problem.options)
    first = jax.tree.map(lambda leaf: leaf[0], (xs, targets))
    state = online.init(params, carry, first, initial=options.pop("initial"))
    rule = gradients.over_sequence(online, keep_state=True)
    rule = jax.jit(partial(rule, key=KEY))
    (value, state), grads = rule(params, state, xs, targets, **options)
    value_and_carry, exact = oracle.exact(problem)
    products = jax.tree.map(
        lambda g, v: jnp.tensordot(v, g, axes=g.ndim), exact, state.params_tangent
    )
    slopes = sum(jax.tree.leaves(products))
    along = lambda v: jnp.tensordot(slopes, v, axes=1) / 2
    want = jax.tree.map(along, state.params_tangent)
    assert_close(((value, state.carry), grads), (value_and_carry, want))
    assert all(np.all(np.abs(v) == 1) for v in jax.tree.leaves(state.params_tangent))


def pes(problem: Problem) -> None:
    """Compare an estimate by persistent evolution strategies (PES) with its definition.

    The estimate of time step t is (ℓ_t⁺ − ℓ_t⁻) ξ_t / (2σ²). Here ℓ_t⁺ and ℓ_t⁻ are the
    losses for the parameters θ + ε_t and θ − ε_t, with a random perturbation ε_t of
    standard deviation σ. The sum of the perturbations up to time step t is ξ_t.
    """
    sigma, options = 0.1, problem.options
    online = gradients.pes(problem.step, problem.loss, pairs=1, sigma=sigma)
    params, carry, xs, targets = problem.args
    at = lambda tree, t: jax.tree.map(lambda leaf: leaf[t], tree)
    flags = [options[name] for name in ("weights", "mask", "reset")]

    def body(state, inputs):
        x, target, (weight, mask, reset), key = inputs
        value, grads, state = online.update(
            params, state, x, target, weight=weight, mask=mask, reset=reset, key=key
        )
        return state, (value, grads, state.noise)

    state = online.init(params, carry, at((xs, targets), 0), initial=options["initial"])
    T = problem.program.T
    inputs = xs, targets, flags, jax.random.split(KEY, T)
    state, (values, grads, noise) = jax.jit(partial(jax.lax.scan, body))(state, inputs)
    of_pair = jax.tree.map(lambda leaf: leaf[:, 0], noise)
    moved = lambda sign: oracle.run(
        problem,
        lambda t: jax.tree.map(lambda p, e: p + sign * e, params, at(of_pair, t)),
    )[0]
    plus, minus = moved(1.0), moved(-1.0)
    sums = accumulated(problem, of_pair)
    slopes = (jnp.stack(plus) - jnp.stack(minus)) / (2 * sigma**2)
    total = lambda shares, tree: jax.tree.map(
        lambda leaf: jnp.tensordot(shares, leaf, axes=1), tree
    )
    shares = step_shares(problem)
    got = (total(shares, values), state.carry), total(shares, grads)
    assert_close(got, (oracle.exact(problem)[0], total(slopes, sums)))


def accumulated(problem: Problem, noise: Any) -> Any:
    """Return, for each time step, the sum of the perturbations up to this step.

    A step at which all examples are padding adds nothing to the sum. The sum starts
    again at a step at which all examples are reset and none is padding.
    """
    T, batch = problem.program.T, problem.program.batch
    mask, reset = (problem.options[name] for name in ("mask", "reset"))
    mask = np.ones((T, *batch), bool) if mask is None else np.asarray(mask)
    reset = np.zeros((T, *batch), bool) if reset is None else np.asarray(reset)
    goes_on, begins = mask.reshape(T, -1).any(1), (mask & reset).reshape(T, -1).all(1)

    def sums(leaf):
        xi, found = jnp.zeros_like(leaf[0]), []
        for t in range(T):
            xi = xi + leaf[t] if goes_on[t] else xi
            xi = leaf[t] if begins[t] else xi
            found.append(xi)
        return jnp.stack(found)

    return jax.tree.map(sums, noise)
