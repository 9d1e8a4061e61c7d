"""Small networks for tests, each split into a cell and a readout.

The cell computes the new carry, and the readout computes the output. Reference
gradients need this split, because biased online rules treat cell and readout
differently. Both functions accept one example or batches of any shape.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import cells, gradients

D, N, M = 2, 3, 2  # numbers of inputs, units and outputs
KEEP = lambda value: value


class Network(NamedTuple):
    """A recurrent network, as a cell that computes the carry and a readout.

    Attributes:
      cell: function (params, carry, x, cut) -> new carry. The cell applies the function
        `cut` to every value that it multiplies by a recurrent weight matrix.
      readout: function (params, new carry, old carry, x) -> y.
      carry: function (random generator, *batch shape) -> random carry.
      params: float64 parameters.
      visible: function that selects the part of a carry that other units read; an
        argument of `eprop`.
      splits: whether the cell uses its argument `cut`. Only for these cells can
        reference gradients for RFLO be computed.
      separate: whether no element of the carry depends on another element.
      affine: whether each element of the new carry is an affine function of the same
        element of the old carry.
      products: whether kf_rtrl accepts the cell.
    """

    cell: Callable
    readout: Callable
    carry: Callable
    params: Any
    visible: Callable = KEEP
    step_of: Callable | None = None
    splits: bool = True
    separate: bool = False
    affine: bool = False
    products: bool = True
    mixed: bool = False  # whether inputs, targets and carry have integers and keys
    several: bool = False  # whether the carry has several floating leaves
    stacked: bool = False
    spiking: bool = False  # whether few rules, and no narrow dtypes, are tested

    def step(self, params, carry, x):
        if self.step_of is not None:
            return self.step_of(params, carry, x)
        new = self.cell(params, carry, x, KEEP)
        return new, self.readout(params, new, carry, x)

    def loss(self, y, target):
        if not self.mixed:
            return jnp.sum((y - target) ** 2, axis=-1)
        error = jnp.sum((y - target["aim"]) ** 2, axis=-1)
        label = jax.nn.one_hot(target["label"], M, dtype=y.dtype)
        return error - jnp.sum(jax.nn.log_softmax(y) * label, axis=-1)


def row(vector, like):
    return jnp.broadcast_to(vector, like.shape)


def dense(matrix, rows):
    return rows @ matrix.astype(rows.dtype)


def _tanh(p, h, x, cut):
    u = dense(p["own"], cut(h)) + dense(p["in"], x)
    return jnp.tanh(u + row(p["bias"], u))


def _leaky(p, h, x, cut):
    return 0.6 * h + 0.4 * _tanh(p, h, x, cut)


def _gru(p, h, x, cut):
    gate = lambda k: jax.nn.sigmoid(dense(p["own"][k], cut(h)) + dense(p["in"][k], x))
    r, z = gate(0), gate(1)
    inner = dense(p["own"][2], cut(r * h)) + dense(p["in"][2], x)
    return z * h + (1 - z) * jnp.tanh(inner + row(p["bias"], inner))


def _lstm(p, carry, x, cut):
    c, h = carry
    u = [dense(p["own"][k], cut(h)) + dense(p["in"][k], x) for k in range(4)]
    i, f, o = (jax.nn.sigmoid(u[k]) for k in range(3))
    c = f * c + i * jnp.tanh(u[3] + row(p["bias"], u[3]))
    return c, o * jnp.tanh(c)


def _separate(p, h, x, cut):
    del cut
    decay = jax.nn.sigmoid(row(p["bias"], h) + dense(p["own"], x))
    return decay * h + (1 - decay) * dense(p["in"], x)


def _mixed(p, carry, x, cut):
    """Step a network whose carry and inputs also contain integers and random keys."""
    h, (slow, count, key) = carry["fast"][0], carry["slow"]
    token = jax.nn.one_hot(x["token"], 3, dtype=h.dtype)
    add = lambda key, fold: jax.random.fold_in(key, fold)
    for _ in range(count.ndim):
        add = jax.vmap(add)
    # Draw float32 for every dtype of h, so that the random numbers are the same.
    draw = lambda key: jax.random.uniform(key, (N,), jnp.float32).astype(h.dtype)
    for _ in range(count.ndim):
        draw = jax.vmap(draw)
    noise = draw(add(key, count)) * draw(x["key"])
    u = dense(p["own"], cut(h)) + dense(p["in"], x["value"]) + dense(p["embed"], token)
    fast = jnp.tanh(u + 0.3 * noise - slow)
    slow = 0.7 * slow + 0.3 * fast * slow
    return {"fast": [fast], "slow": (slow, count + 1, key)}


def _stacked(p, carry, x, cut):
    first = _tanh(p[0], carry[0], x, cut)
    return first, _leaky(p[1], carry[1], first, cut)


def _lower(p, h, x):
    return (_tanh(p, h, x, KEEP),) * 2


def _upper(p, h, x):
    h = _leaky(p, h, x, KEEP)
    return h, dense(p["out"], h)


_neurons = {
    "lif": partial(cells.lif, tau=3.0, threshold=0.6, refractory=2),
    "alif": partial(
        cells.alif, tau=3.0, tau_adaptation=5.0, beta=0.4, threshold=0.6, refractory=2
    ),
}


def _spiking(name):
    """Return a network of spiking neurons that is read by spikes and potentials."""

    def cell(p, carry, x, cut):
        del cut
        return _neurons[name](p["cell"], carry, x)[0]

    def readout(p, new, old, x):
        del old, x
        return dense(p["out"], new.spikes) + dense(p["skip"], new.potential)

    def carry(numbers, *batch):
        zeros = _neurons[name].func.carry({"recurrent": np.zeros((N, N))}, batch)
        left = numbers.integers(0, 3, size=zeros.refractory.shape)
        spikes = 1.0 * (numbers.random(zeros.spikes.shape) < 0.4)
        drawn = {"potential": pair(numbers, *batch)[0], "spikes": spikes}
        if name == "alif":
            drawn["adaptation"] = abs(pair(numbers, *batch)[1])
        return zeros._replace(**drawn, refractory=left.astype(zeros.refractory.dtype))

    numbers = np.random.default_rng(7)
    normal = lambda *shape: jnp.asarray(0.8 * numbers.normal(size=shape))
    of_cell = {"inputs": normal(D, N), "recurrent": normal(N, N)}
    params = {"cell": of_cell, "out": normal(N, M), "skip": 0.3 * normal(N, M)}
    return Network(
        cell,
        readout,
        carry,
        params,
        visible=lambda carry: carry.spikes,
        splits=False,
        several=True,
        spiking=True,
    )


def plain(p, new, old, x):
    del old, x
    return dense(p["out"], new)


def skipping(p, new, old, x):
    """Compute an output that depends on the new carry, the old carry and the input."""
    return dense(p["out"], new) + dense(p["skip"], old) * x


def drawn(numbers, *batch):
    return 0.7 * numbers.normal(size=(*batch, N))


def pair(numbers, *batch):
    return drawn(numbers, *batch), drawn(numbers, *batch)


def with_keys(numbers, *batch):
    count = numbers.integers(0, 9, size=batch).astype(np.int32)
    keys = jax.random.split(jax.random.key(int(numbers.integers(99))), batch)
    fast, slow = pair(numbers, *batch)
    return {"fast": [fast], "slow": (0.5 * slow, jnp.asarray(count), keys)}


@cache
def networks():
    """Return all test networks, as a dict with their names."""
    numbers = np.random.default_rng(1)
    normal = lambda *shape: jnp.asarray(0.8 * numbers.normal(size=shape))

    def weights(*gates, inputs=D, **more):
        more |= {"own": normal(*gates, N, N), "in": normal(*gates, inputs, N)}
        return more | {"bias": normal(N), "out": normal(N, M)}

    linen = nn.GRUCell(N, param_dtype=float)
    of_linen = linen.init(jax.random.key(3), jnp.zeros(N), jnp.zeros(D))
    lower, upper = weights(), weights(inputs=N)
    del lower["out"]
    return {
        "tanh": Network(_tanh, plain, drawn, weights()),
        "leaky": Network(_leaky, skipping, drawn, weights(skip=normal(N, M))),
        "gru": Network(_gru, plain, drawn, weights(3)),
        "lstm": Network(
            _lstm,
            lambda p, new, old, x: plain(p, new[1], old, x),
            pair,
            weights(4),
            visible=lambda carry: carry[1],
            several=True,
        ),
        "linen": Network(
            lambda p, h, x, cut: linen.apply(p["gru"], h, x)[0],
            plain,
            drawn,
            {"gru": of_linen, "out": normal(N, M)},
            splits=False,
        ),
        "separate": Network(
            _separate,
            plain,
            drawn,
            weights() | {"own": normal(D, N)},
            separate=True,
            affine=True,
        ),
        "stack": Network(
            _stacked,
            lambda p, new, old, x: plain(p[1], new[1], old, x),
            pair,
            (lower, upper),
            step_of=gradients.stack([_lower, _upper]),
            several=True,
            stacked=True,
        ),
        "mixed": Network(
            _mixed,
            lambda p, new, old, x: (
                plain(p, new["fast"][0], old, x) + plain(p, new["slow"][0] ** 2, old, x)
            ),
            with_keys,
            weights(embed=normal(3, N)),
            visible=lambda carry: carry["fast"],
            products=False,
            mixed=True,
            several=True,
        ),
        "lif": _spiking("lif"),
        "alif": _spiking("alif"),
    }
