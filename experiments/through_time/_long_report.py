"""Tables and the picture of long."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

MIB = 2**20


def slope(rows: list[dict[str, Any]]) -> float | None:
    """Return d log time / d log T of the calls that were timed."""
    timed = [row for row in rows if row["row"] == "costs" and row["seconds"]]
    if len(timed) < 2:
        return None
    lengths, seconds = ([row[key] for row in timed] for key in ("length", "seconds"))
    return float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])


def show(rows: list[dict[str, Any]], config: Any, text: Any) -> None:
    """Print what calls cost, that a stream is one call, and bits per character."""
    setting = f"h′ = {config.every}, h = {config.lookback}"
    costs = [row for row in rows if row["row"] == "costs"]
    size = lambda number: f"{number / MIB:.3f}"
    keys = ("temp_bytes", "argument_bytes", "output_bytes")
    table = []
    for row in costs:
        sizes = [row[key] for key in keys]
        cells = [f"{row['length']:,}", *map(size, [*sizes, sum(sizes)])]
        per_token = ""
        if row["seconds"]:
            per_token = f"{1e6 * row['seconds'] / row['length']:.1f}"
        table.append([row["rule"], *cells, per_token])
    found = slope(rows)
    say = "" if found is None else f" Time grows as T to the power of {found:.3f}."
    report.show_table(
        f"One call of T characters, GRU {config.units}, {setting}: MiB",
        ["", "T", "temporary", "arguments", "outputs", "in all", "µs/character"],
        table,
        "As XLA's analysis of the compiled program says; plain BPTT is compiled only. "
        "Arguments hold the characters. A truncated call keeps one window, whatever "
        f"T is.{say}",
    )
    report.show_table(
        "Many calls along a stream, and one long call with a plain carry",
        ["", "T", "calls", "difference", "of at most", "of the carry"],
        [
            [row["rule"], f"{row['length']:,}", str(row["calls"])]
            + [f"{row[k]:.1e}" for k in ("difference", "largest", "carry_difference")]
            for row in rows
            if row["row"] == "difference"
        ],
        "The largest difference, in float32, of a gradient's entries, or of the "
        "parameters that were learned.",
    )
    table = []
    for row in [row for row in rows if row["row"] == "bits"]:
        bits, tenth = row["bits"], max(len(row["bits"]) // 10, 1)
        means = [np.mean(bits[:tenth]), np.mean(bits[-tenth:]), np.mean(bits)]
        speed = ""
        if row["seconds"]:
            speed = f"{1e6 * row['seconds'] / (len(bits) * config.call):.0f}"
        table.append([row["model"], *(f"{mean:.3f}" for mean in means), speed])
    report.show_table(
        f"Bits per character along {max(config.lengths):,} characters",
        ["", "first tenth", "last tenth", "all", "µs/character"],
        table,
        f"{text.source}, {len(text.alphabet)} symbols. Each character is predicted "
        "before it is learned from: a window's losses are met with the parameters that "
        f"the window before left. Adam({config.learning_rate:g}) for all, not tuned; a "
        "smaller h′ makes more updates. n-grams count as they go, the bigram mixed "
        "with the unigram. Times include compilation.",
    )


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw memory and time against T, and bits per character along the stream."""
    figure = Figure(figsize=(16, 4.6), layout="constrained")
    memory, seconds, bits = figure.subplots(1, 3, width_ratios=[1, 1, 1.6])
    costs = [row for row in rows if row["row"] == "costs"]
    for i, rule in enumerate(dict.fromkeys(row["rule"] for row in costs)):
        mine = [row for row in costs if row["rule"] == rule]
        lengths = [row["length"] for row in mine]
        style = {"marker": "os^"[i], "linestyle": ["-", "-", "--"][i]}
        sizes = [row["temp_bytes"] / MIB for row in mine]
        memory.plot(lengths, sizes, color=f"C{i}", label=rule, **style)
        if mine[-1]["seconds"]:
            times = [row["seconds"] for row in mine]
            seconds.plot(lengths, times, color=f"C{i}", label=rule, **style)
            inputs = [8 * row["length"] / MIB for row in mine]
            memory.plot(
                lengths, inputs, ":", color="grey", label="characters, as given"
            )
            ideal = times[0] * np.array(lengths) / lengths[0]
            seconds.plot(lengths, ideal, ":", color="grey", label="∝ T")
    memory.set(title="One call: temporary memory", ylabel="MiB")
    found = slope(rows)
    title = "One call: time"
    title += "" if found is None else rf", $\propto T^{{{found:.2f}}}$"
    seconds.set(title=title, ylabel="s")
    for axis in (memory, seconds):
        axis.set(xscale="log", yscale="log", xlabel="T, characters")
    learned = [row for row in rows if row["row"] == "bits"]
    for i, row in enumerate(learned):
        baseline = "every" not in row
        style = {"color": f"C{i}", "linewidth": 1.5}
        if baseline:
            dashes = ":" if row["model"] == "unigram" else "--"
            style = {"color": "black", "linewidth": 1, "linestyle": dashes}
        width = min(max(len(row["bits"]) // 20, 1), 5)
        smooth = np.convolve(row["bits"], np.ones(width) / width, "valid")
        at = config.call * (np.arange(len(smooth)) + width)
        bits.plot(at, smooth, label=row["model"], **style)
    bits.set(xlabel="characters read", ylabel="bits per character")
    bits.set_title("Each predicted before it was learned from")
    for axis in (memory, seconds, bits):
        axis.grid(alpha=0.3)
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        if axis.lines:
            axis.legend(fontsize=8, **(beside if axis is bits else {}))
    return figure
