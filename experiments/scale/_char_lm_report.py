"""Tables and picture of the study `char_lm`."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import report

Rows = list[dict[str, Any]]


def summary(
    config: Any, mesh: jax.sharding.Mesh, streams: jax.Array, params: Any, result: Any
) -> dict[str, Any]:
    """Return the row of results: network size, training speed, and all losses."""
    leaves = jax.tree.leaves(params)
    held = [leaf.addressable_shards[0].data.size for leaf in leaves]
    steps = result.steps - (result.resumed_from or 0)
    characters = steps * config.window * config.streams
    return {
        "row": "run",
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "parameters": sum(leaf.size for leaf in leaves),
        "parameters_a_device": sum(held),
        "streams_a_device": streams.addressable_shards[0].data.shape[1],
        "resumed_from": result.resumed_from,
        "characters": characters,
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "temp_bytes": result.temp_bytes,
        "bits": (result.values / np.log(2)).tolist(),
    }


def read_log(folder: Path) -> Rows:
    """Return the lines of log.jsonl, one for each chunk of updates.

    The lines from before a run was resumed are included.
    """
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def show(chunks: Rows, run: dict[str, Any], config: Any, text: Any) -> None:
    """Print the loss in bits per character during training, and the run's speed."""
    three = "{:.3f}".format
    report.show_table(
        f"Bits per character of {text.source}, {config.cell.upper()} {config.units}",
        ["updates", "last window", "test"],
        [
            [f"{row['step']:,}", *map(three, (row["bits"], row["test_bits"]))]
            for row in chunks
        ],
        f"Lower is better. {config.streams} streams, windows of {config.window}. Last "
        "window: bits on the last window of the training text, before the update.",
    )
    if chunks:
        last = chunks[-1]
        report.conclude(
            f"One run: the test loss is {last['test_bits']:.3f} bits per character "
            f"after {last['step']:,} updates. A uniform guess over "
            f"{len(text.alphabet)} symbols has {np.log2(len(text.alphabet)):.3f}."
        )
    axes = ", ".join(f"{size} {name}" for name, size in run["mesh"].items())
    mebibytes = "?" if run["temp_bytes"] is None else f"{run['temp_bytes'] / 2**20:.1f}"
    speed = run["characters"] / run["seconds"] if run["seconds"] else 0.0
    sizes = run["parameters"], run["parameters_a_device"], speed
    report.show_table(
        "The run",
        ["devices", "processes", "parameters", "a device", "characters/s", "MiB"],
        [[axes, str(run["processes"]), *map("{:,.0f}".format, sizes), mebibytes]],
        f"Computed in {config.machine.dtype}, matrix products with precision "
        f"{config.machine.precision} (resolved in config.json). MiB: temporary "
        "memory of a device, by XLA's analysis. Speed excludes compilation.",
    )


def draw(chunks: Rows, run: dict[str, Any], config: Any) -> Figure:
    """Draw the loss in bits per character on training windows, and on the test text."""
    figure, axes = report.panels(width=8, height=4.4)
    axis = axes[0, 0]
    steps = np.arange(1, len(run["bits"]) + 1)
    style = {"linewidth": 0.8, "color": report.COLOURS[4]}
    axis.plot(steps, run["bits"], label="training window", **style)
    tested = [row["step"] for row in chunks]
    bits = [row["test_bits"] for row in chunks]
    axis.plot(tested, bits, "o-", color=report.COLOURS[1], label="test text")
    title = f"{config.cell.upper()} {config.units}, {config.machine.dtype}"
    axis.set(xlabel="updates", ylabel="bits per character", title=title)
    report.label_ends(axis)
    return figure
