"""Tests of the structure of the code: imports, file sizes, docstrings, test folders."""

import ast
import doctest
import graphlib
import importlib
import inspect
import pathlib
import pkgutil
import re
from collections.abc import Iterator

import jax
import pytest

import bpvariants

ROOT = pathlib.Path(bpvariants.__file__).parent.parent
# A part of the code may import parts in earlier rows, but no other part in its own row.
LEVELS = [
    {"types"},
    {"_dtypes", "_pictures", "_settings", "_tables"},
    {"_checks", "_carries", "_examples"},
    {"_sequences"},
    {"_jaxpr", "_losses", "_masking"},
    {"adapters", "cells", "gradients", "updates"},
    {"diagnostics"},
    {"training"},
    {"bpvariants"},  # The package's __init__ imports all parts above.
    {"__main__"},  # `python -m bpvariants`
    {"experiments"},
]
# These are subpackages of gradients that may not import each other.
ROOMS = {"static", "through_time", "online", "equilibrium"}
BELOW_ROOMS = {"remat", "_feedback", "_learning", "_stacked"}
# Modules that may import `solvers` and `adjoints`.
SETTLES = ("_fixed_point", "_recurrent_backprop", "_jacobian_penalty")


def _paths() -> Iterator[tuple[str, pathlib.Path]]:
    """Yield the name and the path of each module of bpvariants and experiments."""
    for path in sorted(ROOT.glob("bpvariants/**/*.py")) + sorted(
        ROOT.glob("experiments/**/*.py")
    ):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


SOURCES = dict(_paths())
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imported(module):
    """Yield the full names of everything that a module imports, at any depth."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needed(module):
    """Yield the modules that a module imports, or from which it imports names.

    `from package import module` needs only the named module. `from package import name`
    needs the package's `__init__` and everything that the `__init__` imports.
    """
    for name in imported(module):
        owner = name if name in SOURCES else name.rpartition(".")[0]
        if owner in SOURCES:
            yield owner


IMPORTS = {module: set(needed(module)) for module in SOURCES}


def part(module):
    """Return the entry of LEVELS to which a module belongs."""
    package, *inner = module.split(".")
    return inner[0] if package == "bpvariants" and inner else package


def test_layers_import_only_what_lies_below():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    for module, others in IMPORTS.items():
        for other in others:
            above, below = part(module), part(other)
            assert above == below or level[below] < level[above], f"{module}: {other}"
    assert {part(module) for module in SOURCES} == level.keys()


def test_the_four_kinds_of_gradients_never_import_each_other():
    within = "bpvariants.gradients."
    for module, others in IMPORTS.items():
        if not module.startswith(within):
            continue
        room = module.removeprefix(within).split(".")[0]
        assert room in ROOMS | BELOW_ROOMS, module
        allowed = BELOW_ROOMS | ({room} if room in ROOMS else set())
        for other in others:
            assert other != "bpvariants.gradients", module
            if other.startswith(within):
                where = other.removeprefix(within).split(".")[0]
                assert where in allowed, f"{module}: {other}"


def test_solvers_and_adjoints_lie_below_the_fixed_point():
    within = "bpvariants.gradients.equilibrium"
    for module, others in IMPORTS.items():
        below = module.startswith((f"{within}.solvers", f"{within}.adjoints"))
        settles = {within} | {f"{within}.{name}" for name in SETTLES}
        assert settles <= SOURCES.keys()
        assert not (below and others & settles), f"{module}: {others & settles}"
        if module.startswith(f"{within}.solvers"):
            assert not any("adjoints" in other for other in others), module


def test_no_modules_import_each_other_in_a_circle():
    # raises CycleError if there is a cycle of imports
    list(graphlib.TopologicalSorter(IMPORTS).static_order())


@pytest.mark.parametrize(
    ("layer", "unknown"),
    [
        ("gradients", ("optax",)),  # Gradient rules must not depend on an optimiser.
        ("diagnostics", ("optax",)),
        # Updates must not depend on a library for networks.
        ("updates", ("flax", "equinox")),
    ],
)
def test_layers_do_not_know_the_packages_of_others(layer, unknown):
    for module in SOURCES:
        if part(module) == layer:
            for name in imported(module):
                assert name.split(".")[0] not in unknown, module


def test_the_library_prints_nothing_and_reads_nothing():
    for module in SOURCES:
        if module.startswith("bpvariants") and part(module) != "__main__":
            for node in ast.walk(TREES[module]):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("print", "open"), module


# Tests that only the subpackage `_jaxpr` reads jaxprs.

READS = {"primitive", "eqns", "jaxpr", "invars", "outvars", "constvars"}
PRIMITIVES = {
    member.name
    for name, member in vars(jax.lax).items()
    # Do not search for primitives without an inner underscore, such as "tanh", because
    # their names are also names of other things.
    if name.endswith("_p") and "_" in member.name
}


def reads_programs(tree):
    """Yield each line that reads a jaxpr or contains the name of a JAX primitive."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            lax = isinstance(node.value, ast.Attribute) and node.value.attr == "lax"
            if node.attr in READS or (lax and node.attr.endswith("_p")):
                yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Constant) and id(node) not in docs:
            named = PRIMITIVES & {node.value}
            yield from (f"line {node.lineno}: {name!r}" for name in named)


def test_only_one_room_knows_the_names_of_primitives():
    assert {"dot_general", "reduce_sum", "broadcast_in_dim"} <= PRIMITIVES
    found = {module: list(reads_programs(tree)) for module, tree in TREES.items()}
    inside = {module for module in found if part(module) == "_jaxpr"}
    assert any(found[module] for module in inside)
    outside = {m: places for m, places in found.items() if places and m not in inside}
    assert not outside, outside


def test_no_module_inspects_signatures():
    """Check that no code inspects signatures; all rules take the same arguments."""
    looks = {"signature", "Signature", "getfullargspec", "__signature__"}
    found = []
    for module, tree in TREES.items():
        if any(f"inspect.{name}" in imported(module) for name in looks):
            found.append(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in looks:
                found.append(f"{module}, line {node.lineno}")
    assert not found, found


# Tests of the sizes of files and functions.

LINES = 300
LINES_OF_A_FUNCTION = 60  # The docstring of a function does not count.


def test_files_are_short():
    sizes = {name: len(path.read_text().splitlines()) for name, path in SOURCES.items()}
    found = {name: size for name, size in sizes.items() if size > LINES}
    assert not found, found


def test_functions_are_short():
    found = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node, clean=False)
                size = node.end_lineno - node.lineno + 1
                size -= len(doc.split("\n")) if doc else 0
                if size > LINES_OF_A_FUNCTION:
                    found[f"{module}.{node.name}"] = size
    assert not found, found


def test_tests_stand_where_the_tested_files_stand():
    """Check that each folder of tests is named like a folder of the code."""
    here = pathlib.Path(__file__).parent
    for path in here.rglob("test_*.py"):
        folder = path.parent.relative_to(here)
        code = ROOT / folder, ROOT / "bpvariants" / folder
        assert any(place.is_dir() for place in code), path


# Tests of the documentation.

MODULES = ["bpvariants"] + [
    name for _, name, _ in pkgutil.walk_packages(bpvariants.__path__, "bpvariants.")
]


def public_names():
    """Return each public object once, under its shortest name."""
    found = {}
    for module in sorted(MODULES[1:], key=lambda name: name.count(".")):
        if "._" in module:
            continue
        for name, member in vars(importlib.import_module(module)).items():
            ours = getattr(member, "__module__", "").startswith("bpvariants")
            if ours and not name.startswith("_"):
                found.setdefault((name, id(member)), (f"{module}.{name}", member))
                # The methods `init` and `carry` of a cell need docstrings, too.
                if isinstance(member, bpvariants.cells.Cell):
                    for part in ("init", "carry"):
                        label = f"{module}.{name}.{part}"
                        of_cell = getattr(member, part)
                        found.setdefault((label, id(of_cell)), (label, of_cell))
    return [pytest.param(member, id=name) for name, member in found.values()]


@pytest.mark.parametrize("member", public_names())
def test_public_names_are_documented(member):
    assert member.__doc__, "write a docstring"
    state = inspect.isclass(member) and ">>>" not in member.__doc__
    assert state or ">>>" in member.__doc__, "add an example to the docstring"
    if not inspect.isclass(member) and member.__module__ != "bpvariants.types":
        parameters = inspect.signature(member).parameters
        for name in parameters:
            named = re.search(rf"\b{name}\b", member.__doc__)
            assert named, f"describe the argument {name} in the docstring"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name, plain_jax):
    with plain_jax():
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
