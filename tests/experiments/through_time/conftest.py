"""Fixture for the tests of studies of gradients through time."""

import json

import pytest

TIMES = {"wall_seconds", "compile_seconds", "ms_per_step", "seconds", "temp_bytes"}


@pytest.fixture
def check_resumed():
    """Return a function that checks that a resumed run rewrites deleted rows."""

    def check(study, result):
        path, last = result.folder / "results.jsonl", result.rows[-1]["job"]
        kept = [row for row in result.rows if row["job"] != last]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        pictures = list(result.folder.glob("*.png"))
        for picture in pictures:
            picture.unlink()
        rows = study.main(study.Config(out=result.folder, resume=True)).rows
        assert rows[: len(kept)] == kept
        assert _without_times(rows) == _without_times(result.rows)
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
        assert all(picture.exists() for picture in pictures)

    return check


def _without_times(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
