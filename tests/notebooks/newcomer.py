"""Time a newcomer's path: from the first cell of a notebook to its first picture.

    python -m tests.notebooks.newcomer [NOTEBOOK] [--python PYTHON] [--empty]

The command makes a virtual environment with the packages of a Colab runtime, as
tests/constraints/colab.txt lists them, but without bpvariants. Then it runs the code
cells of the notebook one by one, as Colab would, until a cell has drawn a picture. The
first cell installs bpvariants from this checkout. The command prints the seconds after
each cell, and fails if the picture comes later than 180 seconds.

With `--empty`, the environment has no packages, so the first cell downloads jax and all
other packages, too. PYTHON is an interpreter of Python 3.13, which Colab has.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
VERSIONS = ROOT / "tests" / "constraints" / "colab.txt"
SECONDS = 180  # the longest time to the first picture, on two cores

# Runs in the new environment. Times include those of pip, which the first cell starts.
RUN = f"""
import json, resource, sys, time

began = time.perf_counter()

def say(what):
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = sum(sum(resource.getrusage(who)[:2]) for who in whose)
    wall = time.perf_counter() - began
    print(f"{{wall:6.1f}} s, {{used:6.1f}} CPU seconds: {{what}}", flush=True)
    return wall

names = {{"__name__": "__main__"}}
cells = json.load(open(sys.argv[1]))["cells"]
for number, cell in enumerate(cells, 1):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {{number}}", "exec"), names)
        say(f"after cell {{number}}")
        plot = sys.modules.get("matplotlib.pyplot")
        if plot and plot.get_fignums():
            break
plot.savefig(sys.argv[2])
sys.exit(say(f"the first picture, {{sys.argv[2]}}") > {SECONDS})
"""


def main(notebook: str, python: str, empty: bool) -> int:
    """Make the environment, run the cells, and return an exit status."""
    folder = pathlib.Path(tempfile.mkdtemp())
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    python = str(folder / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    if not empty:
        subprocess.run([*pip, "-r", VERSIONS], check=True)
    (path,) = ROOT.glob(f"notebooks/{notebook}*.ipynb")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    kept.pop("PYTHONPATH", None)
    settings = {"MPLBACKEND": "Agg", "PIP_CONSTRAINT": str(VERSIONS)}
    picture = folder / "first.png"
    print(f"{path.name}, {'an empty environment' if empty else 'packages of Colab'}")
    run = [python, "-W", "ignore", "-c", RUN, str(path), str(picture)]
    return subprocess.run(run, cwd=path.parent, env=kept | settings).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="?", default="01")
    parser.add_argument("--python", default="python3.13")
    parser.add_argument("--empty", action="store_true")
    raise SystemExit(main(**vars(parser.parse_args())))
