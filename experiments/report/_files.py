"""Files that a study writes: the folder of a run, config.json and results.jsonl."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import bpvariants
from experiments.harness.errors import DataError


def make_folder(study: str, out: Path | None) -> Path:
    """Make the folder of a run; raise an error if the folder already has results."""
    if jax.process_count() > 1 and out is None:
        raise DataError("several processes need --out, a folder that they share.")
    if out is None:
        out = Path("runs") / f"{study}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not writes():
        return out
    if (out / "results.jsonl").exists():
        raise DataError(f"{out} holds results already; choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(
            f"{out} cannot be written to: {error.strerror}. Choose another --out."
        ) from error
    return out


def writes() -> bool:
    """Return whether this process prints and writes results; only process 0 does."""
    return jax.process_index() == 0


def write_config(folder: Path, config: Any) -> None:
    """Write a run's options, package versions and devices to config.json."""
    if not writes():
        return
    settings = dataclasses.asdict(config) | {"out": str(folder)}
    content = {"config": settings, "versions": versions()}
    text = json.dumps(content, indent=2, default=str)  # `str` converts paths
    (folder / "config.json").write_text(text + "\n")


def versions() -> dict[str, str]:
    """Return the package versions, devices and settings that results depend on."""
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
    """Add a finished row to results.jsonl, so that no interruption loses it."""
    append_rows(folder, [row])


def append_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add the rows of one job to results.jsonl; if killed, add all rows or none.

    A new file is written beside the old file and then replaces the old file atomically.
    """
    if not writes():
        return
    path = folder / "results.jsonl"
    before = path.read_text() if path.exists() else ""
    write_atomically(path, before + "".join(json.dumps(row) + "\n" for row in rows))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file; if killed, the file has either the new or the old text."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
