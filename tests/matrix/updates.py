"""Updates, their definitions in NumPy, and sequences of gradients to test them with.

A definition computes the updates [steps, p] of p parameters from gradients [steps, p]
and losses [steps].
"""

from collections.abc import Callable
from functools import cache, partial
from math import erf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from bpvariants import updates

RATE, DECAY, STEPS = 0.01, 0.5, 8


class Update(NamedTuple):
    """A function that makes an optimiser, and the NumPy definition of its updates."""

    make: Callable
    defined: Callable
    tolerance: float = 1e-12  # larger if the state has few bits


def _rprop(variant, low=1e-6, high=50.0):
    def run(grads, values):
        size, sign, last, found = np.full(grads.shape[1], RATE), 0.0, np.inf, []
        sign = np.zeros_like(size)
        for g, value in zip(grads, values, strict=True):
            now = np.sign(g)
            a, known = sign * now, ~np.isnan(g)
            new = np.where(a > 0, np.minimum(1.2 * size, high), size)
            new = np.where(a < 0, np.maximum(0.5 * size, low), new)
            turned = {
                "plus": size,
                "minus": new,
                "iplus": size if value > last or np.isnan(value) else 0 * size,
                "iminus": 0 * size,
                "half_back": new,
            }[variant]
            found.append(-np.where(a < 0, turned, new) * now)
            keeps = (a >= 0) | (variant == "minus")
            sign = np.where(known, np.where(keeps, now, 0), sign)
            size = np.where(known, new, size)
            last = np.inf if np.isnan(value) else value
        return np.stack(found)

    return run


def _manhattan(grads, values):
    return -RATE * np.sign(grads)


def _forgetting(now, past):
    """Return a function that computes updates from discounted sums of gradients.

    Update n is −(now · g_n + past · λ m), with the gradient g_n, the decay λ, and the
    discounted sum m of earlier gradients.
    """

    def run(grads, values):
        m, found = np.zeros(grads.shape[1]), []
        for g in grads:
            found.append(-(now * g + past * DECAY * m))
            m = np.where(np.isfinite(g), g + DECAY * m, m)
        return np.stack(found)

    return run


def _grprop(grads, values):
    size, sign, found = np.full(grads.shape[1], RATE), np.zeros(grads.shape[1]), []
    for g in grads:
        if np.any(np.isnan(g)):
            found.append(np.full_like(g, np.nan))
            continue
        a, now = sign * np.sign(g), np.sign(g)
        size = np.where(a > 0, np.minimum(1.2 * size, 0.1), size)
        size = np.where(a < 0, np.maximum(0.5 * size, 1e-10), size)
        if np.any(g != 0):
            q = np.argmin(np.where(g == 0, np.inf, np.abs(g)))
            others = sum(size[i] * g[i] for i in range(len(g)) if i != q)
            size = size.copy()
            size[q] = np.clip(-(others + 1e-6) / g[q], 1e-10, 0.1)
        sign = now
        found.append(-size * now)
    return np.stack(found)


def _probabilistic(move):
    def run(grads, values):
        zero = np.zeros(grads.shape[1])
        m, v, p, size, count, found = zero, zero, zero + 0.5, zero + RATE, 0, []
        for g in grads:
            if not np.all(np.isfinite(g**2)):
                found.append(np.full_like(g, np.nan))
                continue
            count += 1
            m, v = (DECAY * e + (1 - DECAY) * new for e, new in ((m, g), (v, g**2)))
            mean, square = (e / (1 - DECAY**count) for e in (m, v))
            s = np.sqrt(np.maximum(square - mean**2, 0))
            ratio = np.where(s > 0, mean / np.where(s > 0, s, 1), np.sign(mean) * 99)
            new = np.array([(1 + erf(each / 2**0.5)) / 2 for each in ratio])
            flips = new * (1 - p) + p * (1 - new)
            factor = np.exp(-2 * np.log(1.2) * (flips - 0.5))
            size, p = np.clip(size * factor, 1e-9, 0.05), new
            found.append(-size * (np.sign(mean) if move == "sign" else 2 * p - 1))
        return np.stack(found)

    return run


UPDATES = {
    "rprop": Update(partial(updates.rprop, RATE), _rprop("iminus")),
    "irprop_minus": Update(
        partial(updates.irprop_minus, RATE, state="float32"), _rprop("iminus")
    ),
    "rprop_packed": Update(
        partial(updates.rprop, RATE, state="packed"), _rprop("iminus"), 1e-5
    ),
    "rprop_minus": Update(partial(updates.rprop_minus, RATE), _rprop("minus")),
    "rprop_plus": Update(partial(updates.rprop_plus, RATE), _rprop("plus")),
    "irprop_plus": Update(partial(updates.irprop_plus, RATE), _rprop("iplus")),
    "half_back": Update(partial(updates.half_back, RATE), _rprop("half_back")),
    "manhattan": Update(partial(updates.manhattan, RATE), _manhattan),
    "grprop": Update(partial(updates.grprop, RATE), _grprop, 1e-9),
    "probabilistic_rprop": Update(
        partial(updates.probabilistic_rprop, RATE, ema_decay=DECAY),
        _probabilistic("sign"),
        1e-6,
    ),
    "probabilistic_expected": Update(
        partial(updates.probabilistic_rprop, RATE, ema_decay=DECAY, move="expected"),
        _probabilistic("expected"),
        1e-6,
    ),
    "forgetting": Update(
        partial(updates.forgetting, RATE, DECAY), _forgetting(RATE, RATE)
    ),
    "forgetting_printed": Update(
        partial(updates.forgetting, 0.3, DECAY, scale_past=False), _forgetting(0.3, 1)
    ),
    "forgetting_normalised": Update(
        partial(updates.forgetting, RATE, DECAY, normalise=True),
        _forgetting(RATE * (1 - DECAY), RATE * (1 - DECAY)),
    ),
}
SAME = {frozenset(("rprop", "irprop_minus", "rprop_packed"))}

# Format: {name: function (random generator, number of parameters) -> (gradients,
# losses)}.
_normal = lambda n, p: n.normal(size=(STEPS, p))
_falling = np.linspace(2, 1, STEPS)


def _with(value):
    def draw(n, p):
        grads = _normal(n, p)
        grads[2, 0] = grads[5, p // 2] = value
        return grads, _falling

    return draw


SEQUENCES = {
    "random": lambda n, p: (_normal(n, p), n.normal(size=STEPS)),
    "loss_falls": lambda n, p: (_normal(n, p), _falling),
    "loss_grows": lambda n, p: (_normal(n, p), -_falling),
    "loss_constant": lambda n, p: (_normal(n, p), 0 * _falling),
    "loss_nan_once": lambda n, p: (
        _normal(n, p),
        np.where(np.arange(STEPS) == 3, np.nan, _falling),
    ),
    "one_sign": lambda n, p: (np.abs(_normal(n, p)) + 0.1, _falling),
    "alternating": lambda n, p: (
        (np.abs(_normal(n, p)) + 0.1) * (-1.0) ** np.arange(STEPS)[:, None],
        _falling,
    ),
    "flip_once": lambda n, p: (
        (np.abs(_normal(n, p)) + 0.1)
        * np.where(np.arange(STEPS) == 4, -1.0, 1.0)[:, None],
        -_falling,
    ),
    "with_zeros": lambda n, p: (
        _normal(n, p) * (n.random((STEPS, p)) < 0.5),
        _falling,
    ),
    "all_zero": lambda n, p: (np.zeros((STEPS, p)), _falling),
    "tiny": lambda n, p: (1e-10 * _normal(n, p), _falling),
    "large": lambda n, p: (1e10 * _normal(n, p), _falling),
    "nan_once": _with(np.nan),
    "integers": lambda n, p: (
        n.integers(-2, 3, size=(STEPS, p)).astype(float),
        _falling,
    ),
}
TREES = {
    "nested": {"w": (2, 3), "b": [(3,), ()], "empty": (0, 2)},
    "bare": (5,),
    "rows": {"w": (8, 2), "b": (4,)},
}
TOLERANCE = {"float64": 0.0, "float32": 2e-5, "bfloat16": 1e-2}
DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class Program(NamedTuple):
    """An update for a pytree and a dtype, called in one way, such as under `vmap`."""

    update: str
    tree: str = "nested"
    dtype: str = "float64"
    way: str = "jit"

    @property
    def name(self):
        return f"{self.update}/{self.tree}/{self.dtype}/{self.way}"

    def cells(self):
        return [f"{self.name}/{name}" for name in SEQUENCES]


FAST = {
    Program("rprop"),
    Program("rprop_plus", "bare", "float32"),
    Program("irprop_plus"),
    Program("grprop", "bare"),
    Program("probabilistic_rprop", "bare"),
    Program("forgetting_printed", "bare"),
}


@cache
def programs() -> list[Program]:
    found = sorted(FAST)
    for name in UPDATES:
        found += [Program(name, "nested", dtype) for dtype in DTYPES]
        found += [Program(name, "bare")]
        found += [Program(name, "bare", "float64", way) for way in ("eager", "donated")]
        found += [Program(name, "nested", "float64", way) for way in ("vmap", "masked")]
        found.append(Program(name, "rows", "float64", "four_devices"))
    return list(dict.fromkeys(found))


def zeros(program):
    shape = lambda shape: jnp.zeros(shape, DTYPES[program.dtype])
    is_shape = lambda node: isinstance(node, tuple)
    return jax.tree.map(shape, TREES[program.tree], is_leaf=is_shape)


def drawn(program, name):
    """Return gradients, rounded to the dtype, and losses, all in float64."""
    size = ravel_pytree(zeros(program))[0].size
    numbers = np.random.default_rng(list(name.encode()))
    grads, values = SEQUENCES[name](numbers, size)
    return grads.astype(DTYPES[program.dtype]).astype(float), values


def run(program) -> dict[str, Any]:
    """Return the updates [steps, p] for each sequence of gradients."""
    params = zeros(program)
    _, tree_of = ravel_pytree(params)
    optimizer = optax.with_extra_args_support(UPDATES[program.update].make())
    if program.way == "masked":
        mask = {"w": True, "b": [False, False], "empty": True}
        optimizer = optax.with_extra_args_support(optax.masked(optimizer, mask))
    update = lambda state, g, value: optimizer.update(g, state, params, value=value)
    sequences = {name: drawn(program, name) for name in SEQUENCES}
    grads_of = lambda row: tree_of(jnp.asarray(row.astype(DTYPES[program.dtype])))
    flat = lambda tree: np.asarray(ravel_pytree(tree)[0]).astype(float)
    if program.way == "vmap":
        rows, values = (
            np.stack(each) for each in zip(*sequences.values(), strict=True)
        )

        def along(rows, values):
            def body(state, inputs):
                move, state = update(state, tree_of(inputs[0]), inputs[1])
                return state, ravel_pytree(move)[0]

            return jax.lax.scan(body, optimizer.init(params), (rows, values))[1]

        found = jax.jit(jax.vmap(along))(jnp.asarray(rows), jnp.asarray(values))
        return dict(zip(sequences, np.asarray(found), strict=True))
    if program.way == "four_devices":
        mesh = jax.sharding.Mesh(jax.devices()[:4], ("data",))
        rows_apart = jax.NamedSharding(mesh, jax.P("data"))
        params = jax.device_put(params, rows_apart)
        whole, grads_of = grads_of, lambda row: jax.device_put(whole(row), rows_apart)
        flat = lambda tree: np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
        )
    step = {
        "eager": lambda: update,
        "donated": lambda: jax.jit(update, donate_argnums=0),
    }.get(program.way, lambda: jax.jit(update))()
    found = {}
    for name, (rows, values) in sequences.items():
        state, moves = optimizer.init(params), []
        for row, value in zip(rows, values, strict=True):
            move, state = step(state, grads_of(row), jnp.asarray(value))
            for leaf, like in zip(
                jax.tree.leaves(move), jax.tree.leaves(params), strict=True
            ):
                assert (leaf.dtype, leaf.shape) == (like.dtype, like.shape)
            moves.append(flat(move))
        found[name] = np.stack(moves)
    return found


def assert_defined(program, definition, name, got):
    """Compare updates with their definition; both must be NaN at the same elements."""
    row = UPDATES[program.update]
    grads, values = drawn(program, name)
    if program.way == "masked":  # optax.masked does not change unmasked gradients
        picked = np.array([False] * 4 + [True] * 6)
        want = grads.copy()
        want[:, picked] = definition(grads[:, picked], values)
    else:
        want = definition(grads, values)
    assert got.shape == want.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    got, want = np.nan_to_num(got), np.nan_to_num(want)
    # Rounding errors of probabilistic Rprop are large relative to small updates.
    # Therefore, divide errors by at least a tenth of the largest update of the time
    # step.
    scale = np.maximum(np.abs(want), 0.1 * np.max(np.abs(want), 1, keepdims=True))
    scale = np.maximum(scale, 1e-12)
    error = np.max(np.abs(got - want) / scale, initial=0)
    allowed = max(row.tolerance, TOLERANCE[program.dtype])
    assert error <= allowed, f"error {error:.2e} of the update"
