"""Sphinx extension: turn the library's docstrings into reStructuredText.

The docstrings are written to be read as plain text, in `help` and in the source. This
extension changes what reStructuredText would misread:

- Indented blocks are equations, tables or programs, so they become literal blocks.
- `*`, `|` and `_` outside of backticks mean themselves, as in `[T, *batch]`.
- A list may follow its paragraph without an empty line.

It also keeps type hints as they are written, `Step` instead of what `Step` stands for,
and leaves out the fields of NamedTuples, which the docstrings describe themselves.
"""

import ast
import contextlib
import inspect
import re
import textwrap
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Examples?|References):$")
ITEM = re.compile(r"(\s*)([-*]|\d+\.) ")
CODE = re.compile(r"(``.*?``|:[\w:]+:`[^`]*`|`[^`]*`)")


def escaped(line: str) -> str:
    """Escape marks of reStructuredText in a line, except within backticks."""
    bullet = ITEM.match(line)
    start = bullet.end() if bullet else 0
    parts = CODE.split(line[start:])
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", parts[i])
        if i and re.match(r"\w", parts[i]):  # a plural, as in `jax.Array`s
            parts[i] = r"\ " + parts[i]
    return line[:start] + "".join(parts)


def indent(line: str) -> int:
    """Return the number of spaces at the start of a line."""
    return len(line) - len(line.lstrip())


def marked_up(lines: list[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText for napoleon."""
    out, base, in_item, literal, doctest = [], 0, None, None, False
    for i, line in enumerate(lines):
        stripped = line.strip()
        if not stripped:
            out.append("")
            doctest = False
            continue
        if literal is not None:
            if indent(line) >= literal:
                out.append(line)
                continue
            literal = None
        if SECTION.match(line):
            out.append(line)
            base, in_item, doctest = 2, None, False
            continue
        if indent(line) < base and base == 2:
            base = 0
        if stripped.startswith(">>>") or doctest:
            out.append(line)
            doctest = True
            continue
        starts = i == 0 or not lines[i - 1].strip()
        item = ITEM.match(line)
        if in_item is not None and indent(line) <= in_item and not item:
            in_item = None
        if in_item is not None and starts and not item and indent(line) > in_item + 2:
            in_item = None  # a block that follows a list
        inside = base if in_item is None else in_item + 2
        if starts and not item and indent(line) >= inside + 4:
            out += [" " * inside + "::", "", line]
            literal = indent(line)
            continue
        if item:
            if in_item is None and not starts:
                out.append("")
            in_item = indent(line)
        out.append(escaped(line))
    return out


def change_docstring(
    app: "Sphinx", what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Change the lines of a docstring in place, before napoleon reads them."""
    lines[:] = marked_up(lines)


def stand_in(name: str) -> type:
    """Return a class that is shown as a type alias of `bpvariants.types`."""
    return type(name, (), {"__module__": "bpvariants.types"})


ALIASES = {name: stand_in(name) for name in ("Step", "Loss", "PyTree")}


def keep_aliases(app: "Sphinx", obj: Any, bound_method: bool) -> None:
    """Evaluate the type hints of a function anew, with classes for type aliases."""
    if not inspect.isfunction(obj) or not obj.__module__.startswith("bpvariants"):
        return
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, SyntaxError):
        return
    if not isinstance(function, ast.FunctionDef):
        return
    names = {**inspect.unwrap(obj).__globals__, **ALIASES}
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    hints = {a.arg: a.annotation for a in every if a is not None and a.annotation}
    if function.returns:
        hints["return"] = function.returns
    with contextlib.suppress(NameError, TypeError):  # then the hints stay as they are
        obj.__annotations__ = {
            name: eval(ast.unparse(hint), names) for name, hint in hints.items()
        }


def leave_out_fields(
    app: "Sphinx", what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of NamedTuples."""
    is_field = type(obj).__name__ == "_tuplegetter"
    return True if is_field or name in ("count", "index", "_asdict") else None


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connect the functions above to the steps of autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", change_docstring, priority=400)
    app.connect("autodoc-before-process-signature", keep_aliases)
    app.connect("autodoc-skip-member", leave_out_fields)
    return {"parallel_read_safe": True}
