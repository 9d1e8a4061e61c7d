"""Mutants: copies of the library with one small change, and a random sample of them.

A mutant replaces one expression in one file. KINDS lists the kinds of replacements.
Docstrings, annotations, imports, decorators, assertions and error messages are never
changed.
"""

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KINDS = (
    "swapped operator",
    "off by one",
    "dropped term",
    "negated condition",
    "constant changed",
    "transposed argument",
)
PARTS = ("gradients", "updates", "training")  # the folders to sample from
SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mod,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
}
BY_ONE: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
# The arguments of these functions are not swapped. Either their order does not matter,
# or the wrong order always raises an error.
SYMMETRIC = {
    *("isinstance", "issubclass", "getattr", "hasattr", "setattr", "cast"),
    *("maximum", "minimum", "max", "min", "add", "multiply", "vdot", "array_equal"),
    *("logical_and", "logical_or", "promote_types", "broadcast_shapes", "result_type"),
}
FUNCTION_FIRST = {"map", "partial", "Partial", "scan", "associative_scan", "while_loop"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEFT_ALONE = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)


class Mutant(NamedTuple):
    file: str  # relative to the folder of the library
    kind: str
    line: str  # source line where the expression starts, stripped
    old: str
    new: str
    place: tuple[int, int, int, int]  # first line and byte, last line and byte
    lines: tuple[int, int]  # range of lines; a test must execute one to notice

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.file, self.line, self.old, self.new

    def apply(self, source: str) -> str:
        """Return the source with the expression replaced."""
        first, start, last, end = self.place
        lines = source.encode().split(b"\n")
        before, after = lines[first - 1][:start], lines[last - 1][end:]
        lines[first - 1 : last] = [before + self.new.encode() + after]
        return b"\n".join(lines).decode()


def sample(library: Path, count: int, seed: int) -> list[Mutant]:
    """Draw mutants of the library, at least one for each file that has any.

    All other mutants are divided among the files in proportion to the number of
    possible mutants of each file. Within a file, each kind of mutant is equally likely.
    The order in which mutants of a file are drawn depends only on the file and the
    seed.
    """
    drawn = {}
    for part in PARTS:
        for path in sorted((library / part).rglob("*.py")):
            name = path.relative_to(library).as_posix()
            if found := all_mutants(name, path.read_text("utf-8")):
                drawn[name] = _shuffled(found, random.Random(f"{seed}:{name}"))
    spare = max(0, count - len(drawn))
    total = sum(map(len, drawn.values()))
    shares = {name: spare * len(each) / total for name, each in drawn.items()}
    taken = {name: 1 + int(share) for name, share in shares.items()}
    rest = sorted(shares, key=lambda name: int(shares[name]) - shares[name])
    for name in rest[: count - sum(taken.values())]:
        taken[name] += 1
    return [each for name, found in drawn.items() for each in found[: taken[name]]]


def _shuffled(mutants: list[Mutant], rng: random.Random) -> list[Mutant]:
    """Return mutants in random order; at each place, all kinds are equally likely."""
    kinds = {kind: [each for each in mutants if each.kind == kind] for kind in KINDS}
    for found in kinds.values():
        rng.shuffle(found)
    order = []
    while left := [kind for kind in KINDS if kinds[kind]]:
        order.append(kinds[rng.choice(left)].pop())
    return order


def all_mutants(file: str, source: str) -> list[Mutant]:
    """Return all possible mutants of a file."""
    text, found = source.encode().split(b"\n"), []
    for node, lines, condition in _expressions(ast.parse(source)):
        place = node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
        old = _segment(text, *place)
        for kind, changed in _changes(node, condition):
            new = ast.unparse(changed)
            if not isinstance(changed, ast.Name | ast.Constant | ast.Call):
                new = f"({new})"
            line = text[node.lineno - 1].decode().strip()
            found.append(Mutant(file, kind, line, old, new, place, lines))
    return found


def _segment(text: list[bytes], first: int, start: int, last: int, end: int) -> str:
    """Return the source of an expression, faster than `ast.get_source_segment`."""
    if first == last:
        return text[first - 1][start:end].decode()
    lines = [text[first - 1][start:], *text[first : last - 1], text[last - 1][:end]]
    return b"\n".join(lines).decode()


def _expressions(
    node: ast.AST, lines: tuple[int, int] = (1, 10**6), inside: bool = False
) -> Iterator[tuple[ast.expr, tuple[int, int], bool]]:
    """Yield (expression, range of lines, is_condition) for each replaceable expression.

    A test can notice a replacement only if it executes one of the lines. In a function,
    the range is the first line of the statement or lambda. For code that is executed on
    import, the range is the whole file. For a default argument, it is the body of the
    function.
    """
    for field, child in _children(node):
        below = lines
        if isinstance(child, ast.stmt | ast.Lambda):
            within = inside or isinstance(child, ast.Lambda)
            below = (child.lineno, child.lineno) if within else lines
        if isinstance(child, ast.expr):
            yield child, lines, field in ("test", "ifs")
        if isinstance(child, FUNCTIONS) and not inside:
            whole = child.body[0].lineno, child.end_lineno or child.lineno
            yield from _expressions(child.args, whole)
            yield from _expressions(ast.Module(child.body, []), lines, True)
        else:
            deeper = inside or isinstance(child, ast.Lambda)
            yield from _expressions(child, below, deeper)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the child nodes that may contain replaceable expressions."""
    hidden = {"annotation", "returns", "decorator_list", "bases", "ctx", "op", "ops"}
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        hidden |= {"body", "test"}
    for name, value in ast.iter_fields(node):
        if name in hidden:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield name, child


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, LEFT_ALONE):
        return True
    if isinstance(node, ast.Expr):  # docstrings
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation) == "TypeAlias"
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    if isinstance(node, ast.keyword):  # zip(strict=True) only checks lengths
        return node.arg == "strict"
    if isinstance(node, ast.Call):
        name = _name(node.func)
        return name == "warn" or name.endswith(("Error", "TypeVar"))
    return False


def _name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _changes(node: ast.expr, condition: bool) -> Iterator[tuple[str, ast.expr]]:
    """Yield the kind and the new expression of each possible replacement."""
    if condition or _is_negation(node):
        yield "negated condition", _negated(node)
    if isinstance(node, ast.BinOp) and not _is_text_or_type(node):
        yield from _changes_of_operation(node)
    elif isinstance(node, ast.BoolOp):
        swapped = ast.BoolOp(SWAPPED[type(node.op)](), node.values)
        yield "swapped operator", swapped
        kept = node.values[:-1]
        yield "dropped term", kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "dropped term", node.operand
    elif isinstance(node, ast.Compare):
        yield from _changes_of_comparison(node)
    elif isinstance(node, ast.Constant):
        yield from _changes_of_constant(node)
    elif isinstance(node, ast.Call):
        yield from _changes_of_call(node)


def _is_negation(node: ast.expr) -> bool:
    """Return whether an expression is a `not`, or a comparison by `is` or `in`."""
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _negated(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    return ast.UnaryOp(ast.Not(), node)


def _is_text_or_type(node: ast.BinOp) -> bool:
    """Return whether an operator joins strings, or joins types by `|`."""
    inner = list(ast.walk(node))
    text = any(
        isinstance(each, ast.JoinedStr)
        or (isinstance(each, ast.Constant) and isinstance(each.value, str | None))
        for each in inner
    )
    names = [each for each in inner if isinstance(each, ast.Name | ast.Attribute)]
    of_types = any(_name(each)[:1].isupper() for each in names)
    return text or (isinstance(node.op, ast.BitOr) and of_types)


def _changes_of_operation(node: ast.BinOp) -> Iterator[tuple[str, ast.expr]]:
    if type(node.op) in SWAPPED:
        swapped = ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
        yield "swapped operator", swapped
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
        yield "dropped term", node.left
    if isinstance(node.op, ast.Add | ast.Mult):
        yield "dropped term", node.right
    if isinstance(node.op, ast.Sub | ast.Div | ast.MatMult):
        transposed = ast.BinOp(node.right, node.op, node.left)
        yield "transposed argument", transposed


def _changes_of_comparison(node: ast.Compare) -> Iterator[tuple[str, ast.expr]]:
    first, *others = node.ops
    for kind, table in (("swapped operator", SWAPPED), ("off by one", BY_ONE)):
        if type(first) in table:
            ops = [table[type(first)](), *others]
            yield kind, ast.Compare(node.left, ops, node.comparators)


def _changes_of_constant(node: ast.Constant) -> Iterator[tuple[str, ast.expr]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant changed", ast.Constant(not value)
    elif isinstance(value, int):
        yield "off by one", ast.Constant(value + 1)
    elif isinstance(value, float):
        yield "constant changed", ast.Constant(2 * value if value else 1.0)


def _changes_of_call(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    name, args = _name(node.func), list(node.args)
    if any(isinstance(each, ast.Starred) for each in args) or name in SYMMETRIC:
        return
    start = 1 if name in FUNCTION_FIRST or name == "where" else 0
    pair = args[start : start + 2]
    fixed = [
        isinstance(each, ast.Constant | ast.JoinedStr) or "dtype" in ast.unparse(each)
        for each in pair
    ]
    if len(pair) == 2 and not any(fixed) and ast.dump(pair[0]) != ast.dump(pair[1]):
        args[start : start + 2] = pair[::-1]
        yield "transposed argument", ast.Call(node.func, args, node.keywords)
