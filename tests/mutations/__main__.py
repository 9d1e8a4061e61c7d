"""Change the library and report whether tests fail: `python -m tests.mutations`.

Each fault in faults.json changes one line of the library, in a copy of the project.
Then the fast tests of the changed file are run on this copy. `--full` also runs the
slow tests. A fault counts as noticed if a test fails. Each fault takes about a minute.
`--only TEXT` selects the faults in files whose path contains TEXT.

With `--auto`, the faults are mutants: small changes of expressions, drawn at random
with a fixed seed. For each mutant, only the tests that execute the changed line are
run: the fast tests, and then the slow tests if all fast tests pass. `equivalent.json`
lists mutants that no test can notice; these are not counted. `--resume` continues an
interrupted run. `--retry` does this too, and tests all mutants again that no test had
noticed. `--fast` runs no slow tests.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from tests.mutations import _auto
from tests.mutations._runs import IGNORED, ROOT

FAULTS = json.loads(pathlib.Path(__file__).with_name("faults.json").read_text("utf-8"))
BUDGET = "seconds of fast tests, and of slow tests, that a mutant runs at most"


def main(arguments: list[str]) -> int:
    """Run tests with each selected fault and print a table.

    Return 0 if the tests notice all faults, and 1 otherwise.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="run slow tests too")
    parser.add_argument("--only", default="", help="select files by part of a path")
    parser.add_argument("--auto", action="store_true", help="try automatic mutants")
    parser.add_argument("--count", type=int, default=200, help="automatic mutants")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--resume", action="store_true", help="keep earlier results")
    parser.add_argument("--retry", action="store_true", help="resume; retry survivors")
    parser.add_argument("--fast", action="store_true", help="run no slow tests")
    parser.add_argument("--budget", type=float, default=240.0, help=BUDGET)
    folder = ROOT / "runs" / "mutations"
    parser.add_argument(
        "--folder", type=pathlib.Path, default=folder, help="of results"
    )
    options = parser.parse_args(arguments)
    if options.auto:
        return _auto.main(options)
    survivors, chosen = [], [each for each in FAULTS if options.only in each["file"]]
    for fault in chosen:
        start = time.perf_counter()
        noticed_by = try_fault(fault, options.full)
        seconds = time.perf_counter() - start
        print(f"{fault['file']:<52} {seconds:5.0f} s  {noticed_by or 'SURVIVES'}")
        sys.stdout.flush()
        if not noticed_by:
            survivors.append(fault)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults noticed")
    for fault in survivors:
        print(f"\n{fault['file']}:\n- {fault['line']}\n+ {fault['fault']}")
    return 1 if survivors else 0


def try_fault(fault: dict, full: bool) -> str:
    """Return the first test that fails with the fault, or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
        path = copy / "bpvariants" / fault["file"]
        text = path.read_text("utf-8")
        assert text.count(fault["line"]) == 1, f"faults.json is old: {fault['file']}"
        path.write_text(text.replace(fault["line"], fault["fault"]), "utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0"]
        command += ["-m", "slow or not slow" if full else "not slow"]
        command += [str(pathlib.Path("tests") / test) for test in fault["tests"]]
        run = subprocess.run(
            command,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        if run.returncode not in (0, 1):
            raise RuntimeError(f"pytest could not run: {run.stdout}{run.stderr}")
        lines = run.stdout.splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
