"""The folder of a run: config.json, results.jsonl."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax

import bpvariants


def make_folder(study: str, out: Path | None) -> Path:
    """Make the folder of a run, which must not hold one already."""
    if out is None:
        out = Path("runs") / f"{study}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (out / "results.jsonl").exists():
        raise SystemExit(f"{out} holds results already; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    return out


def write_config(folder: Path, config: Any) -> None:
    """Write the options of a run, and what it ran on."""
    settings = dataclasses.asdict(config) | {"out": str(folder)}
    content = {"config": settings, "versions": versions()}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")


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
    }


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Add a finished row to results.jsonl, so that no interruption loses it."""
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
