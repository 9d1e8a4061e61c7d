"""Run tests on a copy of the project in a new process; record the executed lines."""

import ast
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.mutations._mutants import PARTS

ROOT = Path(__file__).parent.parent.parent
IGNORED = (".git", "__pycache__", "runs", ".venv", ".hypothesis", ".pytest_cache")
# A server process starts all test processes. It imports these modules once, so that
# each test process starts within a second. These modules start no JAX threads, which
# would not survive a fork.
PRELOADED = ["jax", "optax", "flax.linen", "flax.nnx", "chex", "pytest"]


def copy_project(folder: Path) -> Path:
    """Copy the project, so that files of the library can be changed in the copy."""
    copy = folder / "project"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
    return copy


def instrument(copy: Path) -> None:
    """Insert calls into the copied library that record which lines are executed.

    These calls are faster than `sys.settrace`.
    """
    (copy / "_hits.py").write_text(HITS, "utf-8")
    for path in (copy / "bpvariants").rglob("*.py"):
        name = path.relative_to(copy / "bpvariants").as_posix()
        if name.startswith(PARTS):
            tree = _Instrument(name).visit(ast.parse(path.read_text("utf-8")))
            place = 1 if ast.get_docstring(tree) is not None else 0
            tree.body[place:place] = ast.parse("from _hits import hit as __hit__").body
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)), "utf-8")


HITS = """lines = {}


def hit(file, line):
    lines.setdefault(file, set()).add(line)
"""


class _Instrument(ast.NodeTransformer):
    def __init__(self, name):
        self.name, self.depth = name, 0

    def _hit(self, node):
        return ast.parse(f"__hit__({self.name!r}, {node.lineno})").body[0]

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        return node

    def visit_Lambda(self, node):
        self.generic_visit(node)
        node.body = ast.BoolOp(ast.Or(), [self._hit(node).value, node.body])
        return node

    def generic_visit(self, node):
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if self.depth and isinstance(body, list):
                setattr(node, field, [x for each in body for x in self._before(each)])
        return node

    def _before(self, statement):
        doc = isinstance(statement, ast.Expr) and isinstance(
            statement.value, ast.Constant
        )
        return [statement] if doc else [self._hit(statement), statement]


def write(path: Path, text: str) -> None:
    """Write a source file; set a new file time, so that Python compiles it again."""
    _writes.append(path)
    path.write_text(text, "utf-8")
    os.utime(path, (len(_writes), len(_writes)))


_writes: list[Path] = []


def use_cache(folder: Path) -> None:
    """Cache compiled JAX functions on disk; most are the same for all mutants."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def run_tests(copy: Path, tests: list[str], seconds: float) -> dict[str, Any]:
    """Run tests until one fails; return its name, or another reason for failure."""
    return _in_process(_run, copy, seconds, tests)


def trace_tests(
    instrumented: Path, file: str, slow: bool, seconds: float
) -> dict[str, Any]:
    """Run the fast or the slow tests of a file; return the lines that each executes."""
    return _in_process(_trace, instrumented, seconds, file, slow)


def _in_process(function: Any, copy: Path, seconds: float, *args: Any) -> dict:
    answer, log = copy.parent / "answer.json", copy.parent / "log.txt"
    answer.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_start, args=(function, copy, answer, log, *args))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid or 0, 9)
        process.join()
        return {"failed": f"no end within {seconds:.0f} s", "timeout": True}
    if not answer.exists():
        return {"failed": f"the process ended with {process.exitcode}"}
    return json.loads(answer.read_text("utf-8"))


def _start(function, copy, answer, log, *args):
    os.setsid()  # a timeout then also ends processes that tests start
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    assert "bpvariants" not in sys.modules
    sys.path[:] = [str(copy), *(each for each in sys.path if each != str(ROOT))]
    os.environ["PYTHONPATH"] = str(copy)
    os.chdir(copy)
    result = function(*args)
    library = sys.modules.get("bpvariants")
    assert library is None or Path(str(library.__file__)).is_relative_to(copy)
    answer.write_text(json.dumps(result), "utf-8")


def _pytest(plugin, files):
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    options += ["-m", "slow or not slow"]
    return int(pytest.main([*options, *sorted(files)], plugins=[plugin]))


def _run(tests):
    plugin = _Chosen(tests)
    status = _pytest(plugin, {each.partition("::")[0] for each in tests})
    # Pytest returns 2 if it cannot import the tests, and 5 if it collects none.
    failed = plugin.failed or (f"pytest returns {status}" if status else "")
    return {"failed": failed, "ran": plugin.ran}


class _Chosen:
    """Pytest plugin that runs the chosen tests in order, until one fails."""

    def __init__(self, tests):
        self.places = {name: place for place, name in enumerate(tests)}
        self.failed, self.ran = "", 0

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.places]
        items.sort(key=lambda item: self.places[item.nodeid])

    def pytest_runtest_logreport(self, report):
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_runtest_protocol(self, item):
        if self.failed:
            item.session.shouldstop = "a test failed"
            return True
        return None


def _trace(file, slow):
    plugin = _Tracer(slow)
    _pytest(plugin, [file])
    return {"tests": plugin.tests, "failed": ""}


class _Tracer:
    """Pytest plugin that records the time, outcome and executed lines of each test."""

    def __init__(self, slow):
        self.slow, self.tests = slow, {}

    def pytest_collection_modifyitems(self, items):
        is_slow = lambda item: item.get_closest_marker("slow") is not None
        items[:] = [item for item in items if is_slow(item) == self.slow]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        # JAX executes the lines of a jitted function only once and then caches it.
        # Clear this cache, so that each test executes the lines again.
        jax.clear_caches()
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "tests" or "test_" in name:
                for member in list(vars(module).values()):
                    if hasattr(member, "cache_clear"):
                        member.cache_clear()
        hits = importlib.import_module("_hits").lines
        hits.clear()
        entry = self.tests[item.nodeid] = {"passed": False}
        begin = time.perf_counter()
        with _watched_processes() as started:
            yield
        entry["seconds"] = round(time.perf_counter() - begin, 3)
        entry["starts"] = bool(started)
        entry["lines"] = {file: sorted(lines) for file, lines in hits.items()}

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.tests[report.nodeid]["passed"] = report.passed
        elif report.failed:
            self.tests[report.nodeid]["passed"] = False


@contextlib.contextmanager
def _watched_processes():
    """Return a list that is not empty if the code in the context starts processes."""
    started, begin = [], subprocess.Popen.__init__

    @functools.wraps(begin)
    def noted(*args, **options):
        started.append(True)
        return begin(*args, **options)

    subprocess.Popen.__init__ = noted
    try:
        yield started
    finally:
        subprocess.Popen.__init__ = begin
