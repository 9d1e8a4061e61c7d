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
    differences = [row for row in rows if row["row"] == "difference"]
    if differences:
        worst = max(row["difference"] / row["largest"] for row in differences)
        report.conclude(
            "Many calls along a stream equal one long call up to "
            f"{report.number(float(f'{worst:.1g}'))} of the largest element."
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
        f"{report.window(config.lookback, config.every)}",
        ["", "T", "temporary", "arguments", "outputs", "in all", "µs/character"],
        table,
        "Memory by XLA's analysis of the compiled program; lower is better. BPTT is "
        "compiled but not run. Arguments include the characters. A call of truncated "
        f"BPTT stores one window for any T.{say}",
    )
    for rule in dict.fromkeys(row["rule"] for row in costs):
        mine = [row for row in costs if row["rule"] == rule]
        if len(mine) > 1:
            growth = mine[-1]["temp_bytes"] / mine[0]["temp_bytes"]
            report.conclude(
                f"{rule}: {mine[-1]['length'] / mine[0]['length']:g} times as many "
                f"characters take {growth:.3g} times the temporary memory."
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
        "smaller every makes more updates. The bigram model is mixed with the unigram "
        "model. Times include compilation.",
    )
    _conclude(rows)


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which GRU predicts best, and which ones are better than the n-grams."""
    networks, others = {}, {}
    for model, mine in _by_model(rows).items():
        late = [row["bits"][-max(len(row["bits"]) // 10, 1) :] for row in mine]
        bits = [float(np.mean(part)) for part in late]
        if "every" in mine[0]:
            networks[model] = bits
        else:
            others[f"the {model} model"] = bits[0]
    sign: Any = {"higher_is_better": False, "unit": " bits"}
    said = [report.verdict("loss in the last tenth", networks, **sign)]
    said += [
        report.against(name, each, networks, **sign) for name, each in others.items()
    ]
    report.conclude(" ".join(filter(None, said)))


def _by_model(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    learned = [row for row in rows if row["row"] == "bits"]
    models = dict.fromkeys(row["model"] for row in learned)
    return {model: [r for r in learned if r["model"] == model] for model in models}


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw memory and time of a call against its length, and losses along the text."""
    figure, axes = report.panels(1, 3, width=5.6, height=4.2)
    memory, seconds, bits = axes[0]
    costs = [row for row in rows if row["row"] == "costs"]
    inputs = {row["length"]: 8 * row["length"] / MIB for row in costs}
    for i, rule in enumerate(dict.fromkeys(row["rule"] for row in costs)):
        mine = [row for row in costs if row["rule"] == rule]
        lengths = [row["length"] for row in mine]
        style = report.rule_style(rule) | {"marker": "os^"[i % 3], "markersize": 4}
        if rule.endswith("learning"):
            style |= {"color": report.shade(style["color"], 0.6)}
        sizes = [row["temp_bytes"] / MIB for row in mine]
        memory.plot(lengths, sizes, label=rule, **style)
        if mine[-1]["seconds"]:
            times = [row["seconds"] for row in mine]
            seconds.plot(lengths, times, label=rule, **style)
    grey = {"color": "#888888", "linestyle": ":"}
    if inputs:
        memory.plot([*inputs], [*inputs.values()], label="the text itself", **grey)
    memory.set(title="one call: temporary memory", ylabel="MiB")
    found = slope(rows)
    title = "one call: time"
    title += "" if found is None else rf", $\propto T^{{{found:.2f}}}$"
    seconds.set(title=title, ylabel="seconds")
    for axis in (memory, seconds):
        axis.set_xlabel("length T of the call, characters")
        report.log_ticks(axis, "xy")
    _draw_bits(bits, rows, config)
    report.label_ends(*axes[0])
    return figure


def _draw_bits(axis: Any, rows: list[dict[str, Any]], config: Any) -> None:
    networks = [row for row in rows if row["row"] == "bits" and "every" in row]
    models = list(dict.fromkeys(row["model"] for row in networks))
    for model, mine in _by_model(rows).items():
        if model in models:
            share = 0.4 + 0.6 * (1 + models.index(model)) / len(models)
            colour = report.shade(report.rule_style("truncated_bptt")["color"], share)
            style = {"color": colour, "linewidth": 1.6}
        else:
            dashes = ":" if model == "unigram" else "--"
            style = {"color": "#666666", "linewidth": 1, "linestyle": dashes}
        mean = np.mean([row["bits"] for row in mine], axis=0)
        width = min(max(len(mean) // 20, 1), 5)
        smooth = np.convolve(mean, np.ones(width) / width, "valid")
        at = config.call * (np.arange(len(smooth)) + width)
        axis.plot(at, smooth, label=model, **style)
    axis.set(xlabel="characters read", ylabel="bits per character")
    axis.set_title("losses: predicted before learned from")
