"""Names and signatures of everything that bpvariants makes public, as text.

The file `tests/api_snapshot.txt` holds this text, and a test compares both. To rewrite
the file after a change of the interface that is meant:

    python -m tests.api_snapshot

The signatures are those of the source, so that they do not depend on the versions of
Python and JAX.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import bpvariants

FILE = pathlib.Path(__file__).with_suffix(".txt")


def public_modules() -> list[str]:
    """Return the names of all public modules; those with the fewest dots come first."""
    found = pkgutil.walk_packages(bpvariants.__path__, "bpvariants.")
    names = ["bpvariants", *(name for _, name, _ in found if "._" not in name)]
    return sorted(names, key=lambda name: (name.count("."), name))


@functools.cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """Return the statements of a module that define a name at its top level."""
    path = importlib.import_module(module).__file__
    assert path is not None
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(pathlib.Path(path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node
    return found


def signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def members(node: ast.ClassDef) -> Iterator[str]:
    """Yield the fields and public methods of a class, in the order of the source."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            if not ast.unparse(part.target).startswith("_"):
                yield ast.unparse(part)
        elif isinstance(part, ast.FunctionDef):
            private = part.name.startswith("_")
            if not private or part.name in ("__call__", "__init__"):
                kinds = [ast.unparse(kind) for kind in part.decorator_list]
                mark = "".join(f"@{kind} " for kind in kinds)
                yield f"{mark}{part.name}{signature(part)}"


def described(name: str, value: Any) -> list[str]:
    """Return the lines of a public object: its signature, or its fields and methods."""
    plain = inspect.unwrap(value) if inspect.isfunction(value) else value
    instance = not (inspect.isfunction(plain) or inspect.isclass(plain))
    kind = type(plain) if instance else plain
    node = definitions(kind.__module__)[kind.__name__]
    if isinstance(node, ast.FunctionDef):
        return [name + signature(node)]
    assert isinstance(node, ast.ClassDef)
    word = "object" if instance else "class"
    bases = ", ".join(map(ast.unparse, node.bases))
    return [f"{word} {name}({bases})", *(f"    {each}" for each in members(node))]


def snapshot() -> str:
    """Return the text: a paragraph for each public module."""
    home, paragraphs = {}, []
    for module in public_modules():
        lines = []
        for name, value in sorted(vars(importlib.import_module(module)).items()):
            if name.startswith("_") or inspect.ismodule(value):
                continue
            full = f"{module}.{name}"
            owner = getattr(value, "__module__", None)
            if module == "bpvariants.types" and name in definitions(module):
                node = definitions(module)[name]
                if isinstance(node, ast.AnnAssign):  # a type alias
                    lines.append(ast.unparse(node))
                    continue
            if not str(owner).startswith("bpvariants"):
                continue  # a name that the module imports for its own use
            if id(value) in home:
                lines.append(f"{full} is {home[id(value)]}")
            else:
                home[id(value)] = full
                lines += described(full, value)
        paragraphs.append("\n".join([f"# {module}", *lines]))
    return "\n\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    FILE.write_text(snapshot())
    print(f"{FILE}: {len(snapshot().splitlines())} lines")
