"""Imports point one way, public names are documented, and the README is true."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import bpvariants
from bpvariants import adapters, cells, diagnostics, gradients, training, types, updates

ROOT = pathlib.Path(bpvariants.__file__).parent.parent
LOW = {"types", "_checks", "_dtypes", "_losses", "_masking", "_program", "_tables"}
BELOW = {
    "types": set(),
    "_dtypes": {"types"},
    "_checks": {"types", "_dtypes"},
    "_masking": {"types", "_checks"},
    "_losses": {"types", "_checks", "_dtypes"},
    "_program": set(),
    "_tables": {"types"},
    "adapters": {"types"},
    "cells": LOW,
    "diagnostics": LOW,
    "gradients": LOW,
    "updates": LOW,
    "training": LOW | {"gradients", "updates", "diagnostics"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_layers_import_only_what_lies_below():
    seen = set()
    for path in (ROOT / "bpvariants").rglob("*.py"):
        layer = path.relative_to(ROOT / "bpvariants").parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        seen.add(layer)
        for name in imported(path):
            package, _, module = name.partition(".")
            assert package != "experiments", path
            if package == "bpvariants":
                assert module.split(".")[0] in BELOW[layer] | {layer}, path
            if layer in ("gradients", "diagnostics"):
                assert package != "optax", path  # knows no optimiser
            if layer == "updates":
                assert package not in ("flax", "equinox"), path  # knows no network
    assert seen == set(BELOW)


def test_the_library_prints_nothing_and_reads_nothing():
    for path in (ROOT / "bpvariants").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "open"), path


PUBLIC = [
    pytest.param(member, id=f"{module.__name__}.{name}")
    for module in (types, adapters, cells, diagnostics, gradients, training, updates)
    for name, member in vars(module).items()
    if not name.startswith("_") and getattr(member, "__module__", "").startswith("bpv")
] + [
    pytest.param(getattr(cell, part), id=f"cells.{name}.{part}")
    for name, cell in vars(cells).items()
    if isinstance(cell, cells.Cell)
    for part in ("init", "carry")
]


@pytest.mark.parametrize("member", PUBLIC)
def test_public_names_are_documented(member):
    assert member.__doc__
    state = inspect.isclass(member) and ">>>" not in member.__doc__
    assert state or ">>>" in member.__doc__
    if not inspect.isclass(member) and member.__module__ != "bpvariants.types":
        parameters = inspect.signature(member).parameters
        for name in parameters:
            assert re.search(rf"\b{name}\b", member.__doc__), name


MODULES = ["bpvariants"] + [
    name for _, name, _ in pkgutil.walk_packages(bpvariants.__path__, "bpvariants.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name, plain_jax):
    with plain_jax():
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_readme_examples_run(capsys, plain_jax):
    """In float32, as a reader runs it, and it prints what the README says."""
    readme = (ROOT / "README.md").read_text()
    example, more = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    printed = re.search(r"prints\n+```\n(.*?)```", readme, re.DOTALL).group(1)
    names = {}
    with plain_jax():
        exec(compile(example, "README.md", "exec"), names)
        assert capsys.readouterr().out == printed
        exec(compile(more, "README.md", "exec"), names)
    assert names["value"] >= 0
    code = [line for line in example.splitlines() if line and line[0] != "#"]
    assert len([line for line in code if not line.startswith(("import", "from"))]) <= 15


def test_the_readme_names_what_there_is():
    readme = (ROOT / "README.md").read_text()
    for package in (gradients, updates, diagnostics, training, adapters, cells):
        short = package.__name__.removeprefix("bpvariants.")
        for name in re.findall(rf"`{short}\.(\w+)", readme):
            assert hasattr(package, name), f"{short}.{name}"
