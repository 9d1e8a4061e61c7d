"""Online rules on many networks, batch shapes and dtypes, with reference gradients."""

import pytest

from tests.matrix import discrimination, mistakes, selection

FAMILY = "online"
# E-prop warns if all of the carry is visible to other units, because it then stores no
# trace.
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")


@pytest.mark.parametrize("program", selection.parameters(FAMILY))
def test_all_cells_hold(program):
    selection.assert_all_cells_hold(program)


@pytest.mark.parametrize("definition", discrimination.DEFINITIONS)
@pytest.mark.slow
def test_no_rule_of_another_definition_takes_its_place(definition):
    discrimination.assert_others_fail(definition, FAMILY)


@pytest.mark.parametrize("rule", mistakes.rules_of(FAMILY))
@pytest.mark.fast_rows(2)
def test_mistakes_are_named(rule):
    mistakes.assert_named(rule)
