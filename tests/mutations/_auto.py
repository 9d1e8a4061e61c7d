"""Automatic mutants: run the tests that execute a changed line; count the failures."""

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import scipy.stats

from tests.mutations import _runs
from tests.mutations._mutants import KINDS, Mutant, PARTS, sample

LIBRARY = _runs.ROOT / "bpvariants"
EQUIVALENT = json.loads(Path(__file__).with_name("equivalent.json").read_text("utf-8"))
REASONS = {
    (each["file"], each["line"], each["old"], each["new"]): each["reason"]
    for each in EQUIVALENT
}
# These test files are used for all mutants. All other test files are in a folder with
# the same name as the folder of the tested code.
SHARED = (
    *("test_checks.py", "test_array_checks.py", "test_losses.py", "test_masking.py"),
    *("test_devices.py", "test_processes.py"),
)
DOCTEST = "tests/test_layering.py::test_examples_in_docstrings_are_true"
FILE_LIMIT = 1800.0  # seconds to record the lines that tests of a file execute


def main(options: Any) -> int:
    """Run tests on each mutant and print a table; return 0 if 95 % are noticed."""
    options.folder.mkdir(parents=True, exist_ok=True)
    _runs.use_cache(options.folder / "programs")
    mutants = sample(LIBRARY, options.count, options.seed)
    mutants = [each for each in mutants if options.only in each.file]
    kept = (
        _read(options.folder / "results.jsonl")
        if options.resume or options.retry
        else {}
    )
    if options.retry:
        kept = {key: each for key, each in kept.items() if each["noticed"]}
    with tempfile.TemporaryDirectory() as folder:
        trials = _Trials(options.folder, Path(folder), options.fast, options.budget)
        results = {}
        for mutant in mutants:
            if mutant.key in REASONS:
                continue
            result = kept.get(mutant.key)
            if result is None:
                result = trials.run(mutant)
                with (options.folder / "results.jsonl").open("a") as file:
                    file.write(json.dumps([mutant.key, result]) + "\n")
            results[mutant.key] = result
            noticed = result["noticed"] or "SURVIVES"
            place = f"{mutant.file}:{mutant.place[0]}"
            print(f"{place:<50} {result['seconds']:4.0f} s  {noticed}", flush=True)
    return report(mutants, results)


def _read(path: Path) -> dict[tuple, dict]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {tuple(key): result for key, result in map(json.loads, lines)}


class _Trials:
    """Two copies of the project: one for mutants, one that records executed lines."""

    def __init__(
        self, cache: Path, folder: Path, only_fast: bool, budget: float
    ) -> None:
        self.cache, self.only_fast, self.budget = cache / "lines", only_fast, budget
        self.copy = _runs.copy_project(folder / "mutated")
        self.instrumented = _runs.copy_project(folder / "instrumented")
        _runs.instrument(self.instrumented)
        sources = sorted(LIBRARY.rglob("*.py"))
        self.library = b"".join(path.read_bytes() for path in sources)

    def run(self, mutant: Mutant) -> dict[str, Any]:
        """Run tests of the changed line, the fast ones first, until one fails."""
        begin = time.perf_counter()
        path = self.copy / "bpvariants" / mutant.file
        source = path.read_text("utf-8")
        fast = self._choose(mutant, self._files(mutant), slow=False)
        noticed, stage, ran = "", "fast", 0
        _runs.write(path, mutant.apply(source))
        try:
            noticed, ran = self._try(fast)
            if not noticed and not self.only_fast:
                stage = "slow"
                slow = self._choose(mutant, self._files_of_slow(mutant), slow=True)
                noticed, more = self._try(slow)
                ran += more
        finally:
            _runs.write(path, source)
        seconds = round(time.perf_counter() - begin, 1)
        return {"noticed": noticed, "stage": stage, "ran": ran, "seconds": seconds}

    def _try(self, chosen: list[tuple[str, float]]) -> tuple[str, int]:
        tests, total = [], 0.0
        for name, seconds in chosen:
            if total + seconds < self.budget:
                tests.append(name)
                total += seconds
        if not tests:
            return "", 0
        result = _runs.run_tests(self.copy, tests, 60 + 5 * total)
        return result["failed"], result.get("ran", 0)

    def _files(self, mutant: Mutant) -> list[Path]:
        """Return the test files in the mutant's test folder and in folders above."""
        tests = self.copy / "tests"
        folder = (tests / mutant.file).parent
        while not any(folder.rglob("test_*.py")):
            folder = folder.parent
        found = sorted(folder.rglob("test_*.py"))
        while folder != tests:
            folder = folder.parent
            names = SHARED if folder == tests else ("test_*.py",)
            found += [path for name in names for path in sorted(folder.glob(name))]
        return found

    def _files_of_slow(self, mutant: Mutant) -> list[Path]:
        """Return the test files whose slow tests may execute the changed line.

        These are the files with a fast test that executes the line, and the test file
        that is named like the changed file.
        """
        name = f"test{Path(mutant.file).name}"
        return [
            path
            for path in self._files(mutant)
            if path.name == name or self._choose(mutant, [path], slow=False)
        ]

    def _choose(
        self, mutant: Mutant, files: Iterable[Path], slow: bool
    ) -> list[tuple[str, float]]:
        """Return the tests that execute the changed line, and their seconds, in order.

        The first two cases of each parametrised test come first, and among them the
        tests in the mutant's test folder. Tests that start processes are always
        included, because the lines that these processes execute are not recorded.
        """
        folder = f"tests/{mutant.file}".rpartition("/")[0]
        first, last = mutant.lines
        found, rows = [], Counter()
        for path in files:
            for name, test in self._lines(path, slow).items():
                lines = test.get("lines", {}).get(mutant.file, ())
                runs = any(first <= line <= last for line in lines)
                if test["passed"] and (runs or test["starts"]):
                    function = name.partition("[")[0]
                    rows[function] += 1
                    late = rows[function] > 2, not name.startswith(folder), not runs
                    found.append((late, path.name, test["seconds"], name))
        chosen = [(name, seconds) for *_, seconds, name in sorted(found)]
        if slow:
            module = f"bpvariants/{mutant.file}".removesuffix(".py").replace("/", ".")
            chosen.insert(0, (f"{DOCTEST}[{module}]", 20.0))
        return chosen

    def _lines(self, path: Path, slow: bool) -> dict[str, dict]:
        """Return the lines that each test of a file executes.

        They are cached on disk until the test file or the library changes.
        """
        digest = hashlib.sha256(path.read_bytes() + self.library).hexdigest()[:16]
        name = path.relative_to(self.copy).as_posix()
        kept = self.cache / f"{name.replace('/', '-')}-{slow}-{digest}.json"
        if kept not in _known:
            if not kept.exists():
                result = _runs.trace_tests(self.instrumented, name, slow, FILE_LIMIT)
                if result["failed"]:
                    raise RuntimeError(f"{name}: {result['failed']}")
                for test, entry in result["tests"].items():
                    if not entry["passed"]:
                        print(f"not used, as it fails or skips unchanged: {test}")
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(result["tests"]), "utf-8")
            _known[kept] = json.loads(kept.read_text("utf-8"))
        return _known[kept]


_known: dict[Path, dict] = {}


def report(mutants: list[Mutant], results: dict[tuple, dict]) -> int:
    """Print counts of noticed mutants, and all unnoticed and equivalent mutants."""
    tried = [each for each in mutants if each.key in results]
    noticed = {key for key, result in results.items() if result["noticed"]}
    rows = [(kind, [each for each in tried if each.kind == kind]) for kind in KINDS]
    rows += [
        (f"{part}/", [m for m in tried if m.file.startswith(part)]) for part in PARTS
    ]
    print(f"\n{'mutants':<22}{'tried':>6}{'noticed':>9}{'by fast tests':>15}")
    for label, found in [*rows, ("all", tried)]:
        seen = [each for each in found if each.key in noticed]
        fast = [each for each in seen if results[each.key]["stage"] == "fast"]
        print(f"{label:<22}{len(found):>6}{len(seen):>9}{len(fast):>15}")
    for mutant in tried:
        if mutant.key not in noticed:
            print(f"\nSURVIVES {_shown(mutant)}")
    for mutant in mutants:
        if mutant.key in REASONS:
            print(f"\nequivalent: {_shown(mutant)}\n  {REASONS[mutant.key]}")
    k, n = len([each for each in tried if each.key in noticed]), len(tried)
    if not n:
        return 0
    interval = scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact")
    print(
        f"\n{k} of {n} mutants noticed: {k / n:.1%}, 95 % interval "
        f"{interval.low:.1%} to {interval.high:.1%}; "
        f"{len(mutants) - n} equivalent mutants left out"
    )
    return 0 if k >= 0.95 * n else 1


def _shown(mutant: Mutant) -> str:
    place = f"{mutant.file}:{mutant.place[0]}, {mutant.kind}"
    return f"{place}\n  {mutant.line}\n- {mutant.old}\n+ {mutant.new}"
