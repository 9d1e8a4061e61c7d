"""Pages of the documentation site: names, tests, pictures and links that they show."""

import ast
import importlib
import inspect
import pathlib
import re
import sys

import pytest

from bpvariants import cells

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
PAGES += sorted((ROOT / "experiments").rglob("README.md"))
by_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT))
)
# Modules whose public names the API pages must show.
KINDS = ("static", "through_time", "online", "equilibrium", "remat")
MODULES = [f"bpvariants.gradients.{name}" for name in KINDS]
PARTS = [
    "gradients",
    "updates",
    "cells",
    "diagnostics",
    "training",
    "adapters",
    "types",
]
MODULES += [f"bpvariants.{name}" for name in PARTS]
MODULES += [f"bpvariants.gradients.equilibrium.{n}" for n in ("solvers", "adjoints")]
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(\w+):: bpvariants\.(\S+)$", re.MULTILINE)


def looked_up(name):
    """Return the object of a dotted name in the library."""
    value = importlib.import_module("bpvariants")
    for part in name.split("."):
        value = getattr(value, part)
    return value


def on_api_pages():
    text = "\n".join(page.read_text() for page in sorted(DOCS.glob("api/*.rst")))
    return [name for _, name in DIRECTIVE.findall(text)]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_an_api_page(module):
    """If this fails for a new name, add the name to a page in docs/api/."""
    shown = [id(looked_up(name)) for name in on_api_pages()]
    for name, member in vars(importlib.import_module(module)).items():
        ours = getattr(member, "__module__", "").startswith("bpvariants")
        if name.startswith("_") or inspect.ismodule(member):
            continue
        if ours or isinstance(member, cells.Cell):
            assert id(member) in shown, f"{module}.{name}"


def test_api_pages_show_each_name_once():
    names = on_api_pages()
    assert len(names) > 100
    assert len(set(names)) == len(names)
    for page in DOCS.glob("api/*.rst"):
        text = page.read_text()
        summaries = set(re.findall(r"^   ~bpvariants\.(\S+)$", text, re.MULTILINE))
        shown = {name for kind, name in DIRECTIVE.findall(text) if kind != "data"}
        shown |= {name for name in summaries if name.startswith("cells.")}
        assert summaries == shown, page.name


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["limitations", "equations"])
def test_each_row_names_a_test_that_exists(name):
    rows = 0
    for line in (DOCS / f"{name}.md").read_text().splitlines():
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        for path, test in tests:
            assert test in functions_of(path), f"{path}::{test}"
        if line.startswith("|") and not line.startswith(("|---", "| limitation |")):
            is_header = line.startswith("| equation |")
            assert tests or is_header, line
            rows += not is_header
    assert rows > 35


def test_each_equation_names_a_function():
    for line in (DOCS / "equations.md").read_text().splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| equation |")):
            function = line.split("|")[2]
            names = re.findall(
                r"`((?:cells|gradients|updates|diagnostics)[\w.]+)`", function
            )
            assert names, line
            assert all(callable(looked_up(name)) for name in names), line


@by_page
def test_pictures_have_a_description_and_are_small(page):
    for description, target in re.findall(
        r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()
    ):
        assert len(description) > 20, target
        limit = 1_000_000 if target.endswith(".gif") else 80_000
        assert (page.parent / target).stat().st_size <= limit


def test_the_decision_picture_is_the_one_that_its_program_draws(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    drawn = importlib.import_module("decision").draw()
    assert drawn == (DOCS / "images" / "decision.svg").read_text()


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_extensions")
    yield importlib.import_module
    for name in ("copied_pages", "docstring_markup", "notebook_pictures"):
        sys.modules.pop(name, None)


def test_links_of_the_repository_lead_to_pages_of_the_site(extensions):
    pages = extensions("copied_pages")
    readme = ROOT / "experiments" / "scale" / "README.md"
    place = pages.copies()[readme]
    shown = {*pages.shown_files()}
    rewritten = lambda text: pages.with_site_links(text, readme, place, shown)
    link = "[speed](../../docs/speed.md#against-peers)"
    assert rewritten(link) == "[speed](../../speed.md#against-peers)"
    other = "[other](../static/README.md)"
    assert rewritten(other) == "[other](static.md)"
    assert rewritten("[front](../../README.md)") == "[front](../../index.md)"
    assert rewritten("[license](../../LICENSE)") == "license"
    for kept in ("[a](https://x.org/y)", "[b](#against-peers)"):
        assert rewritten(kept) == kept


def test_docstrings_become_restructuredtext(extensions):
    marked_up = extensions("docstring_markup").marked_up
    lines = [
        "Sum of `a`s with shape [T, *batch]:",
        "- one",
        "  more",
        "",
        "    y = a * b",
        "",
        "Args:",
        "  x_: input |x|, in",
        "    two lines.",
    ]
    assert marked_up(lines) == [
        r"Sum of `a`\ s with shape [T, \*batch]:",
        "",
        "- one",
        "  more",
        "",
        "::",
        "",
        "    y = a * b",
        "",
        "Args:",
        r"  x\_: input \|x\|, in",
        "    two lines.",
    ]


def test_pictures_of_notebooks_are_described_by_the_text_before_them(extensions):
    description = extensions("notebook_pictures").description
    text = [
        "Let T be the\nlength.",
        "It is long. The left picture shows a, the right b.",
    ]
    said = "Memory. The left picture shows a, the right b."
    assert description("Memory", text) == said
    assert description("Memory", [*text, "See below."]) == said
    assert description("Memory?", text) == said.replace(".", "?", 1)
    assert description("Memory", text[:1]) == "Picture of the section: Memory"
