"""Derivatives of maxima under `jit` equal the derivatives that JAX computes without it.

Without the library, some derivatives of maxima are wrong under `jit`. With most XLA
optimisations disabled, this program, which uses only JAX, prints NaN:

    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    f = lambda h, a, s, x: jnp.max((h * a + x * s).reshape(2, 3), -1)
    draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape)
    for seed in range(10):
        args = draw(seed, 6), draw(seed + 10, 6), draw(seed + 20), draw(seed + 30, 6)
        print(jax.grad(lambda *args: f(*args).sum())(*args))
        print(jax.jit(jax.grad(lambda *args: f(*args).sum()))(*args))  # some are NaN

With all XLA optimisations, the derivative of

    f = lambda h, a, s, x: jnp.tanh(jnp.max(h * a + x * s, keepdims=True) @ a[None])

by `jax.jit(jax.jacrev(f, (0, 1, 2, 3)))` is wrong for some arguments: the terms of the
chain rule that pass through the maximum are missing.
"""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants._jaxpr import maxima

ALL = (0, 1, 2, 3)
pairs = lambda v: v.reshape(2, 3)


def in_scan(v):
    def body(most, part):
        return jnp.maximum(most, 1.3 * part), jnp.max(part)

    return jax.lax.scan(body, jnp.full(3, -9, v.dtype), pairs(v))


def pooled(v):
    return jax.lax.reduce_window(v, -jnp.inf, jax.lax.max, (3,), (3,), "VALID")


def reduced(v):
    # JAX uses its primitive reduce_max only for a plain maximum, and not for this
    # function.
    most = lambda a, b: jnp.maximum(a, 1.0 * b)
    return jax.lax.reduce(v, np.array(-np.inf, v.dtype), most, (0,))


STORED = {  # their derivatives compare elements with the result
    "max": lambda v: jnp.max(pairs(v), -1),
    "min": lambda v: jnp.min(pairs(v), -1),
    "amax over several axes": lambda v: jnp.amax(pairs(v)[None], (1, 2)),
    "maximum": lambda v: jnp.maximum(v, 1.1 * v[::-1]),
    "minimum": lambda v: jnp.minimum(v, v[::-1]),
    "maximum of a maximum": lambda v: jnp.maximum(jnp.maximum(v, v[::-1]), v),
    "clip": lambda v: jnp.clip(v, -0.5, 0.5),
    "cummax": jax.lax.cummax,
    "cummin": partial(jax.lax.cummin, reverse=True),
    "segment_max": lambda v: jax.ops.segment_max(v, np.arange(6) % 2, 2),
    "segment_min": lambda v: jax.ops.segment_min(v, np.arange(6) % 2, 2),
    "divided by the largest": lambda v: v / jnp.max(jnp.abs(v)),
    "in scan": in_scan,
    "in cond": lambda v: jax.lax.cond(v[0] > 0, jnp.max, jnp.min, v),
    "in jit": jax.jit(lambda v: jnp.max(pairs(v), 0)),
    "in checkpoint": jax.checkpoint(lambda v: jnp.sin(jnp.max(pairs(v), -1))),
    "in reduce": reduced,
}
OTHERS = {
    "sort": jnp.sort,
    "top_k": lambda v: jax.lax.top_k(v, 2)[0],
    "relu": jax.nn.relu,
    "max_pool": pooled,
    "logsumexp": jax.nn.logsumexp,
}


def arguments(seed, dtype):
    draw = np.random.default_rng(seed).normal
    return [np.asarray(draw(size=size), dtype) for size in (6, 6, (), 6)]


def tied(dtype):
    half = [np.array([1.7, 1.7, -0.3], dtype), np.array([0.9, 0.9, 0.4], dtype)]
    h, a = (np.concatenate([each, each]) for each in half)
    return [h, a, np.array(0.7, dtype), np.array([0.3, 0.3, 1.1] * 2, dtype)]


def check(change, dtype, tolerance):
    f = lambda h, a, s, x: change(h * a + x * s)
    stored = maxima.with_stored_operands(f, *arguments(0, dtype))
    compiled = jax.jit(lambda *args: derivatives(stored, args))
    for args in (*(arguments(seed, dtype) for seed in range(4)), tied(dtype)):
        with jax.disable_jit():
            want = derivatives(f, args)
        got = compiled(*args)
        chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)
        chex.assert_trees_all_equal_dtypes(got, want)


def derivatives(f, args):
    values, pull = jax.vjp(f, *args)
    back = pull(jax.tree.map(jnp.ones_like, values))
    ones = tuple(map(jnp.ones_like, args))
    forward = jax.jvp(f, tuple(args), ones)[1]
    total = lambda h: sum(map(jnp.sum, jax.tree.leaves(f(h, *args[1:]))))
    twice = lambda h: jax.jvp(jax.grad(lambda h: total(h * h)), (h,), ones[:1])[1]
    return values, back, forward, twice(args[0])


@pytest.mark.parametrize("name", [*STORED, *OTHERS])
@pytest.mark.fast_rows(6)
def test_derivatives_are_those_of_single_operations(name):
    check((STORED | OTHERS)[name], np.float64, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STORED, *OTHERS])
def test_derivatives_in_float32_as_users_compile(name, fast):
    check((STORED | OTHERS)[name], np.float32, 1e-4)


@pytest.mark.parametrize("name", STORED)
def test_operands_are_stored_if_differentiated_only(name):
    f, v = STORED[name], jnp.ones(6)
    stored = maxima.with_stored_operands(f, v)
    derivative = lambda v: jax.jvp(stored, (v,), (v,))
    assert "barrier" in str(jax.make_jaxpr(derivative)(v))
    assert "barrier" not in str(jax.make_jaxpr(stored)(v))


def largest_at_stop(v):
    return v - jax.lax.stop_gradient(2 * jax.jit(jnp.max)(v))


def test_a_function_without_comparisons_is_returned_as_it_is():
    stopped = (largest_at_stop, jax.nn.logsumexp, jax.nn.softmax)
    others = (jnp.sort, jax.nn.relu, pooled, jnp.tanh, *stopped)
    for f in others:
        assert maxima.with_stored_operands(f, jnp.ones(6)) is f
    # A maximum of integers has no derivative.
    counts = lambda n: jnp.maximum(n, 2)
    assert maxima.with_stored_operands(counts, jnp.arange(3)) is counts


def test_maps_over_a_batch_and_keeps_results_as_they_are():
    def f(tree, count):
        v = tree["v"] * 2
        return {"most": jnp.max(v), "z": (count + 1, None), "a": jnp.clip(v, 0, 1)}

    tree, count = {"v": jnp.linspace(-1, 1, 12).reshape(4, 3)}, jnp.arange(4)
    stored = maxima.with_stored_operands(f, {"v": tree["v"][0]}, count[0])
    assert stored is not f
    got, want = jax.vmap(stored)(tree, count), jax.vmap(f)(tree, count)
    chex.assert_trees_all_equal(got, want)
    slope = lambda f: jax.vmap(jax.grad(lambda tree: f(tree, 0)["most"]))(tree)
    chex.assert_trees_all_equal(slope(stored), slope(f))


def test_maps_over_axes_that_are_not_the_first():
    """Check `vmap` if the batch axis of the operand is the last axis, as after W @ x.

    Under `jit`, JAX requires that a `custom_jvp` function and its derivative have the
    batch axis at the same position.
    """
    f = lambda W, x: jnp.maximum(W @ x, jnp.sin(x))
    W, xs = jnp.array([[0.3, -0.2], [0.5, 0.4]]), jnp.arange(6.0).reshape(3, 2)
    stored = maxima.with_stored_operands(f, W, xs[0])
    slope = lambda f: jax.grad(lambda W: jnp.sum(f(W, xs)))(W)
    mapped = lambda f: jax.vmap(f, (None, 0))
    want = slope(mapped(f))
    chex.assert_trees_all_close(slope(jax.jit(mapped(stored))), want, rtol=1e-12)
    empty = lambda W, x: jnp.maximum(W[:0] @ x, 0.5)
    stored = maxima.with_stored_operands(empty, W, xs[0])
    chex.assert_trees_all_equal(slope(jax.jit(mapped(stored))), jnp.zeros((2, 2)))


def test_nan_and_infinity_are_stored_as_they_are():
    v = jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 0.0, 1.0])
    got = jax.jit(lambda v: jax.jvp(maxima._stored, (v,), (v,))[0])(v)
    assert np.array_equal(np.asarray(got).view(np.int64), np.asarray(v).view(np.int64))
    assert maxima._in_memory(jnp.zeros((0, 2))).shape == (0, 2)


# The following tests use networks that compute a maximum of sums of products.


def network(largest):
    def step(params, h, x):
        v = h * params["a"] + x * params["s"]
        most = largest(v.reshape(*v.shape[:-1], 1, 3))
        u = most * params["b"] @ params["W"] + x @ params["U"]
        h = 0.5 * h + 0.5 * jnp.tanh(u)
        return h, h

    return step


def by_choice(v):
    """Return the maximum over the last axis, computed by `jnp.where`.

    The derivative of jnp.max compares each element with the stored maximum. The
    derivative of this function makes no such comparison.
    """
    a, b, c = v[..., 0], v[..., 1], v[..., 2]
    ab = jnp.where(a > b, a, b)
    return jnp.where(ab > c, ab, c)


step = network(lambda v: jnp.max(v, -1))
chosen = network(by_choice)
square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)


@cache
def problem(seed=0, T=3):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    shapes = {"a": (3,), "s": (1,), "b": (1,), "W": (1, 3), "U": (3, 3)}
    params = {name: draw(*shape) for name, shape in shapes.items()}
    return params, 0.1 * draw(3), 0.1 * draw(T, 3), draw(T, 3)


def plain_loss(step, params, h, xs, targets):
    total = 0.0
    for x, target in zip(xs, targets, strict=True):
        h, y = step(params, h, x)
        total += square(y, target)
    return total / len(xs)


@cache
def single_operations(seed=0, T=3):
    with jax.disable_jit():
        return jax.grad(partial(plain_loss, step))(*problem(seed, T))


@pytest.mark.fast_rows(4)
def test_every_exact_rule_is_right_for_a_maximum(make_rule):
    grads = jax.jit(make_rule(step, square))(*problem())[1]
    chex.assert_trees_all_close(grads, single_operations(), rtol=1e-10, atol=1e-12)


def test_rtrl_is_right_for_a_maximum_as_users_compile(fast):
    rule = jax.jit(gradients.over_sequence(gradients.rtrl(step, square)))
    for seed in (1, 2):
        grads = rule(*problem(seed, 8))[1]
        want = single_operations(seed, 8)
        chex.assert_trees_all_close(grads, want, rtol=1e-10, atol=1e-12)


def two_parts(step):
    """Add units to a network that remember the carry over several time steps.

    Without these units, e-prop would store no trace.
    """

    def two(params, carry, x):
        h, seen = carry
        h, y = step(params, h, x)
        return (h, 0.9 * seen + jnp.tanh(h)), y + seen

    return two


def eprop(step, params, h, *rest):
    seen = lambda carry: carry[1]
    online = gradients.eprop(two_parts(step), square, visible=seen)
    return gradients.over_sequence(online)(params, (h, h), *rest)[1]


def kf_rtrl(step, params, h, *rest):
    # The step depends on the matrix only through h @ matrix, as KF-RTRL requires.
    def inner(matrix, h, x):
        return step(params, h @ matrix, x)

    rule = gradients.over_sequence(gradients.kf_rtrl(inner, square))
    return rule(params["U"], h, *rest, key=jax.random.key(0))[1]


def online(make, **options):
    def run(step, *args):
        rule = gradients.over_sequence(make(step, square))
        return rule(*args, **options)[1]

    return run


def in_parallel(method, step, params, h, xs, targets):
    def loss(params):
        (_, ys), _ = gradients.parallel_unroll(step, params, h, xs, method=method)
        return jnp.mean(square(ys, targets))

    return jax.grad(loss)(params)


def unrolled(step, params, h, xs, targets):
    unroll = lambda params: gradients.unroll(step, params, h, xs)[1]
    return jax.grad(lambda params: jnp.mean(square(unroll(params), targets)))(params)


TIGHT = gradients.solvers.relaxation(tol=1e-12, max_steps=500)


def settled(adjoint, step, params, h, xs, targets):
    f = lambda *args: 0.5 * step(*args)[0]

    def loss(params):
        solve = partial(gradients.fixed_point, solver=TIGHT, adjoint=adjoint)
        return square(solve(f, params, h, xs[0])[0], targets[0])

    return jax.grad(loss)(params)


def recurrent(step, params, h, xs, targets):
    f = lambda *args: 0.5 * step(*args)[0]
    rule = gradients.recurrent_backprop(f, square, solver=TIGHT)
    return rule(params, h, xs[0], targets[0])[1]


def penalty(step, params, h, xs, targets):
    f, key = (lambda *args: step(*args)[0]), jax.random.key(0)
    rule = lambda params: gradients.jacobian_penalty(f, params, h, xs[0], key)
    return rule(params), jax.grad(rule)(params)


def static(step, params, h, xs, targets):
    layer = lambda params, x: step(params, x, x)[0]
    last = lambda s: step(params, s, s)[0]
    layers = [(layer, jnp.tanh), (layer, last)]
    return gradients.backprop(layers, square)((params, params), xs[0], targets[0])[1]


def artbp(step, *args):
    return gradients.artbp(step, square, truncation=0.3)(*args, **KEY)[1]


KEY = {"key": jax.random.key(0)}
RULES = {
    "unroll": unrolled,
    "artbp": artbp,
    "snap": online(partial(gradients.snap, order=1)),
    "rflo": online(gradients.rflo),
    "uoro": online(gradients.uoro, **KEY),
    "forward_gradient": online(gradients.forward_gradient, **KEY),
    "eprop": eprop,
    "kf_rtrl": kf_rtrl,
    "newton": partial(in_parallel, gradients.newton(tol=1e-12)),
    "fixed_point": partial(settled, None),
    "unrolled adjoint": partial(settled, gradients.adjoints.unrolled(5)),
    "recurrent_backprop": recurrent,
    "jacobian_penalty": penalty,
    "backprop": static,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_every_other_rule_is_right_for_a_maximum(name):
    run, other = (jax.jit(partial(RULES[name], each)) for each in (step, chosen))
    for seed in (0, 3, 6):
        got, want = run(*problem(seed)), other(*problem(seed))
        chex.assert_trees_all_close(got, want, rtol=1e-8, atol=1e-10)
