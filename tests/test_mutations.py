"""Planted faults of `python -m tests.mutations`: each still fits the library's code."""

import pytest

from tests.mutations.__main__ import FAULTS, ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["file"])
def test_the_line_of_a_fault_occurs_once(fault):
    assert (ROOT / "bpvariants" / fault["file"]).read_text().count(fault["line"]) == 1
    assert fault["fault"] != fault["line"]
    assert all((ROOT / "tests" / test).exists() for test in fault["tests"])
