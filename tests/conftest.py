"""Strict JAX for every test, and the rules and networks that are tested."""

import json
import os
import pathlib
import signal
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from bpvariants import adapters, gradients

STRICT = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}
DEFAULTS = {name: getattr(jax.config, name) for name in STRICT}
jax.config.update("jax_num_cpu_devices", 4)

# Compilation is nearly all of the time, and this takes a fifth of it away, in programs
# that tests start too. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests run as users do.
FAST = "jax_disable_most_optimizations"
os.environ.setdefault(FAST.upper(), "1")
jax.config.update(FAST, os.environ[FAST.upper()] == "1")


def pytest_runtest_setup(item):
    """Tests need no network: what is not committed is there, or they are skipped."""
    if item.get_closest_marker("data") and not os.environ.get("BPVARIANTS_DATA"):
        pytest.skip("needs $BPVARIANTS_DATA")


def configure(settings):
    for name, value in settings.items():
        jax.config.update(name, value)


configure(STRICT)


@contextmanager
def _plain_jax():
    configure(DEFAULTS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _keep_programs(folder)
            yield
    finally:
        _keep_programs(None)
        configure(STRICT)


def _keep_programs(folder):
    """Compile once what a study and its resumption both run; nowhere if None."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def plain_jax():
    """JAX as users have it, a context manager: for documentation and experiments."""
    return _plain_jax


@pytest.fixture
def fast():
    """Programs that are run for long are worth the optimisations that others lack."""
    before = jax.config.read(FAST)
    jax.config.update(FAST, False)
    yield
    jax.config.update(FAST, before)


@pytest.fixture
def check_run():
    """Check that a study ended, and left in its folder what it returned and drew."""

    def check(result, folder, pictures):
        assert not result.interrupted
        lines = (folder / "results.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == result.rows
        for picture in pictures:
            assert (folder / f"{picture}.png").stat().st_size > 10_000

    return check


@pytest.fixture
def ctrl_c():
    """Python's answer to Ctrl-C, which a process in the background begins without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def sigterm():
    """What came by SIGTERM, which would end the tests."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    yield
    _forget()


@pytest.fixture(autouse=True)
def _forget_programs_of_long_modules():
    yield
    _tests_since.append(1)
    if len(_tests_since) > 60:
        _forget()


def _forget():
    """Let go of what was compiled, of which a process can hold only so much.

    Each program maps memory, and a process may have 65,530 such mappings.
    """
    _tests_since.clear()
    jax.clear_caches()


_tests_since = []


# A rule that is added here is held to every oracle and contract of test_gradients.py.
RULES = {
    "bptt": gradients.bptt,
    "bptt_every": partial(gradients.bptt, remat=gradients.remat.every(2)),
    "bptt_slots": partial(gradients.bptt, remat=gradients.remat.slots(2)),
    "bptt_two_phase": partial(gradients.bptt, backward="two_phase"),
    "truncated_bptt_all": partial(gradients.truncated_bptt, every=2, lookback=9),
    "artbp_no_cuts": lambda step, loss: partial(
        gradients.artbp(step, loss, truncation=0.0), key=jax.random.key(0)
    ),
    "rtrl": lambda step, loss: gradients.over_sequence(gradients.rtrl(step, loss)),
}


@pytest.fixture
def rules():
    """All of them, for tests that put them into one program."""
    return RULES


CELLS = ["tanh", "gru", "lstm", "linen_rnn", "nnx", "nested"]


@pytest.fixture(params=RULES.values(), ids=RULES)
def make_rule(request):
    return request.param


class Problem(NamedTuple):
    step: Callable
    loss: Callable
    args: tuple  # params, carry, xs, targets
    options: dict  # weights, mask, reset, initial


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


@pytest.fixture
def make_problem():
    return _make_problem


@cache  # one network for all tests, so that they share what is compiled
def _make_problem(cell="lstm", batch=(3,), T=5, dtype=float):
    keys = iter(jax.random.split(jax.random.key(0), 16))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    xs, targets = normal(T, *batch, 2), normal(T, *batch, 4)
    carry, initial = normal(*batch, 3), normal(*batch, 3)
    if cell == "tanh":
        step = _tanh_step
        params = {"hidden": (normal(3, 3), normal(2, 3)), "readout": normal(3, 4)}
    elif cell == "nested":
        step = _nested_step
        carry, initial = (
            {"fast": [h], "slow": (0.5 * h, jnp.zeros(batch, int))}
            for h in (carry, initial)
        )
        params = [normal(3, 3), {"in": normal(2, 3), "out": (normal(3, 4),)}]
    elif cell == "nnx":
        with jax.numpy_dtype_promotion("standard"):  # its initialisers need it
            step, params = adapters.from_nnx(_NNXNetwork(nnx.Rngs(0)))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    else:
        if cell == "lstm":
            carry, initial = (carry, normal(*batch, 3)), (initial, normal(*batch, 3))
        cells = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "linen_rnn": nn.SimpleCell}
        network = _LinenNetwork(cells[cell])
        step, params = network.apply, network.init(next(keys), carry, xs[0])
    options = {
        "weights": jax.random.uniform(next(keys), (T, *batch), dtype),
        "mask": jax.random.bernoulli(next(keys), 0.7, (T, *batch)),
        "reset": jax.random.bernoulli(next(keys), 0.3, (T, *batch)),
        "initial": initial,
    }
    return Problem(step, _squared_error, (params, carry, xs, targets), options)


def _tanh_step(params, h, x):
    recurrent, feedforward = params["hidden"]
    h = jnp.tanh(h @ recurrent + x @ feedforward)
    return h, h @ params["readout"]


@jax.jit  # a program within the program, as users have it
def _nested_step(params, carry, x):
    recurrent, others = params
    (fast,), (slow, count) = carry["fast"], carry["slow"]
    fast = jnp.tanh(fast @ recurrent + x @ others["in"] - slow)
    slow = 0.7 * slow + 0.3 * fast * slow
    y = fast @ others["out"][0] + (slow**2) @ others["out"][0]
    return {"fast": [fast], "slow": (slow, count + 1)}, y


class _LinenNetwork(nn.Module):
    cell: type[nn.RNNCellBase]

    @nn.compact
    def __call__(self, carry, x):
        carry, h = self.cell(features=3, param_dtype=x.dtype)(carry, x)
        return carry, nn.Dense(features=4, param_dtype=x.dtype)(h)


class _NNXNetwork(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.GRUCell(2, 3, param_dtype=float, rngs=rngs)
        self.readout = nnx.Linear(3, 4, param_dtype=float, rngs=rngs)

    def __call__(self, carry, x):
        carry, h = self.cell(carry, x)
        return carry, self.readout(h)


@pytest.fixture
def make_probe():
    """Probe P, the network of three units whose numbers were found elsewhere."""
    return _make_probe


@cache
def _make_probe(T=6):
    P = json.loads((pathlib.Path(__file__).parent / "golden/probe_p.json").read_text())
    t = jnp.arange(1.0, T + 1)
    xs = jnp.stack([jnp.sin(0.7 * t), jnp.cos(0.4 * t)], axis=1)
    targets = jnp.cos(0.3 * t[:, None] + jnp.arange(3.0)[None]) / 2
    params = tuple(jnp.array(P[name]) for name in ("W", "U", "b"))
    args = params, jnp.array(P["h0"]), xs, targets
    return Problem(_probe_step, _half_squared_error, args, {})


def _probe_step(params, h, x):
    W, U, b = params
    h = jnp.tanh(W @ h + U @ x + b)
    return h, h


def _half_squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1) / 2


def _squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)
