"""Tests of SnAp-n, RFLO and e-prop on randomly drawn steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bpvariants import gradients

D, M, T, B = 2, 2, 3, 2  # Numbers of inputs, outputs, steps and examples.
square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)


class Network(NamedTuple):
    """A random step, whose carry leaves are vectors, and its parameters.

    `new(weights, leaves, x, cut)` returns the new carry leaves. The function `cut` is
    applied to the operands of operations that mix elements. With
    `cut=jax.lax.stop_gradient`, only derivatives through elementwise operations remain.
    """

    sizes: list[int]
    new: Any
    params: Any
    passed: set[int]
    skips: bool
    numbers: np.random.Generator

    def output(self, params, new, old):
        y = sum(leaf @ w for leaf, w in zip(new, params["out"], strict=True))
        return y + old[0] @ params["skip"] if self.skips else y

    def step(self, params, carry, x):
        def of_one(leaves, x):
            new = self.new(params["cell"], leaves, x, lambda value: value)
            return new, self.output(params, new, leaves)

        for _ in range(x.ndim - 1):
            of_one = jax.vmap(of_one)
        (first, rest), y = carry["leaves"], None
        new, y = of_one([first, *rest], x)
        return {"leaves": (new[0], new[1:]), "steps": carry["steps"] + 1}, y


def draw(seed: int) -> Network:
    """Draw a step composed of random pieces; some results become leaves of the carry.

    A piece is a pair: a function of (weights, operands, cut), and the size of its
    result.
    """
    numbers = np.random.default_rng(seed)
    sizes = numbers.integers(2, 4, size=numbers.integers(2, 4)).tolist()
    values, weights, pieces = [*sizes, D], [], []

    def weight(*shape):
        weights.append(numbers.normal(size=shape))
        return len(weights) - 1

    for _ in range(4):
        i, j = numbers.integers(len(values), size=2)
        (a, b), m = (values[i], values[j]), int(numbers.integers(2, 4))
        w, v, least = weight(a, m), weight(b), min(a, b)
        mask = np.where(numbers.random((a, m)) < 0.5, 1.0, 0.0)
        places = numbers.integers(a, size=m)
        made = [
            (lambda W, p, q, cut, w=w: cut(p) @ W[w], m),
            (lambda W, p, q, cut, w=w, mask=mask: cut(p) @ (W[w] * mask), m),
            (lambda W, p, q, cut, w=w: jnp.sum(cut(p)) * W[w][0], m),
            (lambda W, p, q, cut, v=v: (cut(p[:, None] * (q * W[v])[None])).sum(1), a),
            (lambda W, p, q, cut, v=v: jax.nn.sigmoid(q * W[v]), b),
            (lambda W, p, q, cut, k=least: p[:k] * jnp.sin(q[-k:]), least),
            (lambda W, p, q, cut, k=least: p[:k] / (2 + q[:k] ** 2), least),
            (lambda W, p, q, cut, k=least: jnp.where(p[:k] > 0, p[:k], q[:k]), least),
            (lambda W, p, q, cut, places=places: jnp.tanh(p)[places], m),
            (lambda W, p, q, cut: jnp.concatenate([p[::-1], q[1:]]), a + b - 1),
        ]
        piece, size = made[numbers.integers(len(made))]
        pieces.append((piece, i, j))
        values.append(size)
    ends, passed = [], set()
    for k, size in enumerate(sizes):
        if k and size == sizes[0] and numbers.random() < 0.5:
            passed.add(k)
        source = int(numbers.integers(len(sizes) + 1, len(values)))
        order = numbers.permutation(np.resize(np.arange(values[source]), size))
        leak = numbers.choice([0.0, 0.6])
        ends.append((source, order, leak, weight(D, size), weight(size)))

    def new(weights, leaves, x, cut):
        found = [*leaves, x]
        for piece, i, j in pieces:
            found.append(piece(weights, found[i], found[j], cut))
        result = []
        for k, (source, order, leak, inputs, bias) in enumerate(ends):
            sums = found[source][order] + x @ weights[inputs] + weights[bias]
            leaf = leak * leaves[k] + (1 - leak) * jnp.tanh(sums)
            result.append(leaves[0] if k in passed else leaf)
        return result

    out = [numbers.normal(size=(size, M)) for size in sizes]
    params = {"cell": weights, "out": out, "skip": numbers.normal(size=(sizes[0], M))}
    params = jax.tree.map(jnp.asarray, params)
    return Network(sizes, new, params, passed, numbers.random() < 0.5, numbers)


def linearised(network):
    """Return a function (θ, h, x, target) -> dict of Jacobians and gradients."""
    theta, unravel = ravel_pytree(network.params)
    ends = np.cumsum(network.sizes)[:-1]
    apart = lambda h: jnp.split(h, ends)

    def new(theta, h, x, cut=lambda value: value):
        leaves = network.new(unravel(theta)["cell"], apart(h), x, cut)
        return jnp.concatenate(leaves)

    def output(theta, h, old):
        new, old = apart(h), apart(old)
        new = [old[0] if k in network.passed else leaf for k, leaf in enumerate(new)]
        return network.output(unravel(theta), new, old)

    @jax.jit
    def found(theta, old, x, target):
        h = new(theta, old, x)
        loss = lambda theta, h, old: square(output(theta, h, old), target)
        direct_only = partial(new, cut=jax.lax.stop_gradient)
        return {
            "h": h,
            "J": jax.jacobian(new, 1)(theta, old, x),
            "direct": jax.jacobian(direct_only, 1)(theta, old, x),
            "I": jax.jacobian(new)(theta, old, x),
            "r, c, b": jax.grad(loss, argnums=(0, 1, 2))(theta, h, old),
            "e": jax.grad(square)(output(theta, h, old), target),
        }

    return theta, lambda *args: jax.tree.map(np.asarray, found(*args))


def patterns(network, theta, found):
    """Return where the new carry's Jacobians in the old carry and θ are nonzero.

    An entry counts as nonzero if it is nonzero for any of eight random carries and θ.
    """
    normal = lambda *shape: jnp.asarray(network.numbers.normal(size=shape))
    args = lambda: (normal(theta.size), normal(sum(network.sizes)), normal(D))
    several = [found(*args(), normal(M)) for _ in range(8)]
    return [np.any([each[name] != 0 for each in several], axis=0) for name in "JI"]


@pytest.mark.parametrize(
    ("seed", "name", "order"),
    [(0, "snap", 1), (1, "snap", 2), (2, "rflo", 0), (3, "eprop", 0)],
)
@pytest.mark.fast_rows(2)
def test_is_the_recursion_of_dense_matrices(seed, name, order):
    network = draw(seed)
    theta, found = linearised(network)
    of_carry, immediate = patterns(network, theta, found)
    kept = immediate
    for _ in range(order - 1):
        kept = immediate | (of_carry.astype(int) @ kept.astype(int) > 0)
    normal = lambda *shape: jnp.asarray(network.numbers.normal(size=shape))
    leaves = [normal(B, size) for size in network.sizes]
    carry = {"leaves": (leaves[0], leaves[1:]), "steps": jnp.zeros(B, int)}
    xs, targets, weights = normal(T, B, D), normal(T, B, M), normal(T, B) ** 2
    mask, reset = (jnp.asarray(network.numbers.random((T, B)) < p) for p in (0.8, 0.3))
    visible = np.repeat(np.arange(len(leaves)) == 1, network.sizes)
    weights_back = normal(M, network.sizes[1])
    rule = {
        "snap": lambda step, loss: gradients.snap(step, loss, order=order),
        "rflo": gradients.rflo,
        "eprop": partial(
            gradients.eprop,
            visible=lambda carry: carry["leaves"][1][0],
            feedback=weights_back if seed % 2 else "symmetric",
        ),
    }[name](network.step, square)

    state = rule.init(network.params, carry, (xs[0], targets[0]))
    update = jax.jit(rule.update)
    start = np.concatenate(leaves, axis=1)
    h, traces = start.copy(), np.zeros((B, start.shape[1], theta.size))
    for t in range(T):
        flags = {"weight": weights[t], "mask": mask[t], "reset": reset[t]}
        _, grads, state = update(network.params, state, xs[t], targets[t], **flags)
        counts, want = np.where(mask[t], weights[t], 0), np.zeros(theta.size)
        for b in np.flatnonzero(mask[t]):
            if reset[t, b]:
                h[b], traces[b] = start[b], 0
            now = found(theta, h[b], xs[t, b], targets[t, b])
            direct, signal, skip = (part.copy() for part in now["r, c, b"])
            through = {
                "snap": now["J"],
                "rflo": now["direct"],
                "eprop": now["J"] * ~visible,
            }[name]
            old, new = traces[b].copy(), through @ traces[b] + now["I"]
            traces[b] = np.where(kept, new, 0) if name == "snap" else new
            if name == "eprop" and seed % 2:
                signal[visible], skip[visible] = now["e"] @ weights_back, 0
            want += counts[b] * (direct + signal @ traces[b] + skip @ old)
            h[b] = now["h"]
        want /= max(counts.sum(), 1e-300)
        got = ravel_pytree(grads)[0]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
    assert np.any(want != 0)
