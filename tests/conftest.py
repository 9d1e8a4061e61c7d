"""Settings of all tests: strict JAX settings, fast and slow tests, fixtures."""

import collections
import gc
import json
import os
import pathlib
import re
import signal
import tempfile
from contextlib import contextmanager

import hypothesis
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

# Compilation takes most of the time of a test. Disabling most compiler optimisations
# saves a fifth of the time. The setting also applies to processes that tests start. Set
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 to compile with all optimisations, as users do.
FAST = "jax_disable_most_optimizations"
os.environ.setdefault(FAST.upper(), "1")
jax.config.update(FAST, os.environ[FAST.upper()] == "1")
if os.environ[FAST.upper()] == "1":
    # In tests, XLA's MLIR fusion emitters and parallel code generation take more time
    # than they save. XLA ends a process that sets a flag which it does not know, and
    # newer versions do not know the first of these two.
    QUICK = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
    if jax.__version_info__ < (0, 11):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    gc.set_threshold(100_000, 20, 50)

# Hypothesis draws the same examples in each run. It draws more examples with
# `--hypothesis-profile=long`.
hypothesis.settings.register_profile(
    "fast", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile(
    "long", hypothesis.settings.get_profile("fast"), max_examples=2000
)
hypothesis.settings.load_profile("fast")


def pytest_runtest_setup(item):
    """Skip tests marked `data` if $BPVARIANTS_DATA is unset; nothing is downloaded."""
    if item.get_closest_marker("data") and not os.environ.get("BPVARIANTS_DATA"):
        pytest.skip("needs $BPVARIANTS_DATA")


# By default, pytest runs only the fast tests: those that are not marked slow, here or
# by @pytest.mark.slow. Slow tests are: studies, tests that start processes, doctests,
# code blocks of the documentation, and most parameter sets of large parametrised tests.
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
SLOW_TESTS = (
    "test_examples_in_docstrings_are_true",
    "test_code_in_pages_runs",
    # Tests of seconds, whose rule or solver other fast tests check, too
    "test_neumann_is_truncated_backpropagation_at_the_fixed_point",
    "test_a_stream_cut_anywhere_equals_one_long_call",
    "test_bounds_hold_for_each_direction",
    "test_truncate_is_finite_and_the_same_in_both_modes",
    "test_ignore_gives_the_last_iterate",
    "test_a_singular_adjoint_is_told",
    "test_trees_and_batch_shapes",
    "test_no_contraction_is_needed",
    "test_relaxation_cut_short_is_the_truncated_neumann_series",
    "test_pes_takes_losses_that_count",
    "test_a_missing_target_of_weight_0_is_as_if_its_loss_were_not_there",
    "test_lags_are_those_of_adaptive_truncation",
    "test_jacobian_penalty_is_unbiased",
    "test_all_readings_agree_while_params_stay",
    "test_is_the_recursion_of_dense_matrices",
    "test_one_step_and_nothing_but_padding",
    "test_products_are_precise_by_default_and_as_asked_otherwise",
)

# Format: {file: [(words, kept)]}. If the name of a parametrised test case contains one
# of `words`, the case is fast only if the name also contains one of `kept`.
FAST_ROWS = {
    "gradients/": [({*problems.CELLS}, {"nested"})],
    "gradients/test_every_rule.py": [
        ({*problems.RULES}, {"rtrl", "bptt_two_phase"}),
        ({"float32"}, set()),
    ],
    "updates/test_every_update.py": [({"float16", "float32", "float64"}, set())],
}
SLOW_ROWS = {  # tests of these updates are slow
    "updates/test_every_update.py": "rprop rprop_minus rprop_plus rprop_float32 "
    "rprop_bfloat16 rprop_plus_packed irprop_plus_after rprop_weight_decay half_back "
    "manhattan forgetting_printed forgetting_normalised forgetting_projected",
}


# Processes take files in the order of their tests. Files that take minutes come first,
# so that no process works alone at the end.
LONG_FILES = (
    "gradients/test_random_programs.py",
    "experiments/test_compare.py",
    "experiments/static/test_alignment.py",
    "notebooks/",
    "test_docs.py",
    "test_processes.py",
    "experiments/",
    "training/",
    "test_export.py",
    "test_bad_inputs.py",
    "test_devices.py",
    "updates/test_every_update.py",
    "gradients/test_every_rule.py",
    "gradients/online/test_every_online_rule.py",
    "gradients/through_time/",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Sort files by their time, and mark tests that are not fast as slow.

    If a parametrised test is marked `@pytest.mark.fast_rows(k)`, only its first k
    parameter sets belong to the fast tests.
    """
    items.sort(key=lambda item: _place(_path(item)))
    rows = collections.Counter()
    for item in items:
        limit = item.get_closest_marker("fast_rows")
        test = item.path, item.originalname
        if _is_slow(item) or (limit and rows[test] == limit.args[0]):
            item.add_marker(pytest.mark.slow)
        else:
            rows[test] += 1


def _path(item):
    return item.path.relative_to(pathlib.Path(__file__).parent).as_posix()


def _place(path):
    """Return the place of a file in LONG_FILES, or the number of places."""
    places = (i for i, start in enumerate(LONG_FILES) if path.startswith(start))
    return next(places, len(LONG_FILES))


def _is_slow(item):
    path = _path(item)
    if item.originalname in SLOW_TESTS:
        return "README.md" not in item.name
    if path.startswith(SLOW_FILES) and not path.startswith(FAST_FILES):
        return True
    words = set(re.findall(r"[\w.]+", item.name.partition("[")[2]))
    if words.intersection(SLOW_ROWS.get(path, "").split()):
        return True
    return any(
        words & some and not words & kept
        for file, groups in FAST_ROWS.items()
        if path.startswith(file)
        for some, kept in groups
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
    """Cache compiled functions on disk in `folder`, for tests of resumed studies.

    If `folder` is None, the cache is turned off.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def plain_jax():
    """Return a context manager that restores JAX's default settings."""
    return _plain_jax


@pytest.fixture
def fast():
    """Compile with all XLA optimisations, for tests whose computations take long."""
    before = jax.config.read(FAST)
    jax.config.update(FAST, False)
    yield
    jax.config.update(FAST, before)


@pytest.fixture
def check_run():
    """Return a function that checks that a study has written its rows and plots."""

    def check(result, folder, pictures):
        assert not result.interrupted
        lines = (folder / "results.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == result.rows
        for picture in pictures:
            assert (folder / f"{picture}.png").stat().st_size > 10_000

    return check


@pytest.fixture
def ctrl_c():
    """Install Python's handler for Ctrl-C, which is missing in background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def sigterm():
    """Catch SIGTERM, which would end the tests; return the list of caught signals."""
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
    """Delete all compiled functions from JAX's caches.

    Each compiled function uses memory mappings, of which a process may have only
    65,530.
    """
    _tests_since.clear()
    jax.clear_caches()


_tests_since = []


@pytest.fixture
def rules():
    """Return all gradient rules, for tests that run them in one compiled function."""
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
    """Return a function that makes probe P, a network with known gradients."""
    return problems.make_probe
