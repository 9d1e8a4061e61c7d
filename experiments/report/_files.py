"""The folder of a run: config.json, results.jsonl."""

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
    """Make the folder of a run, which must not hold one already."""
    if jax.process_count() > 1 and out is None:
        raise DataError("several processes need --out, a folder that all of them see.")
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
    """Return whether this process shows and writes what all of them found."""
    return jax.process_index() == 0


def write_config(folder: Path, config: Any) -> None:
    """Write the options of a run, and what it ran on."""
    if not writes():
        return
    settings = dataclasses.asdict(config) | {"out": str(folder)}
    content = {"config": settings, "versions": versions()}
    text = json.dumps(content, indent=2, default=str)  # paths
    (folder / "config.json").write_text(text + "\n")


def versions() -> dict[str, str]:
    """Return what a result depends on besides its options."""
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
    """Return how products of float32 matrices are computed."""
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
    """Add the rows of one job to results.jsonl: all of them, or after a kill none.

    The file is written anew beside the old one, and takes its place at once.
    """
    if not writes():
        return
    path = folder / "results.jsonl"
    before = path.read_text() if path.exists() else ""
    write_atomically(path, before + "".join(json.dumps(row) + "\n" for row in rows))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is there as a whole or, after a kill, as it was before."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
