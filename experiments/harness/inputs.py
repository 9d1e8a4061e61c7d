"""Checks that the user's files and folders are unchanged when a run is resumed."""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.harness.errors import DataError

BLOCK = 1 << 20  # number of bytes to read at a time


def sums_of(config: Any) -> dict[str, dict[str, Any]]:
    """Return {option: size, line count and sha256} of the user's files of a study.

    The study's attribute `FILES` lists the options that are paths of such files, or of
    folders. Of a folder, the result is the sha256 of each file with one of the endings
    in the study's attribute `ENDINGS`. A missing file is left out of the result; the
    study itself raises an error for it.

    Args:
      config: options of a study.
    """
    found = {}
    for option in _given(config):
        path = Path(getattr(config, option))
        if path.exists():
            found[option] = _found(path, config)
    return found


def check_unchanged(config: Any, stored: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the user's files and folders have not changed since a run began.

    Args:
      config: options of the run; `out` is the folder of the run.
      stored: result of :func:`sums_of` at the time when the run began.

    Raises:
      DataError: if a file is missing or has changed; the message says what changed.
    """
    for option in _given(config):
        path, run = Path(getattr(config, option)), f"the run in {config.out}"
        kind = "folder" if "files" in stored.get(option, {}) else "file"
        remedy = f"put that {kind} back, or start a new run in another --out."
        if option not in stored:
            raise DataError(
                f"--{option}: {run} does not say what {path} was when it began, so it "
                "cannot be resumed: start a new run in another --out."
            )
        if not (path.is_dir() if kind == "folder" else path.is_file()):
            raise DataError(f"--{option}: {run} read {path}, which is gone: {remedy}")
        old, new = stored[option], _found(path, config)
        if old != new:
            change = _change_in_folder if kind == "folder" else partial(_change, path)
            raise DataError(
                f"--{option}: {path} has changed since {run} began: "
                f"{change(old, new)}. Results would be of two {kind}s: {remedy}"
            )


def _given(config: Any) -> list[str]:
    """Return the names of options that are set, and are paths of the user's files."""
    names = {field.name for field in dataclasses.fields(config)}
    files = getattr(config, "FILES", ())
    unknown = set(files) - names
    if unknown:
        raise ValueError(f"FILES must name options, got {', '.join(sorted(unknown))}.")
    return [option for option in files if getattr(config, option) is not None]


def _found(path: Path, config: Any) -> dict[str, Any]:
    """Return the sums of a file, or the sha256 of each file in a folder."""
    if path.is_file():
        return _sums(path)
    endings = tuple(getattr(config, "ENDINGS", ())) or ("",)
    files = [each for each in path.rglob("*") if each.is_file()]
    return {
        "files": {
            str(each.relative_to(path)): _sums(each)["sha256"]
            for each in sorted(files)
            if each.name.lower().endswith(endings)
        }
    }


def _sums(path: Path, most: int | None = None) -> dict[str, Any]:
    """Return the size, line count and sha256 of a file or of its first `most` bytes."""
    whole, size, lines = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK if most is None else min(BLOCK, most - size)):
            whole.update(block)
            size, lines = size + len(block), lines + block.count(b"\n")
    return {"bytes": size, "lines": lines, "sha256": whole.hexdigest()}


def _change_in_folder(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return how many files were added, removed and changed, with up to three names."""
    before, after = old["files"], new["files"]
    both = before.keys() & after.keys()
    kinds = {
        "added": after.keys() - before.keys(),
        "removed": before.keys() - after.keys(),
        "changed": {name for name in both if before[name] != after[name]},
    }
    parts = []
    for kind, names in kinds.items():
        if names:
            few = sorted(names)[:3] + ["…"] * (len(names) > 3)
            count = f"{len(names)} file{'s' * (len(names) > 1)}"
            parts.append(f"{count} {kind} ({', '.join(few)})")
    return "; ".join(parts)


def _change(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if old["bytes"] == new["bytes"]:
        return "it has as many bytes, but others"
    sizes = (
        f"it had {old['lines']} lines ({old['bytes']} bytes), and has "
        f"{new['lines']} ({new['bytes']})"
    )
    if new["bytes"] > old["bytes"]:
        same = _sums(path, old["bytes"])["sha256"] == old["sha256"]
        more = "the rest was added" if same else "the beginning differs, too"
        return f"{sizes}; {more}"
    return sizes
