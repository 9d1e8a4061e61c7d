"""Fixtures of the tests of applications."""

import json

import pytest

TIMES = {"wall_seconds", "compile_seconds", "ms_per_step", "temp_bytes"}


@pytest.fixture
def check_resumed():
    """Check that a run whose last row is lost, as by a kill, makes the same again."""

    def check(study, folder):
        path = folder / "results.jsonl"
        before = path.read_text()
        *kept, lost = before.splitlines(keepends=True)
        path.write_text("".join(kept))
        *first, again = study.main(study.Config(out=folder, resume=True)).rows
        assert first == [json.loads(line) for line in kept]
        expected = json.loads(lost)
        assert again.keys() == expected.keys()
        for name in expected.keys() - TIMES:
            assert again[name] == expected[name], name

    return check
