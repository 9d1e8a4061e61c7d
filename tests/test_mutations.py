"""Planted faults and mutants of `python -m tests.mutations` still fit the library."""

import ast

import pytest

from tests.mutations.__main__ import FAULTS, ROOT
from tests.mutations._auto import EQUIVALENT, LIBRARY
from tests.mutations._mutants import all_mutants, KINDS, sample

SOURCE = '''
"""Text - with 1 + 1."""
from typing import Any

LIMIT: int | None = 3


def f(a: int, b: float = 0.5) -> int | None:
    """Return 1 - 1."""
    if a < b and not a:
        raise ValueError("a" + str(a - 1))
    assert a < 4
    return g(a, b) + (b - 1 if a == 2 else -b)
'''
MUTANTS = {
    ("3", "4"),
    ("0.5", "1.0"),
    ("a < b and not a", "(not (a < b and (not a)))"),
    ("a < b and not a", "(a < b or not a)"),
    ("a < b and not a", "(a < b)"),
    ("a < b", "(a > b)"),
    ("a < b", "(a <= b)"),
    ("not a", "a"),
    ("g(a, b) + (b - 1 if a == 2 else -b)", "(g(a, b) - (b - 1 if a == 2 else -b))"),
    ("g(a, b) + (b - 1 if a == 2 else -b)", "g(a, b)"),
    ("g(a, b) + (b - 1 if a == 2 else -b)", "(b - 1 if a == 2 else -b)"),
    ("g(a, b)", "g(b, a)"),
    ("b - 1", "(b + 1)"),
    ("b - 1", "b"),
    ("b - 1", "(1 - b)"),
    ("1", "2"),
    ("a == 2", "(not a == 2)"),
    ("a == 2", "(a != 2)"),
    ("2", "3"),
    ("-b", "b"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["file"])
def test_the_line_of_a_fault_occurs_once(fault):
    assert (ROOT / "bpvariants" / fault["file"]).read_text().count(fault["line"]) == 1
    assert fault["fault"] != fault["line"]
    assert all((ROOT / "tests" / test).exists() for test in fault["tests"])


def test_mutants_change_expressions_but_no_texts_or_types():
    found = all_mutants("f.py", SOURCE)
    assert {(mutant.old, mutant.new) for mutant in found} == MUTANTS
    for mutant in found:
        changed = mutant.apply(SOURCE)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))
        first, start, last, end = mutant.place
        assert first == last
        before, after = SOURCE.split("\n")[first - 1], changed.split("\n")[first - 1]
        assert after == before[:start] + mutant.new + before[end:]


def test_mutants_run_with_their_statement_or_function():
    lines = {mutant.old: mutant.lines for mutant in all_mutants("f.py", SOURCE)}
    assert lines["3"] == (1, 10**6)  # code of the module, executed on import
    assert lines["0.5"] == (9, 13)  # from the first to the last line of the body of f
    assert lines["a < b"] == (10, 10)
    assert lines["g(a, b)"] == (13, 13)


@pytest.mark.slow
def test_the_sample_is_fixed_by_its_seed():
    mutants = sample(LIBRARY, 200, 0)
    assert mutants == sample(LIBRARY, 200, 0)
    assert mutants != sample(LIBRARY, 200, 1)
    assert (
        len(mutants) == len({(*mutant.place, mutant.key) for mutant in mutants}) == 200
    )
    assert {mutant.kind for mutant in mutants} == {*KINDS}
    assert len({mutant.file for mutant in mutants}) > 100


def test_equivalent_mutants_exist():
    for each in EQUIVALENT:
        found = all_mutants(each["file"], (LIBRARY / each["file"]).read_text("utf-8"))
        keys = {(mutant.line, mutant.old, mutant.new) for mutant in found}
        assert (each["line"], each["old"], each["new"]) in keys, each
        assert each["reason"]
