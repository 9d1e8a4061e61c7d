"""Distributions, versions, bounds of dependencies, and files for GitHub."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

import bpvariants

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = ROOT / "tests" / "constraints"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def build(folder, source=ROOT):
    """Build a wheel and an sdist of `source` without a package index."""
    made = run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=source)
    assert made.returncode == 0, made.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def files(archive):
    """Return the names of the files in a wheel or sdist, without the sdist's folder."""
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as sdist:
        return {m.name.partition("/")[2] for m in sdist.getmembers() if m.isfile()}


def tracked(*folders):
    if not (ROOT / ".git").exists():
        # An sdist has no list of the files that git tracks to compare with.
        pytest.skip("compares with the files of a checkout")
    return set(run("git", "ls-files", *folders, cwd=ROOT).stdout.split("\n")) - {""}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_the_library_alone(distributions):
    wheel, _ = distributions
    info = f"bpvariants-{bpvariants.__version__}.dist-info"
    names = files(wheel)
    assert {name.split("/")[0] for name in names} == {"bpvariants", info}
    library = {name for name in names if name.startswith("bpvariants/")}
    assert library == tracked("bpvariants")
    assert {"bpvariants/py.typed"} < library
    assert f"{info}/licenses/LICENSE" in names


def test_the_sdist_has_what_builds_and_tests_need(distributions):
    _, sdist = distributions
    left = {"PKG-INFO"} ^ files(sdist) ^ tracked()
    # Only the script of continuous integration is missing.
    assert {name.split("/")[0] for name in left} <= {".ci"}, left


@pytest.mark.slow
def test_an_sdist_builds_the_same_wheel(distributions, tmp_path):
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again, _ = build(tmp_path / "dist", source)
    assert files(again) == files(wheel)


def test_metadata_name_the_project_once():
    home = PROJECT["urls"]["Repository"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == home
    assert citation["license"] == PROJECT["license"]
    for path in [ROOT / "SECURITY.md", *FORMS]:
        for url in re.findall(r"https://[^\s)]+", path.read_text()):
            assert url.startswith(home), f"{path.name}: {url}"
    notebooks = ROOT / "notebooks" / "build.py"
    if notebooks.exists():
        assert f'REPOSITORY = "{home}"' in notebooks.read_text()


def test_the_version_and_its_date_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == bpvariants.__version__
    released = re.findall(
        r"^## (\d\S*) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert released[0] == (bpvariants.__version__, str(citation["date-released"]))


def pins(path):
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return dict(
        re.fullmatch(r"([\w-]+)==(\S+)", line).groups() for line in lines if line
    )


def bounds():
    """Yield the name and the lowest version of each requirement of bpvariants."""
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["experiments"] + extras["test"]:
        requirement = Requirement(text)
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                yield requirement.name, specifier.version


def test_the_environment_floor_has_the_lowest_versions():
    # Without trailing zeros, since "3.10" and "3.10.0" are the same version.
    plain = lambda version: re.sub(r"(\.0)+$", "", version)
    # Nothing of bpvariants runs with hatchling, which only builds it.
    lowest = {name: plain(version) for name, version in bounds() if name != "hatchling"}
    pinned = {name: plain(v) for name, v in pins(CONSTRAINTS / "floor.txt").items()}
    assert lowest.items() <= pinned.items(), lowest.items() - pinned.items()
    assert len(lowest) > 15


@pytest.mark.parametrize("name", ["floor", "colab"])
def test_jax_and_jaxlib_are_of_one_version(name):
    versions = pins(CONSTRAINTS / f"{name}.txt")
    assert versions["jax"] == versions["jaxlib"]


def test_environments_sh_refuses_unknown_names_in_one_line():
    made = run("bash", "tests/environments.sh", "ceiling", cwd=ROOT)
    assert made.returncode == 2
    assert "usage: tests/environments.sh floor|colab|current" in made.stderr
    assert made.stderr.count("\n") == 1


def test_environments_sh_says_in_one_line_that_a_python_is_missing(tmp_path):
    nowhere = os.environ | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    nowhere["PYENV_ROOT"] = str(tmp_path)
    for name, version in [("floor", "3.11"), ("newest", "3.13")]:
        if run("bash", "-c", f"command -v python{version}", env=nowhere).stdout:
            continue  # The operating system has this version.
        made = run("bash", "tests/environments.sh", name, cwd=ROOT, env=nowhere)
        assert made.returncode == 69
        assert f"{name} needs Python {version}, which is not installed" in made.stderr
        assert made.stderr.count("\n") == 1


def test_the_core_tests_exist():
    script = (ROOT / "tests" / "environments.sh").read_text()
    (listed,) = re.findall(r"^core=\(\n(.*?)^\)", script, re.MULTILINE | re.DOTALL)
    assert len(listed.split()) > 5
    for path in listed.split():
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_complete(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"] == path.stem
    assert True in workflow  # YAML 1.1 reads the key `on` as true.
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert set(job.get("needs", "").split()) <= workflow["jobs"].keys()
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert "@" in step.get("uses", "@")
    assert {path.stem for path in WORKFLOWS} == {"tests", "docs", "nightly", "release"}


def test_the_matrix_has_every_environment():
    script = (ROOT / "tests" / "environments.sh").read_text()
    table = dict(re.findall(r"^(\w+)\) version=(3\.\d+)", script, re.MULTILINE))
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    matrix = jobs["fast"]["strategy"]["matrix"]["include"]
    table.pop("nightly")
    assert {row["environment"]: row["python"] for row in matrix} == table
    minors = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert set(minors) == set(table.values())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_for_issues_are_complete(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form["contact_links"]
        return
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) > 0
    for field in form["body"]:
        assert field["attributes"]["label"]
    assert {path.stem for path in FORMS} == {"bug", "config", "feature"}


@pytest.mark.slow
def test_installing_leaves_the_packages_of_colab_as_they_are(distributions, tmp_path):
    """Ask pip in an environment with Colab's packages what it would install."""
    wheel, _ = distributions
    colab = pins(CONSTRAINTS / "colab.txt")
    python = tmp_path / "bin" / "python"
    assert run(sys.executable, "-m", "venv", tmp_path).returncode == 0
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    # Compiling all modules takes longer than compiling those that this test imports.
    quick = ["--quiet", "--no-compile"]
    made = run(*pip, "install", *quick, "-r", CONSTRAINTS / "colab.txt")
    if made.returncode and re.search(r"\(from versions: none\)", made.stderr):
        # Without an index, Colab's versions cannot be installed. Other errors of pip
        # fail the test.
        pytest.skip("no package index can be reached")
    assert made.returncode == 0, made.stderr

    def changes(extra):
        report = ["--dry-run", "--quiet", "--report", "-"]
        made = run(*pip, "install", *report, f"{wheel}{extra}")
        assert made.returncode == 0, made.stderr
        return {
            entry["metadata"]["name"].lower()
            for entry in json.loads(made.stdout)["install"]
        }

    assert changes("") == {"bpvariants"}
    for extra in ("[experiments]", "[test]"):
        assert changes(extra) & colab.keys() == set(), extra
    # So that the lines above can fail: the extra `oracles` needs a newer JAX.
    assert {"jax", "jaxlib"} <= changes("[oracles]")

    def installed():
        listed = run(*pip, "list", "--format=json")
        return {each["name"]: each["version"] for each in json.loads(listed.stdout)}

    # A notebook's install cell, as a user runs it, adds bpvariants and changes nothing.
    notebook = json.loads((ROOT / "notebooks/01_the_four_kinds.ipynb").read_text())
    cell = next(c for c in notebook["cells"] if c["cell_type"] == "code")
    before = installed()
    made = run(python, "-I", "-c", "".join(cell["source"]), cwd=ROOT / "notebooks")
    assert made.returncode == 0, made.stderr
    assert "devices: " in made.stdout
    after = installed()
    assert before.items() <= after.items()
    assert "bpvariants" in after.keys() - before.keys()
