"""Tables and picture of `long`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

MIB = 2**20


def slope(rows: list[dict[str, Any]]) -> float | None:
    """Return the slope of log time against log T (length of a call in characters).

    Return None for fewer than two timed calls.
    """
    timed = [row for row in rows if row["row"] == "costs" and row["seconds"]]
    if len(timed) < 2:
        return None
    lengths, seconds = ([row[key] for row in timed] for key in ("length", "seconds"))
    return float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])


def show(rows: list[dict[str, Any]], config: Any, text: Any) -> None:
    """Print tables of the memory and time of calls, of differences, and of losses.

    The differences are between the results of one long call and of many calls along a
    stream. The losses are in bits per character.
    """
    _show_costs([row for row in rows if row["row"] == "costs"], config)
    report.show_table(
        "Many calls along a stream, compared with one long call from a plain carry",
        ["", "T", "calls", "difference", "largest", "of the carry"],
        [
            [row["rule"], f"{row['length']:,}", str(row["calls"])]
            + [f"{row[k]:.1e}" for k in ("difference", "largest", "carry_difference")]
            for row in rows
            if row["row"] == "difference"
        ],
        "Difference: the largest difference between elements of the gradient, or of "
        "the learned parameters, in float32; lower is better. Largest: the largest "
        "element of the gradient or parameters. Of the carry: the largest difference "
        "between elements of the last carry.",
    )
    _show_bits(rows, config, text)


def _show_costs(costs: list[dict[str, Any]], config: Any) -> None:
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
    found = slope(costs)
    say = "" if found is None else f" Time grows as T to the power of {found:.3f}."
    report.show_table(
        f"Memory in MiB and time of one call of T characters, GRU {config.units}, "
        f"h′ = {config.every}, h = {config.lookback}",
        ["", "T", "temporary", "arguments", "outputs", "in all", "µs/character"],
        table,
        "Memory by XLA's analysis of the compiled program; lower is better. BPTT is "
        "compiled but not run. Arguments include the characters. A call of truncated "
        f"BPTT stores one window for any T.{say}",
    )


def _show_bits(rows: list[dict[str, Any]], config: Any, text: Any) -> None:
    table = []
    for model, mine in _by_model(rows).items():
        bits = [row["bits"] for row in mine]
        tenth = max(len(bits[0]) // 10, 1)
        parts = slice(tenth), slice(-tenth, None), slice(None)
        means = [[float(np.mean(run[part])) for run in bits] for part in parts]
        speed = ""
        if mine[0]["seconds"]:
            seconds = np.mean([row["seconds"] for row in mine])
            speed = f"{1e6 * seconds / (len(bits[0]) * config.call):.0f}"
        table.append([model, *map(report.mean_sd, means), speed])
    report.show_table(
        f"Bits per character along {max(config.lengths):,} characters",
        ["", "first tenth", "last tenth", "all", "µs/character"],
        table,
        f"{text.source}, {len(text.alphabet)} symbols; lower is better. GRU: mean ± "
        f"standard deviation of {config.seeds} seeds. Each character is predicted "
        "before the GRU learns from it: the losses of a window use the parameters from "
        f"the window before. All GRUs use Adam({config.learning_rate:g}), not tuned; a "
        "smaller h′ makes more updates. The bigram model is mixed with the unigram "
        "model. Times include compilation.",
    )


def _by_model(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    learned = [row for row in rows if row["row"] == "bits"]
    models = dict.fromkeys(row["model"] for row in learned)
    return {model: [r for r in learned if r["model"] == model] for model in models}


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw memory and time of a call against its length, and losses along the text."""
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
                lengths, inputs, ":", color="grey", label="the characters themselves"
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
    _draw_bits(bits, rows, config)
    for axis in (memory, seconds, bits):
        axis.grid(alpha=0.3)
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        if axis.lines:
            axis.legend(fontsize=8, **(beside if axis is bits else {}))
    return figure


def _draw_bits(axis: Any, rows: list[dict[str, Any]], config: Any) -> None:
    for i, (model, mine) in enumerate(_by_model(rows).items()):
        baseline = "every" not in mine[0]
        style = {"color": f"C{i}", "linewidth": 1.5}
        if baseline:
            dashes = ":" if model == "unigram" else "--"
            style = {"color": "black", "linewidth": 1, "linestyle": dashes}
        mean = np.mean([row["bits"] for row in mine], axis=0)
        width = min(max(len(mean) // 20, 1), 5)
        smooth = np.convolve(mean, np.ones(width) / width, "valid")
        at = config.call * (np.arange(len(smooth)) + width)
        axis.plot(at, smooth, label=model, **style)
    axis.set(xlabel="characters read", ylabel="bits per character")
    axis.set_title("Each character is predicted before it is learned from")
