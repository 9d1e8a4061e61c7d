"""Tables and picture of `streaming`, with results measured elsewhere."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.online._sensor_streams import Stream

TITLES = {
    "robot": "Wall-following robot: which of four ways it turns, error rate in %",
    "weather": "JFK, temperature an hour ahead: root mean square error in °F",
}
ERRORS = {
    "robot": "error rate so far, %",
    "weather": "root mean square error so far, °F",
}
BASELINES = (":", "-.", "--")  # line styles of methods without a state
# Notes below the tables: errors of offline models, measured outside this project.
HELD_OUT = {
    "robot": "Held out: the last quarter of the stream. Held-out errors of models "
    "trained on the first three quarters, measured outside of this project: majority "
    "59.4, logistic regression 28.5, logistic regression with 9 past steps 23.0, an "
    "MLP 24-32-4 9.9. ",
    "weather": "Held out: the last fifth of the stream. Held-out errors of models "
    "trained on the first four fifths, measured outside of this project with gaps "
    "ignored: persistence 1.61, ridge regression on 48 hours 1.47. ",
}


def score(stream: str, errors: np.ndarray) -> float:
    """Return the score of a stream's errors: error rate in % (robot), or else RMSE."""
    mean = float(errors.mean(dtype=float))
    return 100 * mean if stream == "robot" else float(np.sqrt(mean))


def show_left_out(left_out: dict[str, str]) -> None:
    """Print why streams are left out of the study; `left_out` is {stream: reason}."""
    for name, reason in left_out.items():
        report.show_table(TITLES[name], [""], [["left out"]], reason)


def conclude(rows: list[dict[str, Any]], config: Any) -> None:
    """Say for each stream which rule is best, and what the best baseline reaches."""
    for name in dict.fromkeys(row["stream"] for row in rows):
        mine = [row for row in rows if row["stream"] == name]
        trained = [row for row in mine if row["method"].startswith(config.cell)]
        others = [row for row in mine if row not in trained]
        unit = " %" if name == "robot" else " °F"
        measure = f"error after the first {100 * config.chosen_on:g} % of the stream"
        scores = {row["method"]: row["after"] for row in trained}
        said = []
        if scores:
            said = [report.verdict(measure, scores, higher_is_better=False, unit=unit)]
        if others:
            best = min(others, key=lambda row: np.mean(row["after"]))
            error = f"{np.mean(best['after']):.3g}{unit}"
            said.append(f"Best method without a state: {best['method']} ({error}).")
        title = TITLES[name].split(":")[0]
        report.conclude(f"{title}. {' '.join(said)}")


def show(rows: list[dict[str, Any]], config: Any, streams: dict[str, Stream]) -> None:
    """Print the prediction errors of all methods, one table for each stream."""
    for name, stream in streams.items():
        table = []
        mine = [row for row in rows if row["stream"] == name]
        held_out = any(row["held_out"] for row in mine)  # false for a short stream
        parts = ("all", "after", "held_out") if held_out else ("all", "after")
        for row in mine:
            line = [row["method"], _setting(row)]
            line += [_mean_sd(row[part]) for part in parts]
            if name == "robot":
                line.append(_mean_sd(row.get("loss_after")))
            table.append([*line, f"{row['seconds']:.1f}"])
        if not table:
            continue
        first = f"{100 * config.chosen_on:g} %"
        header = ["", "η or λ", "all", f"after {first}"]
        header += ["held out"] if held_out else []
        header += ["loss"] if name == "robot" else []
        note = (
            f"{int(stream.mask.sum())} steps. Each prediction is scored before the "
            "network learns from the step; lower is better. Mean ± standard deviation "
            f"of {config.seeds} networks of {config.units} units. The learning rate η "
            "of Adam and the forgetting factor λ of recursive least squares have the "
            f"lowest loss on the first {first}. Seconds are of all settings and seeds "
            "together, with compilation. Truncated BPTT recomputes its last steps with "
            "the newest parameters; the influence of online rules was computed with "
            "older parameters. "
        )
        note += HELD_OUT[name] if held_out else ""
        if name == "robot":
            note += "Loss: cross-entropy in nats, after the first part. "
        report.show_table(TITLES[name], [*header, "s"], table, note + _repeats(stream))


def draw(rows: list[dict[str, Any]], config: Any, streams: dict[str, Stream]) -> Figure:
    """Draw each method's mean error against time, one panel for each stream.

    The mean at a time is over all errors from the start of the stream to this time.
    """
    names = [name for name in streams if any(row["stream"] == name for row in rows)]
    figure, axes = report.panels(1, len(names), width=7.2, height=4.8)
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row["stream"] == name]
        axis.axvline(
            config.chosen_on * streams[name].times[-1], color="#888888", linewidth=0.8
        )
        axis.annotate(
            "η, λ are chosen on the part left of this line",
            (config.chosen_on * streams[name].times[-1], 1), (3, -2), fontsize=8,
            xycoords=("data", "axes fraction"), textcoords="offset points",
            color="#666666", va="top",
        )  # fmt: skip
        baselines = [row for row in mine if not row["method"].startswith(config.cell)]
        names = [_name(row, config) for row in mine if row not in baselines]
        styles = report.rule_styles(names)
        for row in mine:
            curves = np.array(row["curve"])
            label = _name(row, config)
            if row in baselines:
                share = 0.35 + 0.65 * baselines.index(row) / len(baselines)
                dash = BASELINES[baselines.index(row) % len(BASELINES)]
                style = {"color": report.shade("#000000", share), "linestyle": dash}
            else:
                style = styles[label]
            axis.plot(
                row["times"], curves.mean(axis=0), label=label, linewidth=1.6, **style
            )
            if len(curves) > 1:
                low, high = curves.min(axis=0), curves.max(axis=0)
                axis.fill_between(
                    row["times"], low, high, color=style["color"], alpha=0.12, lw=0
                )
        axis.set(title=TITLES[name].split(":")[0], ylabel=ERRORS[name])
        axis.set_xlabel(f"{streams[name].unit} since the beginning")
    report.label_ends(*axes[0])
    return figure


def _name(row: dict[str, Any], config: Any) -> str:
    return row["method"].removeprefix(f"{config.cell}, ")


def _setting(row: dict[str, Any]) -> str:
    value = row.get("learning_rate", row.get("decay"))
    return "" if value is None else f"{value:g}"


def _mean_sd(values: list[float] | None) -> str:
    return "" if values is None else report.mean_sd(values)


def _repeats(stream: Stream) -> str:
    if stream.outputs == 1:
        return ""
    same = 100 * np.mean(stream.targets[1:] == stream.targets[:-1])
    return (
        f"An action equals the one before in {same:.1f} % of steps; no input shows "
        "the action before."
    )
