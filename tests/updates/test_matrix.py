"""Updates with many pytrees, dtypes and sequences of gradients, compared with NumPy."""

import pytest

from tests.matrix import updates as table

# With scale_past=False, `forgetting` warns that its effective step is large.
pytestmark = pytest.mark.filterwarnings("ignore:.*effective")


def parameters():
    marks = lambda program: [] if program in table.FAST else [pytest.mark.slow]
    return [
        pytest.param(program, id=program.name, marks=marks(program))
        for program in table.programs()
    ]


@pytest.mark.parametrize("program", parameters())
def test_all_cells_hold(program):
    found, wrong = table.run(program), []
    assert [f"{program.name}/{name}" for name in found] == program.cells()
    for name, got in found.items():
        try:
            defined = table.UPDATES[program.update].defined
            table.assert_defined(program, defined, name, got)
        except AssertionError as error:
            wrong.append(f"{program.name}/{name}: {str(error).strip()[:300]}")
    assert not wrong, f"{len(wrong)} of {len(found)} cells fail:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", table.UPDATES)
@pytest.mark.slow
def test_no_other_update_takes_its_place(name):
    program = table.Program(name, "bare")
    found, defined = table.run(program), table.UPDATES[name].defined
    same = next((names for names in table.SAME if name in names), {name})
    for other in table.UPDATES:
        if other not in same:
            definition = table.UPDATES[other].defined
            with pytest.raises(AssertionError):
                table.assert_defined(program, definition, "random", found["random"])
    table.assert_defined(program, defined, "random", found["random"])
