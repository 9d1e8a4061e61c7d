"""Tables and picture of the study `pod`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

PARTS = ("arithmetic", "weights", "loop", "sums")


def speed_up(row: dict[str, Any], rows: list[dict[str, Any]], key="seconds") -> float:
    """Return the time with one chip, divided by the time with the row's chips."""
    alone = next(r for r in rows if r["units"] == row["units"] and r["chips"] == 1)
    return alone["seconds"] / row[key]


def show(
    rows: list[dict[str, Any]], config: Any, least_batch: float, least_streams: float
) -> None:
    """Print the parts of the time of an update, and the speed-up by many chips.

    Args:
      rows: results of the study, one row for each network and number of chips.
      config: options of the study.
      least_batch: number of streams per chip below which a chip needs more time to read
        weights from memory than for arithmetic.
      least_streams: number of streams per chip below which the chips need more time to
        sum gradients than for arithmetic.
    """
    training = [row for row in rows if row["row"] == "training"]
    milli = lambda seconds: f"{1e3 * seconds:.3g}"
    table = []
    for row in training:
        cells = [str(row["chips"]), f"{row['streams']:,.0f}"]
        cells += [f"{row['sent_bytes'] / 2**20:.1f}"]
        cells += [milli(row[part]) for part in (*PARTS, "seconds")]
        faster = speed_up(row, training)
        cells += [f"{faster:.1f}", f"{100 * faster / row['chips']:.0f} %"]
        cells += [f"{speed_up(row, training, 'seconds_by_step'):.1f}"]
        name = f"GRU {row['units']}, {row['parameters'] / 1e6:.1f} M"
        table.append([name, *cells])
    header = ["", "chips", "streams", "MiB sent", *PARTS, "in all"]
    report.show_table(
        f"One network, {config.streams:,} streams in all, windows of {config.window}: "
        "times in ms an update",
        [*header, "× 1 chip", "of ideal", "× by step"],
        table,
        "By step: with gradients summed in each time step, as plain jit does, instead "
        f"of once a window. Below {least_batch:.0f} streams a chip, reading "
        f"weights takes longer than arithmetic; below {least_streams:.1f}, sums take "
        "longer than arithmetic. Both limits apply to any number of parameters.",
    )
    most = max(row["chips"] for row in training)
    said = [
        f"GRU {row['units']} {faster:.1f} ({100 * faster / most:.0f} % of ideal)"
        for row in training
        if row["chips"] == most and (faster := speed_up(row, training))
    ]
    report.conclude(
        f"Calculated, not measured: speed-up of {most} chips over one chip: "
        f"{report.listed(said)}."
    )
    sweeps = [row for row in rows if row["row"] == "sweep"]
    report.show_table(
        f"{config.runs:,} runs of a GRU {config.run_units}, batches of "
        f"{config.run_batch}, windows of {config.window}: ms to update all",
        ["", "lanes a chip", "sent", *PARTS[:3], "in all", "× 1 chip", "of ideal"],
        [
            [f"{row['chips']} chip{'s' * (row['chips'] > 1)}", f"{row['lanes']:,}", "0"]
            + [milli(row[part]) for part in (*PARTS[:3], "seconds")]
            + [f"{(faster := speed_up(row, sweeps)):.1f}"]
            + [f"{100 * faster / row['chips']:.0f} %"]
            for row in sweeps
        ],
        f"Assumed: {config.peak / 1e12:g} TFLOP/s, of which {100 * config.efficiency:g}"
        f" % is reached; memory {config.memory_bandwidth / 1e9:g} GB/s; links "
        f"{config.link_bandwidth / 1e9:g} GB/s; {1e6 * config.latency:g} µs a hop, "
        f"{1e6 * config.overhead:g} µs a time step.",
    )


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw the speed-up by many chips, and the parts of the time of an update."""
    figure, axes = report.panels(1, 2, width=6.6, height=4.4)
    faster, parts = axes[0]
    training = [row for row in rows if row["row"] == "training"]
    for i, units in enumerate(dict.fromkeys(row["units"] for row in training)):
        mine = [row for row in training if row["units"] == units]
        for key, style, what in (
            ("seconds", "o-", "summed once a window"),
            ("seconds_by_step", "s:", "summed in each step"),
        ):
            ups = [speed_up(row, mine, key) for row in mine]
            chips = [row["chips"] for row in mine]
            colour = report.COLOURS[i % 6]
            label = f"GRU {units}, {what}"
            faster.plot(chips, ups, style, ms=4, color=colour, label=label)
    sweeps = [row for row in rows if row["row"] == "sweep"]
    chips = [row["chips"] for row in sweeps]
    ups = [speed_up(row, sweeps) for row in sweeps]
    label = f"sweep of {config.runs:,} runs"
    faster.plot(chips, ups, "^-", ms=4, color="black", label=label)
    faster.plot(chips, chips, "--", color="#888888", label="ideal")
    faster.set(xlabel="chips", ylabel="speed-up over one chip")
    report.log_ticks(faster, "xy")
    faster.set_xticks(chips, [f"{count:,}" for count in chips])
    faster.set_title("Calculated speed-up")
    largest = [row for row in training if row["chips"] == config.chips]
    named = [(f"GRU {row['units']}", row) for row in largest]
    named.append(("sweep", next(r for r in sweeps if r["chips"] == config.chips)))
    at = np.arange(len(named))
    for i, part in enumerate(PARTS):
        heights = [1e3 * row[part] for _, row in named]
        place = at + 0.2 * (i - 1.5)
        parts.bar(place, heights, 0.2, label=part, color=report.COLOURS[i])
    parts.set_xticks(at, [name for name, _ in named])
    parts.set_ylabel("ms per update")
    report.log_ticks(parts)
    parts.set_title(f"Calculated time of an update on {config.chips} chips")
    handles = parts.get_legend_handles_labels()
    place = {"loc": "outside lower right", "ncols": len(PARTS), "frameon": False}
    figure.legend(*handles, fontsize=9, **place)
    report.label_ends(faster)
    return figure
