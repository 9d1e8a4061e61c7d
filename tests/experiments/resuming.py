"""Check that a study that lost its last rows resumes to the same results."""

import dataclasses
import json

TIMES = {"wall_seconds", "seconds", "microseconds", "ms_per_step", "compile_seconds"}
# Temporary bytes are not measured if a training was resumed at its end.
TIMES |= {"temp_bytes"}


def check_resumed(main, config, result, *, lost=1, pictures=()):
    """Delete the last rows of a run, resume it, and compare it with the whole run.

    Args:
      main: `main` of the study.
      config: options of the run, with `out`.
      result: return value of `main` for these options.
      lost: number of rows to delete.
      pictures: file names that must have the same bytes after the run is resumed.
    """
    path = result.folder / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = lines[: len(lines) - lost]
    path.write_text("".join(kept))
    drawn = {name: (result.folder / name).read_bytes() for name in pictures}
    for name in pictures:
        (result.folder / name).unlink()
    again = main(dataclasses.replace(config, resume=True))
    assert not again.interrupted
    # The resumed run does not repeat the jobs whose rows were kept.
    assert path.read_text().startswith("".join(kept))
    assert [json.loads(line) for line in path.read_text().splitlines()] == again.rows
    assert without_times(again.rows) == without_times(result.rows)
    for name in pictures:
        assert (result.folder / name).read_bytes() == drawn[name], name


def without_times(rows):
    """Return rows without times and memory, which differ between runs."""
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]
