"""Strict JAX for every test, signals, and fixtures of the problems that are shared."""

import json
import os
import pathlib
import re
import signal
import tempfile
from contextlib import contextmanager

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import problems

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


# The fast tier runs everything but what is marked slow here, or by @pytest.mark.slow:
# studies, processes, examples of docstrings, and of large matrices all but some rows.
SLOW_FILES = (
    "experiments/",
    "test_devices.py",
    "test_processes.py",
    "test_adapters.py",
)
FAST_FILES = (
    "experiments/data/",
    "experiments/harness/",
    "experiments/test_fetch.py",
)
SLOW_TESTS = ("test_examples_in_docstrings_are_true", "test_code_in_pages_runs")
FAST_ROWS = {  # file: of the rows whose id has one of the first words, only the second
    "gradients/": (
        {"tanh", "gru", "lstm", "linen_rnn", "nnx", "nested"},
        {"lstm", "nested"},
    ),
    "updates/test_every_update.py": (
        {"float16", "float32", "float64", "rprop_minus", "rprop_plus", "half_back"}
        | {"rprop_float32", "rprop_bfloat16", "rprop_plus_packed", "irprop_plus_after"}
        | {"forgetting_normalised", "forgetting_projected", "rprop_weight_decay"},
        set(),
    ),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what the fast tier leaves out."""
    for item in items:
        if _is_slow(item):
            item.add_marker(pytest.mark.slow)


def _is_slow(item):
    path = item.path.relative_to(pathlib.Path(__file__).parent).as_posix()
    if item.originalname in SLOW_TESTS:
        return "README.md" not in item.name
    if path.startswith(SLOW_FILES) and not path.startswith(FAST_FILES):
        return True
    words = set(re.findall(r"[\w.]+", item.name.partition("[")[2]))
    return any(
        path.startswith(file) and words & some and not words & kept
        for file, (some, kept) in FAST_ROWS.items()
    )


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


@pytest.fixture
def rules():
    """All of them, for tests that put them into one program."""
    return problems.RULES


@pytest.fixture(params=problems.RULES.values(), ids=problems.RULES)
def make_rule(request):
    return request.param


@pytest.fixture(params=problems.CELLS)
def cell(request):
    return request.param


@pytest.fixture
def make_problem():
    return problems.make_problem


@pytest.fixture
def make_probe():
    """Probe P, the network of three units whose numbers were found elsewhere."""
    return problems.make_probe
