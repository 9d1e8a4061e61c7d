"""Notebooks: their sources, their generated files, and that they run."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.py"))}
SECONDS = 180  # the longest time that a notebook may take, on two CPU cores
IN_A_KERNEL = ("02_seeing_the_chain_rule", "07_rprop")  # the two that take least time
# Settings of the tests with which XLA compiles faster. See tests/conftest.py.
COMPILER = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
LONG_TRAININGS = ("12_learning_that_never_stops",)  # take longer with these settings
each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)

# A process that has this file as `sitecustomize.py` can reach no other machine.
OFFLINE = """
import socket

connect = socket.socket.connect


def refuse(self, address):
    local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1")
    if not local:
        raise OSError(f"the notebook must run offline; it tried to reach {address}")
    return connect(self, address)


def unknown(host, *args, **kwargs):
    raise socket.gaierror(f"the notebook must run offline; it looked up {host}")


socket.socket.connect = refuse
getaddrinfo, socket.getaddrinfo = socket.getaddrinfo, unknown
"""


def build():
    """Import notebooks/build.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(name):
    return json.loads(NOTEBOOKS[name].with_suffix(".ipynb").read_text())["cells"]


def sources(name, kind):
    return ["".join(c["source"]) for c in cells(name) if c["cell_type"] == kind]


@pytest.fixture
def environment(tmp_path):
    """Return the environment of a user who is offline: no settings of the tests."""
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "BPVARIANTS_DTYPE"))
    }
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return kept | {"PYTHONPATH": path, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}


def run_as_script(name, environment, folder, **settings):
    """Run a notebook in a folder of its own, and return what it prints."""
    keys = () if name in LONG_TRAININGS else COMPILER
    compiler = {key: os.environ[key] for key in keys if key in os.environ}
    run = subprocess.run(
        [sys.executable, str(NOTEBOOKS[name])],
        cwd=folder,
        env=environment | compiler | settings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


def test_no_two_notebooks_have_the_same_number():
    numbers = [int(name[:2]) for name in NOTEBOOKS]
    assert numbers == sorted(set(numbers))
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == NOTEBOOKS.keys()


@each_notebook
def test_source_and_notebook_are_as_build_writes_them(name):
    source = NOTEBOOKS[name].read_text()
    remedy = f"{name}: run `python notebooks/build.py`"
    assert source == build().with_header(name, source), remedy
    written = NOTEBOOKS[name].with_suffix(".ipynb").read_text()
    assert written == build().notebook(source), remedy


@each_notebook
def test_notebook_holds_no_outputs(name):
    for cell in cells(name):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], cell
            assert cell["execution_count"] is None, cell


@each_notebook
def test_first_cell_says_time_and_data(name):
    first = sources(name, "markdown")[0]
    assert "\nTime: " in first, "the docstring says how long the notebook takes"
    assert "Data: " in first, "the docstring says whether data are fetched"


@each_notebook
def test_last_sections_are_limits_and_two_solved_exercises(name):
    text = "\n\n".join(sources(name, "markdown"))
    headings = re.findall(r"^## (.*)$", text, flags=re.M)
    assert headings[-2:] == ["What this does not show", "Exercises"]
    limits, exercises = text.split("## What this does not show")[1].split(
        "## Exercises"
    )
    assert 3 <= len(re.findall(r"^[-*] ", limits, flags=re.M)) <= 6
    assert exercises.count("<summary>Solution</summary>") >= 2
    assert exercises.count("<details>") == exercises.count("</details>") >= 2


@each_notebook
def test_notebook_is_short(name):
    """Count lines of code and text, without those that build.py generates."""
    generated = build().GENERATED.sub("", NOTEBOOKS[name].read_text())
    lines = [line for line in generated.splitlines() if line.strip(" #")]
    assert len(lines) <= 330


def test_the_list_of_notebooks_has_each_with_its_title_and_its_link_to_colab():
    listed = (ROOT / "docs" / "notebooks.md").read_text()
    for name, path in NOTEBOOKS.items():
        text = path.read_text()
        title = text.splitlines()[0].strip('"').removesuffix(".")
        colab = re.search(r"\[colab\]: (\S+)", text)[1]
        row = f"| {name[:2]} | [{title}](../notebooks/{name}.ipynb) | [open]({colab}) |"
        assert row in listed


def test_addresses_are_of_one_repository():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for url in project.get("urls", {}).values():
        assert url.startswith(build().REPOSITORY)
    for name in NOTEBOOKS:
        first, install = sources(name, "markdown")[0], sources(name, "code")[0]
        owner = build().REPOSITORY.removeprefix("https://github.com/")
        assert f"/github/{owner}/blob/main/notebooks/{name}.ipynb" in first
        assert f"git+{build().REPOSITORY}" in install


def test_the_install_line_upgrades_nothing():
    install = build().header("01_title", "Title.\n\nText.")
    assert "-U" not in install
    assert "--upgrade" not in install
    assert "[" not in "".join(re.findall(r'"bpvariants[^"]*"', install))  # no extras


def test_header_replaces_an_older_header_and_nothing_else():
    body = "# %%\nprint(1)\n\n# %% [markdown]\n# text\n"
    old = f'"""Title.\n\nText.\n"""\n\n{body}'
    once = build().with_header("01_title", old)
    assert once.endswith(body)
    assert once.count("# # 01 · Title\n") == 1
    changed = once.replace("Title.\n", "Another.\n", 1).replace("-q", "-U")
    again = build().with_header("01_title", changed)
    assert again == once.replace("Title", "Another")


def test_pictures_of_the_text_have_addresses_of_files_that_exist():
    found = [
        path
        for name in NOTEBOOKS
        for text in sources(name, "markdown")
        for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    ]
    assert len(found) >= 4
    for path in found:
        assert path.startswith(build().FILES), path
        assert (ROOT / path.removeprefix(build().FILES)).exists(), path


@pytest.mark.slow
@each_notebook
def test_notebook_runs_as_a_script_without_network(name, environment, tmp_path):
    assert run_as_script(name, environment, tmp_path).startswith("bpvariants ")


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_A_KERNEL)
def test_notebook_runs_in_bfloat16(name, environment, tmp_path):
    printed = run_as_script(name, environment, tmp_path, BPVARIANTS_DTYPE="bfloat16")
    assert printed.splitlines()[0].endswith("bfloat16")


@each_notebook
def test_networks_have_the_dtype_of_the_first_cell(name):
    """A constant of the generated cell that no other cell uses would be no setting."""
    install, *rest = sources(name, "code")
    assert "DTYPE = " in install
    assert any("DTYPE" in cell for cell in rest)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_A_KERNEL)
def test_notebook_runs_in_a_kernel(name, environment, tmp_path, monkeypatch):
    """Compiled with all optimisations, as for a user."""
    monkeypatch.chdir(tmp_path)
    for key in os.environ.keys() - environment.keys():
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("MPLBACKEND")  # pictures are shown in the notebook
    notebook = nbformat.read(NOTEBOOKS[name].with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    kinds = [o.output_type for o in outputs]
    assert "error" not in kinds
    assert any("image/png" in o.get("data", {}) for o in outputs)
