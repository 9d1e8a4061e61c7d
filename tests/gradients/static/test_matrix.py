"""Static rules with many batch shapes and dtypes, compared with NumPy."""

import pytest

from tests.matrix import static as table


def parameters():
    marks = lambda program: [] if program in table.FAST else [pytest.mark.slow]
    return [
        pytest.param(program, id=program.name, marks=marks(program))
        for program in table.PROGRAMS
    ]


@pytest.mark.parametrize("program", parameters())
def test_all_cells_hold(program):
    wrong = []
    assert [f"{program.name}/{name}" for name in table.run(program)] == program.cells()
    for name in table.CONDITIONS:
        try:
            table.assert_defined(program, program.kind, name)
        except AssertionError as error:
            wrong.append(f"{program.name}/{name}: {str(error).strip()[:300]}")
    assert not wrong, f"{len(wrong)} cells fail:\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", table.KINDS)
@pytest.mark.slow
def test_no_other_kind_takes_its_place(kind):
    for other in table.KINDS:
        if other != kind:
            with pytest.raises(AssertionError):
                table.assert_defined(table.Program(kind), other, "plain")
