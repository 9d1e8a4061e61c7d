"""Static gradient rules, with the delta rule in NumPy as reference."""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients

WIDTHS = (2, 4, 3, 2)
KEY = jax.random.key(7)


def dense(p, y):
    s = y @ p["w"]
    return s + jnp.broadcast_to(p["b"], s.shape)


LAYERS = [(dense, jnp.tanh), (dense, jnp.tanh), (dense, lambda s: s)]
square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)


@cache
def drawn_params():
    n = np.random.default_rng(3)
    return tuple(
        {"w": n.normal(size=(a, b)), "b": n.normal(size=b)} for a, b in pairwise(WIDTHS)
    )


@cache
def feedback_of(kind):
    if kind not in ("fa", "dfa", "frsf"):
        return None
    params = jax.tree.map(jnp.asarray, drawn_params())
    x = jax.ShapeDtypeStruct((1, WIDTHS[0]), float)
    return gradients.alignment_weights(KEY, LAYERS, params, x, kind=kind)


def sent_back(kind, index, params, deltas):
    """Return the error signal that arrives at the output of a hidden layer."""
    w, B = params[index + 1]["w"], feedback_of(kind)
    if kind == "dfa":
        return deltas[-1] @ np.asarray(B[index])
    above = {
        "backprop": lambda: w,
        "fa": lambda: np.asarray(B[index + 1]["w"]),
        "usf": lambda: 0.5 * np.sign(w),
        "frsf": lambda: np.abs(np.asarray(B[index + 1]["w"])) * np.sign(w),
    }[kind]()
    return deltas[0] @ above.T


def defined(kind, params, x, target, weights):
    """Return the weighted mean loss and its gradients by the delta rule."""
    rows = lambda leaf: leaf.reshape(-1, leaf.shape[-1])
    x, target, weights = rows(x), rows(target), np.ravel(weights)
    shares = weights / (weights.sum() or 1)
    target = np.where(shares[:, None] == 0, 0, target)
    ys = [x]
    for i, p in enumerate(params):
        s = ys[-1] @ p["w"] + p["b"]
        ys.append(np.tanh(s) if i < len(params) - 1 else s)
    value = np.sum(shares * np.sum((ys[-1] - target) ** 2, axis=-1))
    deltas = [2 * (ys[-1] - target) * shares[:, None]]
    for index in reversed(range(len(params) - 1)):
        error = sent_back(kind, index, params, deltas)
        deltas.insert(0, error * (1 - ys[index + 1] ** 2))
    grads = [
        {"w": y.T @ delta, "b": delta.sum(0)}
        for y, delta in zip(ys, deltas, strict=False)
    ]
    return value, tuple(grads)


KINDS = ["backprop", "fa", "dfa", "usf", "frsf"]
LAYOUTS = {"one": (), "3": (3,), "2x2": (2, 2), "0": (0,)}
# Format: {name of a test condition: function that changes (x, target, weights) with a
# random generator}.
_seen = lambda n, w: np.arange(w.size).reshape(w.shape) % 2 * 1.0
CONDITIONS = {
    "plain": lambda x, t, w, n: (x, t, w),
    "zero_inputs": lambda x, t, w, n: (0 * x, t, w),
    "large_inputs": lambda x, t, w, n: (30 * x, t, w),
    "targets_met": lambda x, t, w, n: (x, 0 * t, w),
    "weights_random": lambda x, t, w, n: (x, t, n.uniform(0.2, 2, w.shape)),
    "weights_tiny": lambda x, t, w, n: (x, t, 1e-30 * n.uniform(0.2, 2, w.shape)),
    "weights_zero": lambda x, t, w, n: (x, t, 0 * w),
    "weights_of_every_other": lambda x, t, w, n: (x, t, _seen(n, w)),
    "weights_of_both_signs": lambda x, t, w, n: (x, t, 3 * w - 4 * _seen(n, w)),
    "nan_target_of_weight_0": lambda x, t, w, n: (
        x,
        np.where(_seen(n, w)[..., None] == 0, np.nan, t),
        _seen(n, w),
    ),
    **{
        f"random_{k}": lambda x, t, w, n: (
            n.normal(size=x.shape),
            n.normal(size=t.shape),
            n.uniform(size=w.shape) * (n.random(w.shape) < 0.7),
        )
        for k in range(4)
    },
}


class Program(NamedTuple):
    """A static gradient rule, compiled for a batch shape and a dtype."""

    kind: str
    layout: str = "3"
    dtype: str = "float64"

    @property
    def name(self):
        return f"{self.kind}/{self.layout}/{self.dtype}"

    def cells(self):
        return [f"{self.name}/{name}" for name in CONDITIONS]


FAST = {Program("backprop"), Program("dfa")}
PROGRAMS = [Program(kind, layout) for kind in KINDS for layout in LAYOUTS]
PROGRAMS += [Program(kind, "3", "float32") for kind in KINDS]


def make(program, name):
    """Return (x, target, weights) for a test condition, rounded to a dtype."""
    batch = LAYOUTS[program.layout]
    n = np.random.default_rng(list(name.encode()))
    given = n.normal(size=(*batch, WIDTHS[0])), n.normal(size=(*batch, WIDTHS[-1]))
    changed = CONDITIONS[name](*given, np.ones(batch), n)
    return [np.asarray(each).astype(program.dtype).astype(float) for each in changed]


@cache
def run(program):
    """Return the value and the gradients of a compiled rule for each test condition."""
    if program.kind == "backprop":
        rule = gradients.backprop(LAYERS, square)
    else:
        scale = {"scale": 0.5} if program.kind == "usf" else {}
        rule = gradients.feedback_alignment(LAYERS, square, kind=program.kind, **scale)
    B = feedback_of(program.kind)
    cast = lambda tree: jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(program.dtype), tree
    )
    given = {} if B is None else {"feedback": cast(B)}
    step, found = jax.jit(rule), {}
    for name in CONDITIONS:
        (value, _), grads = step(
            cast(drawn_params()), *cast(make(program, name)), **given
        )
        found[name] = jax.device_get((value, grads))
    return found


def assert_defined(program, kind, name):
    value, grads = defined(kind, drawn_params(), *make(program, name))
    got, got_grads = run(program)[name]
    tolerance = 1e-11 if program.dtype == "float64" else 1e-4
    pairs = [(got, value)]
    pairs += list(zip(jax.tree.leaves(got_grads), jax.tree.leaves(grads), strict=True))
    for a, b in pairs:
        assert a.dtype == program.dtype
        assert np.shape(a) == np.shape(b)
        allowed = tolerance * max(1, np.max(np.abs(b), initial=0))
        assert np.max(np.abs(a - b), initial=0) <= allowed, f"{a} for {b}"
