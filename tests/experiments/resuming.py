"""Check that a study whose last rows were deleted resumes to the same results."""

import dataclasses
import json

TIMES = {"wall_seconds", "seconds", "microseconds", "ms_per_step", "compile_seconds"}
# If a training resumes after its last step, it compiles nothing, so temporary memory is
# not measured.
TIMES |= {"temp_bytes"}


def check_resumed(main, config, result, *, lost=1, pictures=()):
    """Delete the last rows of a run, resume the run, and compare the results.

    Args:
      main: `main` of the study.
      config: options of the run, with `out`.
      result: return value of `main` for these options.
      lost: number of rows to delete.
      pictures: names of files that must have equal bytes before and after.
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
