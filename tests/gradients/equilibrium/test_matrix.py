"""Each solver with each adjoint solver, compared with a dense solve in NumPy."""

import numpy as np
import pytest

from tests.matrix import equilibrium as table


def parameters():
    marks = lambda program: [] if program in table.FAST else [pytest.mark.slow]
    return [
        pytest.param(program, id=program.name, marks=marks(program))
        for program in table.PROGRAMS
    ]


@pytest.mark.parametrize("program", parameters())
def test_all_cells_hold(program):
    found, wrong = table.run(program), []
    assert [f"{program.name}/{name}" for name in found] == program.cells()
    for name, (value, h, grad) in found.items():
        case = table.make(name)
        want_value, want_grad = table.defined(*case)
        try:
            close = {"rtol": 1e-10, "atol": 1e-11}
            np.testing.assert_allclose(value, want_value, **close)
            np.testing.assert_allclose(h, table.settled(table.W, case[1]), **close)
            np.testing.assert_allclose(grad, want_grad, **close)
        except AssertionError as error:
            wrong.append(f"{program.name}/{name}: {str(error).strip()[:300]}")
    assert not wrong, f"{len(wrong)} of {len(found)} cells fail:\n" + "\n".join(wrong)
