"""Tests of the number of generated tests, and of how many of them are fast."""

from collections import Counter

from tests.matrix import (
    cases,
    discrimination,
    equilibrium,
    mistakes,
    selection,
    static,
    updates,
)
from tests.matrix.networks import networks
from tests.matrix.programs import RULES, WAYS

FAST, ALL = 500, 5_000  # least numbers of fast checks and of all checks
FAST_MISTAKES = 2  # the number in `fast_rows` of test_mistakes_are_named


def of_programs(programs):
    return [name for program in programs for name in program.cells()]


def all_cells():
    """Return the names of all checks in the generated tests."""
    names = []
    for family in selection.FAMILIES:
        names += of_programs(selection.programs(family))
        for rule in mistakes.rules_of(family):
            names += mistakes.cells(rule)
        for definition in discrimination.DEFINITIONS:
            names += discrimination.cells(definition, family)
    names += of_programs(updates.programs())
    return names + of_programs([*static.PROGRAMS, *equilibrium.PROGRAMS])


def fast_cells():
    """Return the names of the checks that belong to the fast tests."""
    fast = [*selection.FAST, *updates.FAST, *static.FAST, *equilibrium.FAST]
    names = of_programs(fast)
    for family in selection.FAMILIES:
        for rule in mistakes.rules_of(family)[:FAST_MISTAKES]:
            names += mistakes.cells(rule)
    return names


def test_there_are_enough_cells_and_each_has_its_own_name():
    names, fast = all_cells(), fast_cells()
    twice = [name for name, count in Counter(names).items() if count > 1]
    assert not twice
    assert set(fast) <= set(names)
    assert len(names) >= ALL, len(names)
    assert len(fast) >= FAST, len(fast)


def test_the_sample_has_every_rule_network_layout_and_way():
    programs = [p for family in selection.FAMILIES for p in selection.programs(family)]
    assert set(selection.FAST) <= set(programs)
    for name, wanted in {
        "rule": RULES,
        "network": networks(),
        "way": WAYS,
        "layout": [*selection.LAYOUTS, cases.Layout()],
    }.items():
        counts = Counter(getattr(program, name) for program in programs)
        assert all(counts[each] >= 4 for each in wanted), (name, counts)
