"""Checks of all pictures that studies save in tests."""

import pytest

from experiments import report
from tests.experiments.report.tidy import check_tidy


@pytest.fixture(autouse=True, scope="session")
def _pictures_are_tidy():
    """Check each saved picture: no label is cut, and no two labels overlap."""
    save = report.save_picture

    def checked(folder, name, figure, **options):
        path = save(folder, name, figure, **options)
        check_tidy(figure)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "save_picture", checked)
        yield
