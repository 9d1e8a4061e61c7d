"""Tests of KF-RTRL: its mean over all random signs, and its Kronecker factors."""

import itertools
from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from bpvariants._carries import floating_leaves
from bpvariants._jaxpr import factorised_step
from bpvariants.gradients.online import _kf_rtrl

square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
normal = lambda i, *shape: jax.random.normal(jax.random.key(i), shape, float)


def stacked(params, carry, x):
    lower, upper = carry
    lower = jnp.tanh(x @ params["lower"][: len(x)] + lower @ params["lower"][len(x) :])
    upper = jnp.tanh(lower @ params["upper"] + params["recurrent"] @ upper)
    return (lower, upper), upper


def thresholds(params, h, x):
    """Step a cell whose gates are slices of one matrix product.

    The biases of the gates have different shapes.
    """
    keep, new = params["keep"], params["new"]
    both = x @ jnp.concatenate([keep["in"], new["in"]], axis=1)
    again = keep["again"][:, 0]
    keep = jax.nn.sigmoid(both[:2] + keep["bias"] + h @ keep["of_h"] + again)
    new = jax.nn.relu(both[2:] + x[:1] - new["bias"])
    h = keep * h + (1 - keep) * new + params["all"]
    h = h + (jnp.stack([h, h]) + params["many"].T).prod(axis=0)
    # The comparison with −9 has no derivative, so the parameter `which` has no
    # gradient.
    h = jnp.where(x @ params["which"] + x[:2] > -9, h, 2 * h)
    return h, h


def cell_of(name):
    """Return (step, params, carry, x) for a cell of two units, without batch axes."""
    x = normal(0, 3)
    if name in ("tanh", "gru", "lstm"):
        params = getattr(cells, name).init(jax.random.key(1), 3, 2)
        params = jax.tree.map(lambda leaf: leaf + normal(2, *leaf.shape) / 2, params)
        carry = getattr(cells, name).carry(params)
        carry = jax.tree.map(lambda leaf: leaf + jnp.array([0.3, -0.6]), carry)
        return getattr(cells, name), params, carry, x
    if name == "stacked":
        shapes = {"lower": (5, 2), "upper": (2, 2), "recurrent": (2, 2)}
        params = {
            key: normal(i, *shape) for i, (key, shape) in enumerate(shapes.items())
        }
        return stacked, params, (normal(3, 2), normal(4, 2)), x
    if name == "thresholds":
        keep = {"in": (3, 2), "of_h": (2, 2), "bias": (2,), "again": (2, 1)}
        shapes = {"keep": keep, "new": {"in": (3, 2), "bias": (2,)}, "all": ()}
        shapes |= {"which": (3, 2), "many": (2, 2)}
        is_shape = lambda node: isinstance(node, tuple)
        draw = lambda shape: normal(len(shape), *shape)
        params = jax.tree.map(draw, shapes, is_leaf=is_shape)
        return thresholds, params, normal(5, 2), x
    kind = {"simple": nn.SimpleCell, "flax_gru": nn.GRUCell}[name]
    network, carry = kind(features=2, param_dtype=float), normal(3, 2)
    params = network.init(jax.random.key(1), carry, x)
    return network.apply, params, carry, x


# Sizes (k, m) of the two Kronecker factors of each group of parameters. Groups are
# ordered by their first array.
BLOCKS = {
    "tanh": [(6, 2)],
    "gru": [(4, 2), (6, 4), (3, 2)],
    "lstm": [(6, 8)],
    "stacked": [(5, 2), (4, 2)],
    "thresholds": [(1, 1), (1, 2), (1, 4), (3, 2), (7, 2)],
    "simple": [(6, 2)],
    "flax_gru": [(4, 2), (6, 2), (6, 2), (3, 2)],
}


def linearised(program, params, carry, x):
    """Return J by products with few and with many columns, and the factors (â, D)."""
    eye = jnp.eye(sum(leaf.size for leaf in floating_leaves(carry)))
    run = partial(factorised_step.linearise_factors, program)
    [few], factors = run(params, carry, x, [eye])
    many, _ = run(params, carry, x, [eye, 2 * eye])  # computes J, and multiplies by it
    return [few, many[0], many[1] / 2], factors


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.fast_rows(2)
def test_factors_are_the_jacobian(name):
    step, params, carry, x = cell_of(name)
    program = factorised_step.factorise(step, params, carry, x)
    shapes = [block.parameters.shape for block in program.blocks]
    assert sorted(shapes) == sorted(BLOCKS[name])

    @jax.jit
    def found(params, carry):
        jacobians, factors = linearised(program, params, carry, x)

        def row(slopes):
            grads = jax.tree.leaves(jax.tree.map(jnp.zeros_like, params))
            for block, (inputs, _), slope in zip(
                program.blocks, factors, slopes, strict=True
            ):
                grads = factorised_step.add_block(
                    grads, block, inputs[:, None] * slope[None]
                )
            return grads

        return jacobians, jax.vmap(row)([slopes for _, slopes in factors])

    def new_carry(params, carry):
        return jnp.concatenate(jax.tree.leaves(step(params, carry, x)[0]))

    immediate, jacobians = jax.jit(jax.jacrev(new_carry, (0, 1)))(params, carry)
    jacobian = jnp.concatenate(jax.tree.leaves(jacobians), axis=1)
    want = [jacobian] * 3, jax.tree.leaves(immediate)
    chex.assert_trees_all_close(found(params, carry), want, rtol=1e-12, atol=1e-14)


M = normal(9, 3, 3)
REARRANGED = {  # Format: {name: function that rearranges W [3, 3] and b [3]}.
    "reversed": lambda W, b: (W[:, ::-1], b[::-1]),
    "masked": lambda W, b: (W * M, b),
    "masked and rearranged": lambda W, b: (M * (W.T / 3)[:, ::-1] * M, jnp.roll(b, 1)),
    "scaled": lambda W, b: (-W, 2 * b),
    "triangular": lambda W, b: (jnp.tril(W), jnp.where(M[0] > 0, b, 1.0)),
}


@pytest.mark.parametrize("sign", [1, -1])
def test_params_may_be_rearranged_and_multiplied_by_constants(sign):
    params = {
        name: (normal(i, 3, 3), normal(5 + i, 3)) for i, name in enumerate(REARRANGED)
    }

    # This step applies all rearrangements, so that one function tests them all.
    def step(params, h, x):
        for name, change in REARRANGED.items():
            W, b = change(*params[name])
            h = jnp.tanh(h @ W + sign * b) + x
        return h, h

    h, x = normal(3, 3), normal(4, 3)
    program = factorised_step.factorise(step, params, h, x)

    @jax.jit
    def immediate(params, h):
        _, factors = factorised_step.linearise_factors(program, params, h, x, [])
        zeros = jax.tree.leaves(jax.tree.map(jnp.zeros_like, params))

        def row(slopes):
            grads = zeros
            pairs = zip(program.blocks, factors, slopes, strict=True)
            for block, (inputs, _), slope in pairs:
                values = program.scaled(block, jnp.outer(inputs, slope))
                grads = factorised_step.add_block(grads, block, values)
            return grads

        return jax.vmap(row)([slopes for _, slopes in factors])

    want = jax.jit(jax.jacrev(lambda *args: step(*args)[0]))(params, h, x)
    got = immediate(params, h)
    chex.assert_trees_all_close(got, jax.tree.leaves(want), rtol=1e-12, atol=1e-14)


def test_the_mean_with_a_mask_on_the_weights_is_bptt():
    mask = jnp.array([[1.0, 0.0], [2.0, 1.0]])
    step = lambda W, h, x: (jnp.tanh(h @ (W * mask)[:, ::-1] + x),) * 2
    args = normal(0, 2, 2), normal(1, 2), normal(2, 3, 2), 10 * normal(3, 3, 2)
    ones = jnp.ones(3, bool)
    flags = {"weight": ones.astype(float), "mask": ones, "reset": ~ones}
    check_mean(step, args, flags)


def test_a_derivative_of_ones_own_is_kept():
    spike = jax.custom_jvp(lambda u: (u > 0).astype(u.dtype))
    spike.defjvp(lambda u, v: (spike(*u), v[0] / (1 + abs(u[0])) ** 2))
    step = lambda W, h, x: (spike(h @ W + x), h)
    W, h, x = normal(0, 2, 2), normal(1, 2), normal(2, 2)
    program = factorised_step.factorise(step, W, h, x)
    jacobians, [(inputs, slopes)] = linearised(program, W, h, x)
    slope = 1 / (1 + abs(h @ W + x)) ** 2
    chex.assert_trees_all_close(inputs, h, rtol=1e-14)
    chex.assert_trees_all_close(slopes, jnp.diag(slope), rtol=1e-12)
    for jacobian in jacobians:
        chex.assert_trees_all_close(jacobian, slope[:, None] * W.T, rtol=1e-12)


def repeated(params, h, x):
    body = lambda h, _: (jnp.tanh(h @ params["loop"]), None)
    h, _ = jax.lax.scan(body, h + x, length=2)
    return h, h


REFUSED = {
    "multiplied by constants": (
        lambda p, h, x: (jnp.tanh(h @ (p["dynamic"] * x[:, None])),) * 2,
        {"dynamic": (2, 2)},
    ),
    "is used in `mul`": (lambda p, h, x: (p["decay"] * h + x,) * 2, {"decay": (2,)}),
    "is used more than once": (
        lambda p, h, x: (jnp.tanh(h @ p["tied"] + x @ p["tied"]),) * 2,
        {"tied": (2, 2)},
    ),
    "is used in `scan`": (repeated, {"loop": (2, 2)}),
    "is multiplied by more than one vector": (
        lambda p, h, x: ((jnp.stack([h, x]) @ p["rows"]).sum(0),) * 2,
        {"rows": (2, 2)},
    ),
    "multiplies another array of params": (
        lambda p, h, x: (h + p["left"] @ p["right"], h),
        {"left": (2,), "right": (2, 2)},
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_does_not_factorise_is_refused(reason):
    step, shapes = REFUSED[reason]
    params = {"cell": {key: jnp.ones(shape) for key, shape in shapes.items()}}
    rule = gradients.kf_rtrl(lambda p, *more: step(p["cell"], *more), square)
    with pytest.raises(ValueError, match="does not factorise") as caught:
        rule.init(params, jnp.ones(2), (jnp.ones(2), jnp.ones(2)))
    for word in (f"params['cell']['{next(iter(shapes))}']", reason, "gradients.rtrl"):
        assert word in str(caught.value)


@cache
def with_signs(step, loss, several=True):
    """Return a function from sets of signs [T, 2] to a gradient estimate for each."""
    spread = lambda signs, shape, dtype: jnp.broadcast_to(
        signs.reshape((1,) * (len(shape) - 1) + (2,)), shape
    ).astype(dtype)
    online = _kf_rtrl._with_signs(step, loss, spread)

    def estimate(signs, params, carry, xs, targets, flags, initial):
        def body(state, inputs):
            signs, x, target, flags = inputs
            value, grads, state = online.update(
                params, state, x, target, key=signs, **flags
            )
            return state, (value, grads, state.influence)

        first = jax.tree.map(lambda leaf: leaf[0], (xs, targets))
        state = online.init(params, carry, first, initial=initial)
        steps = signs, xs, targets, flags
        state, (values, grads, influence) = jax.lax.scan(body, state, steps)
        counts = jnp.where(flags["mask"], flags["weight"], 0)
        counts = counts.reshape(len(signs), -1).sum(1)
        total = lambda a: jnp.tensordot(counts / counts.sum(), a, axes=1)
        grads = jax.tree.map(total, grads)
        return (total(values), state.carry), grads, influence

    return jax.jit(jax.vmap(estimate, (0, *[None] * 6)) if several else estimate)


def all_signs(steps):
    """Return all signs [4^(steps − 1), steps, 2].

    The signs of the last time step affect no loss, so they are not varied.
    """
    signs = list(itertools.product([-1.0, 1.0], repeat=2 * (steps - 1)))
    signs = np.array(signs).reshape(-1, steps - 1, 2)
    return np.concatenate([signs, np.ones_like(signs[:, :1])], axis=1)


def check_mean(step, args, flags, initial=None):
    given = {"mask": flags["mask"], "reset": flags["reset"], "initial": initial}
    want = jax.jit(gradients.bptt(step, square))(*args, flags["weight"], **given)
    signs = all_signs(len(flags["mask"]))
    got = with_signs(step, square)(signs, *args, flags, initial)
    same = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(signs), *a.shape)), want)
    chex.assert_trees_all_close(got[0], same[0], rtol=1e-12, atol=1e-12)
    mean = jax.tree.map(lambda g: g.mean(0), got[1])
    chex.assert_trees_all_close(mean, want[1], rtol=1e-10, atol=1e-12)
    spread = jax.tree.map(lambda g: jnp.max(jnp.ptp(g, axis=0)), got[1])
    assert max(jax.tree.leaves(spread)) > 1e-2


@pytest.mark.parametrize("name", ["tanh", "gru", "lstm", "flax_gru"])
@pytest.mark.fast_rows(1)
def test_the_mean_over_all_signs_is_bptt(name):
    step, params, carry, x = cell_of(name)
    args = params, carry, normal(6, 3, *x.shape), 2 * normal(7, 3, 2)
    step = cached_readout(step)
    ones = jnp.ones(3, bool)
    flags = {"weight": ones.astype(float), "mask": ones, "reset": ~ones}
    check_mean(step, ({"cell": params, "readout": normal(8, 2, 2)}, *args[1:]), flags)


@cache
def cached_readout(cell):
    """Return a step whose readout reads both the carry and the input."""

    def step(params, carry, x):
        carry, y = cell(params["cell"], carry, x)
        return carry, (y + x[..., :2]) @ params["readout"]

    return step


@pytest.mark.slow
def test_the_mean_with_flags_is_bptt(make_problem):
    step, _, args, more = make_problem("nested", batch=(2,), T=3)
    mask = jnp.array([[1, 1], [1, 0], [1, 1]], bool)
    reset = jnp.array([[0, 0], [0, 0], [0, 1]], bool)
    flags = {"weight": more["weights"], "mask": mask, "reset": reset}
    check_mean(step, args, flags, more["initial"])


def paper(params, h, xs, targets, signs):
    """Return KF-RTRL's gradients and factors for tanh(W h + U x + b), in NumPy."""
    W, U, b = params
    inputs, slopes = np.zeros(len(h) + xs.shape[1] + 1), np.zeros((len(h),) * 2)
    total, size = np.zeros((len(h), len(inputs))), lambda a: np.linalg.norm(a) + 1e-7
    for x, target, (old, new) in zip(xs, targets, signs, strict=True):
        a = np.concatenate([[1.0], h, x])
        h = np.tanh(W @ h + U @ x + b)
        D = np.diag(1 - h**2)
        pushed, error = D @ W @ slopes, h - target
        total += np.outer(error @ pushed, inputs) + np.outer(error @ D, a)
        q0, q1 = np.sqrt([size(pushed) / size(inputs), size(D) / size(a)])
        inputs = old * q0 * inputs + new * q1 * a
        slopes = old / q0 * pushed + new / q1 * D
    ends = [1, 1 + len(h)]
    db, dW, dU = np.split(total / len(xs), ends, axis=1)
    return (dW, dU, db[:, 0]), (inputs, slopes)


def elman(params, h, x):
    W, U, b = params
    h = jnp.tanh(W @ h + U @ x + b)
    return h, h


half_square = lambda y, target: square(y, target) / 2


def test_each_draw_is_that_of_the_paper():
    args = (normal(0, 3, 3), normal(1, 3, 2), normal(2, 3)), normal(3, 3)
    args = (*args, normal(4, 4, 2), normal(5, 4, 3))
    ones = jnp.ones(4, bool)
    flags = {"weight": ones.astype(float), "mask": ones, "reset": ~ones}
    signs = all_signs(4)[[5, 38, 41]]
    got = with_signs(elman, half_square)(signs, *args, flags, None)
    for i, drawn in enumerate(signs):
        params, h, xs, targets = jax.tree.map(np.asarray, args)
        grads, (inputs, slopes) = paper(params, h, xs, targets, drawn)
        of_draw = jax.tree.map(lambda leaf, i=i: leaf[i], got)
        chex.assert_trees_all_close(of_draw[1], grads, rtol=1e-10, atol=1e-12)
        last = jax.tree.map(lambda leaf: leaf[-1], of_draw[2])
        want = [_kf_rtrl.KroneckerFactors(jnp.asarray(inputs), jnp.asarray(slopes))]
        chex.assert_trees_all_close(last, want, rtol=1e-10, atol=1e-12)


@cache
def jitted(step, loss):
    return jax.jit(gradients.over_sequence(gradients.kf_rtrl(step, loss)))


def test_padding_leaves_no_trace_and_a_reset_begins_anew(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh", batch=(2,), T=4)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (4, 2))
    ones, none = jnp.ones((4, 2), bool), jnp.zeros((4, 2), bool)

    def influence(steps, mask, reset, xs=xs, targets=targets):
        flags = {"weight": jnp.ones((4, 2)), "mask": mask, "reset": reset}
        steps = np.array(steps)
        args = signs[steps], params, carry, xs[steps], targets[steps], flags, None
        results = with_signs(step, loss, several=False)(*args)
        chex.assert_tree_all_finite(results)
        [pair] = results[2]
        return pair

    # Example 0 has padding and a reset at step 1; padding takes precedence. Example 1
    # has a reset at step 2.
    mask, reset = ones.at[1, 0].set(False), none.at[2, 1].set(True).at[1, 0].set(True)
    holes = [leaf.at[1, 0].set(jnp.nan) for leaf in (xs, targets)]
    got = influence([0, 1, 2, 3], mask, reset, *holes)
    without = influence([0, 2, 3, 1], ones.at[3].set(False), none)
    second = influence([2, 3, 0, 1], ones.at[2:].set(False), none)
    for leaf, other, half in zip(got, without, second, strict=True):
        assert np.array_equal(leaf[1, 0], leaf[0, 0])
        assert not np.allclose(leaf[1, 1], leaf[0, 1])
        np.testing.assert_allclose(leaf[-1, 0], other[-1, 0], rtol=1e-12)
        np.testing.assert_allclose(leaf[-1, 1], half[-1, 1], rtol=1e-12)


@pytest.mark.slow
def test_one_step_is_backprop_for_every_batch_shape(make_problem):
    for batch in ((), (2, 1)):
        step, loss, args, _ = make_problem("tanh", batch=batch, T=1)
        got = jitted(step, loss)(*args, key=jax.random.key(0))
        want = jax.jit(gradients.bptt(step, loss))(*args)
        chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)


def two_blocks(params, carry, x):
    first, second = carry
    first = jnp.tanh(first @ params[0] + x)
    second = jnp.tanh(second @ params[1] + x)
    return (first, second), first + second


@pytest.mark.parametrize("dtype", [float, jnp.bfloat16])
def test_signs_differ_between_examples_and_pairs(dtype):
    params = (normal(0, 2, 2).astype(dtype), normal(1, 2, 2).astype(dtype))
    h, x, target = jnp.ones((3, 32, 2), dtype)
    online = gradients.kf_rtrl(two_blocks, square)
    state = online.init(params, (h, h), (x, target))
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(online.update, n=1))
    first, second = jax.random.split(jax.random.key(0))
    _, _, state = update(params, state, x, target, key=first)
    value, grads, state = update(params, state, x, target, key=second)
    found = lambda inputs: len(np.unique(np.round(inputs, 6), axis=0))
    # The two examples differ only in their random signs, which allow 2 · 2 values of
    # the estimate.
    assert [found(inputs) for inputs, _ in state.influence] == [4, 4]
    signs = [np.sign(inputs[:, 0] / inputs[0, 0]) for inputs, _ in state.influence]
    assert not np.array_equal(*signs)
    chex.assert_tree_all_finite((value, grads, state))
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    # Sums are computed in a dtype of float32 or wider.
    wide = float if dtype is float else jnp.float32
    assert value.dtype == wide
    assert {leaf.dtype for leaf in jax.tree.leaves(state.influence)} == {
        jnp.dtype(wide)
    }


def test_mistakes_are_named(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh", batch=(2,))
    online, x, target = gradients.kf_rtrl(step, loss), xs[0], targets[0]
    with pytest.raises(ValueError, match=r"inputs must be the pair \(x, target\)"):
        online.init(params, carry, x)
    shapes = jax.tree.map(jnp.shape, (x, target), is_leaf=lambda a: hasattr(a, "shape"))
    shapes = tuple(jax.ShapeDtypeStruct(shape, float) for shape in shapes)
    state = online.init(params, carry, shapes)
    with pytest.raises(ValueError, match="key must be given"):
        online.update(params, state, x, target)
    more = {"key": jax.random.key(0)}
    with pytest.raises(ValueError, match="state must be what kf_rtrl's init"):
        online.update(params, carry, x, target, **more)
    wrong = state._replace(influence=state.influence * 2)
    with pytest.raises(ValueError, match="state must have factors of this network's"):
        online.update(params, wrong, x, target, **more)
    with pytest.raises(ValueError, match=r"weight must .* got shape \(3,\)"):
        online.update(params, state, x, target, weight=jnp.ones(3), **more)


def test_a_network_that_remembers_no_params_has_exact_gradients():
    step = lambda readout, count, x: (count + 1, x @ readout)
    args = normal(0, 2, 3), jnp.zeros((), int), normal(1, 4, 2), normal(2, 4, 3)
    got = jitted(step, square)(*args, key=jax.random.key(0))
    want = gradients.bptt(step, square)(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-12)
