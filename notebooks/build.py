"""Write the generated header of each notebook, and convert the notebooks to .ipynb.

The source of a notebook is `NN_title.py`, in the percent format of jupytext. It starts
with a docstring; from this docstring, `python notebooks/build.py` writes the first two
cells. `NN_title.ipynb` is the same notebook without outputs.
"""

import ast
import pathlib
import re

import jupytext
import nbformat

# The address at which the repository is published. The badge of each notebook opens the
# notebook from this address, and the second cell installs bpvariants from it.
REPOSITORY = "https://github.com/bpvariants/bpvariants"
FOLDER = pathlib.Path(__file__).parent
# The address of files of the repository. Colab, which opens a notebook without the
# files beside it, loads pictures of the text from there.
FILES = REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/"

# Modules that only some notebooks import, and the packages that have them.
EXTRA = {"mido": "mido"}

TITLE = """\
# %% [markdown] tags=["generated"]
# # {number} · {title}
#
# [![Open in Colab][badge]][colab]
#
{text}
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: {colab}

"""
INSTALL = """\
# %% tags=["generated"]
# Install what is missing; packages that are already installed are left as they are.
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

checkouts = [path for path in ("..", ".") if pathlib.Path(path, "bpvariants").is_dir()]
SOURCES = {{
    "bpvariants": [*checkouts, "git+{repository}"][0],
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",{extra}
}}
missing = [url for name, url in SOURCES.items() if not importlib.util.find_spec(name)]
if missing:
    pip = [sys.executable, "-m", "pip", "install", "-q", *missing]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()

import jax

import bpvariants

# The networks compute in this dtype, "float32" or "bfloat16".
DTYPE = os.environ.get("BPVARIANTS_DTYPE", "float32")
print(f"bpvariants {{bpvariants.__version__}}, jax {{jax.__version__}}, {{DTYPE}}")
print("devices:", *jax.devices())

"""
# The cells from the first marker up to the first cell that is not generated.
GENERATED = re.compile(
    r'^# %%[^\n]*tags=\["generated"\].*?(?=^# %%(?![^\n]*"generated"))', re.M | re.S
)


def sources() -> list[pathlib.Path]:
    """Return the paths of all notebooks' sources, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def header(name: str, docstring: str, body: str = "") -> str:
    """Return the first two cells of a notebook.

    Args:
        name: the name of the file, such as `01_the_four_kinds`.
        docstring: its first line is the title of the notebook, with a full stop. The
            rest says what the notebook is about, how long it takes, and which data
            it uses.
        body: the other cells. What they import of `EXTRA` is installed, too.
    """
    title, *lines = docstring.strip().splitlines()
    repository = REPOSITORY.removeprefix("https://github.com/")
    place = f"github/{repository}/blob/main/notebooks/{name}.ipynb"
    text = "\n".join(lines).strip().splitlines()
    first = TITLE.format(
        number=name[:2],
        title=title.removesuffix("."),
        text="\n".join(f"# {line}".rstrip() for line in text),
        colab=f"https://colab.research.google.com/{place}",
    )
    used = [module for module in EXTRA if f"import {module}\n" in body]
    extra = "".join(f'\n    "{module}": "{EXTRA[module]}",' for module in used)
    return first + INSTALL.format(repository=REPOSITORY, extra=extra)


def with_header(name: str, text: str) -> str:
    """Return a notebook's source with its header as `header` writes it."""
    docstring = ast.get_docstring(ast.parse(text))
    if not docstring:
        raise ValueError(f"{name}.py must start with a docstring that has a title")
    first = header(name, docstring, text)
    if GENERATED.search(text):
        return GENERATED.sub(lambda _: first, text, count=1)
    start = text.index("# %%")
    return text[:start] + first + text[start:]


def notebook(text: str) -> str:
    """Return the .ipynb file of a source: without outputs, with fixed cell ids.

    Paths of pictures become addresses.
    """
    body = text[text.index("# %%") :]  # without the docstring, which the header repeats
    cells = jupytext.reads(body, fmt="py:percent").cells
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"cell-{number:02d}"
        if cell["cell_type"] == "markdown":
            cell["source"] = cell["source"].replace("](../docs/", f"]({FILES}docs/")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    result = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(result)
    return nbformat.writes(result) + "\n"


def main() -> None:
    """Write the headers into all sources, and all .ipynb files."""
    for path in sources():
        text = with_header(path.stem, path.read_text())
        path.write_text(text)
        path.with_suffix(".ipynb").write_text(notebook(text))
        print(path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
