"""Tests of README and docs: code blocks run, and named objects and links exist."""

import importlib.util
import pathlib
import re
from operator import attrgetter

import pytest

import bpvariants
from bpvariants import adapters, cells, diagnostics, gradients, training, updates

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "experiments").rglob("README.md"))
PACKAGES = [adapters, cells, diagnostics, gradients, training, updates]
by_place = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p)], ids=lambda page: page.name
)
def test_code_in_pages_runs(page, plain_jax):
    """Run the code blocks of a page in order, in float32, as a reader would.

    A block that begins with the line `# needs package` runs only if there is a package
    of this name, which the project does not need otherwise.
    """
    names = {}
    with plain_jax():
        for block in blocks(page):
            needs = re.match(r"# needs (\w+)\n", block)
            if needs is None or importlib.util.find_spec(needs.group(1)):
                exec(compile(block, page.name, "exec"), names)


def test_the_readme_example_prints_what_it_says(capsys, plain_jax):
    (example,) = blocks(README)
    text = README.read_text()
    printed = re.search(r"prints\n+```\n(.*?)```", text, re.DOTALL).group(1)
    with plain_jax():
        exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed
    code = [line for line in example.splitlines() if line and line[0] != "#"]
    assert len([line for line in code if not line.startswith(("import", "from"))]) <= 15


def test_the_readme_is_a_front_door():
    assert len(README.read_text().splitlines()) <= 120


@by_place
def test_pages_name_what_there_is(page):
    """Check that each name that begins with a subpackage of the library exists."""
    packages = "|".join(p.__name__.removeprefix("bpvariants.") for p in PACKAGES)
    for name in re.findall(rf"`((?:{packages}|types)(?:\.\w+)+)", page.read_text()):
        # This raises AttributeError if the name does not exist.
        attrgetter(name)(bpvariants)


@by_place
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
                slug = lambda title: re.sub(r"[^\w -]", "", title.lower())
                assert anchor in [slug(title).replace(" ", "-") for title in titles]
