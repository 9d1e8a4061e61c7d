"""Files that a study writes: the folder of a run, config.json and results.jsonl."""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, ExitStack
from pathlib import Path
from typing import Any

import jax

import bpvariants
from bpvariants import training
from experiments.harness.errors import DataError


def make_folder(study: str, out: Path | None, overwrite: bool = False) -> Path:
    """Create the folder of a run; raise an error if it already has results.

    If `overwrite` is True, the folder may have results, which `clear` deletes.
    """
    if jax.process_count() > 1 and out is None:
        raise DataError("several processes need --out, a folder that they share.")
    if jax.process_count() > 1 and overwrite:
        raise DataError("--overwrite needs one process: delete the folder yourself.")
    folder = out or Path("runs") / f"{study}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not writes():
        return folder
    _check_name(folder)
    if (folder / "results.jsonl").exists() and not overwrite:
        raise DataError(
            f"{folder} holds results already; choose another --out, add --resume to go "
            "on with that run, or --overwrite to delete it and start again."
        )
    try:
        if out is None:
            folder = _free(folder)
        folder.mkdir(parents=True, exist_ok=out is not None)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to: {error.strerror}. Choose another --out."
        ) from error
    return folder


def clear(folder: Path) -> None:
    """Delete the files of an earlier run in a folder; other files stay.

    Only a folder with a config.json, which every run writes first, has an earlier run.
    """
    if not writes() or not (folder / "config.json").exists():
        return
    for name in ("curves", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("results.jsonl", "log.jsonl", "report.html", "config.json"):
        (folder / name).unlink(missing_ok=True)


def _check_name(folder: Path) -> None:
    """Check that a folder's name is UTF-8, because checkpoints and reports need it."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder.absolute()} is not a name in UTF-8; choose another --out."
        ) from error


def _free(folder: Path) -> Path:
    """Return a path that does not exist yet: `folder`, or `folder` with a number.

    The number makes the name unique if two runs start in the same second.
    """
    names = (folder.with_name(f"{folder.name}-{i}") for i in itertools.count(2))
    return next(name for name in itertools.chain([folder], names) if not name.exists())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from using a run's folder, within a `with` block."""
    with ExitStack() as stack:
        if writes():
            try:
                stack.enter_context(training.locked(folder, "--out"))
            except ValueError as error:
                raise DataError(str(error)) from error
        yield


def writes() -> bool:
    """Return whether this process writes and prints results; only process 0 does."""
    return jax.process_index() == 0


def write_config(
    folder: Path, config: Any, files: Mapping[str, Any] | None = None
) -> None:
    """Write config.json: options and input files of a run, versions and devices."""
    if not writes():
        return
    settings = dataclasses.asdict(config) | {"out": str(folder)}
    content = {"config": settings, "files": files or {}, "versions": versions()}
    text = json.dumps(content, indent=2, default=str)  # paths become strings
    write_atomically(folder / "config.json", text + "\n")


def versions() -> dict[str, str]:
    """Return package versions, devices and settings that results may depend on."""
    names = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    devices = [device.device_kind for device in jax.devices()]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "bpvariants": bpvariants.__version__,
        **{name: importlib.metadata.version(name) for name in names},
        "devices": f"{len(devices)} {devices[0]} ({os.cpu_count()} CPU cores)",
        "processes": str(jax.process_count()),
        "matmul_precision": matmul_precision(),
    }


def matmul_precision() -> str:
    """Return the precision of float32 matrix products."""
    asked = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if asked is not None:
        return asked
    default = {"cpu": "float32", "tpu": "bfloat16"}
    platform = jax.default_backend()
    return f"default, {default.get(platform, 'TF32 where there is hardware for it')}"


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Append a row to results.jsonl at once, so that a later crash does not lose it."""
    append_rows(folder, [row])


def append_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append the rows of a job to results.jsonl.

    If the process is killed, the file has either all of these rows or none of them. The
    complete new contents are written to another file, which then replaces results.jsonl
    atomically.
    """
    if not writes():
        return
    path = folder / "results.jsonl"
    before = path.read_text() if path.exists() else ""
    write_atomically(path, before + "".join(json.dumps(row) + "\n" for row in rows))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file atomically.

    If the process is killed, the file has either the new text or the old text. File
    names in the text may have bytes that are not UTF-8; these bytes are escaped.
    """
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, "utf-8", errors="backslashreplace")
    os.replace(beside, path)
