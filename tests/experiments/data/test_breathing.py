"""Tests of the loader of breathing: sizes, columns, and files that are not expected."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data import _breathing, _fetch
from experiments.harness.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.data]
# Numbers of rows of the nine sequences; five files end in a row of zeros.
LENGTHS = [2220, 1383, 1297, 1423, 1308, 1172, 727, 3199, 3061]


def test_nine_sequences_of_three_markers():
    found = data.breathing()
    assert [len(positions) for positions in found.values()] == LENGTHS
    assert [*found] == sorted(found)
    for positions in found.values():
        assert positions.shape[1] == 9
        assert np.isfinite(positions).all()
        assert positions.any(axis=1).all()  # no row of zeros is left
        # Between two rows a marker moves by a few millimetres.
        steps = np.linalg.norm(np.diff(positions.reshape(-1, 3, 3), axis=0), axis=-1)
        assert np.median(steps) < 2
        assert steps.max() < 40
    # The first row of the first three files, as their texts say.
    first = found["201205101519"][0]
    assert first.tolist() == [-490.7, 4.1, 64.7, -396.9, 5.1, 85.6, -286.4, 2.2, 95.4]


def test_other_files_than_expected_are_refused(tmp_path, monkeypatch):
    given = Path(os.environ[_fetch.FOLDER]) / _breathing.FOLDER
    folder = tmp_path / _breathing.FOLDER
    shutil.copytree(given, folder, copy_function=shutil.copyfile)
    monkeypatch.setenv(_fetch.FOLDER, str(tmp_path))
    last = sorted(folder.glob("*.csv"))[-1]
    last.write_bytes(last.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(DataError, match=f"{last} is not the file that was expected"):
        data.breathing()


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "marker.csv"
    path.write_text('"Frame";"Timestamp";"x";"z";"y"\n0;0;1,5;2;3\n')
    with pytest.raises(ValueError, match="unexpected columns"):
        _breathing._positions(path)
