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
    "robot": "error rate until now, %",
    "weather": "root mean square error until now, °F",
}
# Notes below the tables: errors of offline models, measured outside this project.
NOTES = {
    "robot": "Held out: the last quarter of the stream. Held-out errors of models "
    "trained on the first three quarters, measured outside of this project: majority "
    "59.4, logistic regression 28.5, logistic regression with 9 past steps 23.0, an "
    "MLP 24-32-4 9.9. Loss: cross-entropy in nats, after the first part. ",
    "weather": "Held out: the last fifth of the stream. Held-out errors of models "
    "trained on the first four fifths, measured outside of this project with gaps "
    "ignored: persistence 1.61, ridge regression on 48 hours 1.47. ",
}


def score(stream: str, errors: np.ndarray) -> float:
    """Return the score of a stream's errors: error rate in % (robot), or else RMSE."""
    mean = float(errors.mean(dtype=float))
    return 100 * mean if stream == "robot" else float(np.sqrt(mean))


def show_left_out(left_out: dict[str, str]) -> None:
    """Print the reason why each of these streams is left out of the study."""
    for name, reason in left_out.items():
        report.show_table(TITLES[name], [""], [["left out"]], reason)


def show(rows: list[dict[str, Any]], config: Any, streams: dict[str, Stream]) -> None:
    """Print the prediction errors of all methods, one table for each stream."""
    for name, stream in streams.items():
        table = []
        for row in [row for row in rows if row["stream"] == name]:
            line = [row["method"], _setting(row)]
            line += [_mean_sd(row[part]) for part in ("all", "after", "held_out")]
            if name == "robot":
                line.append(_mean_sd(row.get("loss_after")))
            table.append([*line, f"{row['seconds']:.1f}"])
        if not table:
            continue
        first = f"{100 * config.chosen_on:g} %"
        header = ["", "η or λ", "all", f"after {first}", "held out"]
        header += ["loss"] if name == "robot" else []
        note = (
            f"{int(stream.mask.sum())} steps. Each prediction is scored before the "
            "network learns from the step; lower is better. Mean ± standard deviation "
            f"of {config.seeds} networks of {config.units} units. The learning rate η "
            "of Adam and the forgetting factor λ of recursive least squares have the "
            f"lowest loss on the first {first}. Seconds are of all settings and seeds "
            "together, with compilation. Truncated BPTT recomputes its last steps with "
            "the newest parameters; the influence of online rules was computed with "
            "older parameters. " + NOTES[name]
        )
        report.show_table(TITLES[name], [*header, "s"], table, note + _repeats(stream))


def draw(rows: list[dict[str, Any]], config: Any, streams: dict[str, Stream]) -> Figure:
    """Draw each method's mean error from the start until each time.

    There is one panel for each stream.
    """
    names = [name for name in streams if any(row["stream"] == name for row in rows)]
    figure = Figure(figsize=(7.5 * len(names), 5.5), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        mine = [row for row in rows if row["stream"] == name]
        for i, row in enumerate(mine):
            learned = row["method"].startswith(config.cell)
            curves, style = np.array(row["curve"]), "-" if learned else "--"
            shown = {"color": f"C{i % 10}", "linestyle": style}
            axis.plot(
                row["times"], curves.mean(axis=0), label=row["method"],
                linewidth=1.6 if learned else 1.0, **shown,
            )  # fmt: skip
            if len(curves) > 1:
                low, high = curves.min(axis=0), curves.max(axis=0)
                axis.fill_between(
                    row["times"], low, high, color=shown["color"], alpha=0.15, lw=0
                )
        axis.axvline(
            config.chosen_on * streams[name].times[-1], color="black", linestyle=":",
            linewidth=1, label="η, λ chosen until here",
        )  # fmt: skip
        axis.set(title=TITLES[name].split(":")[0], ylabel=ERRORS[name])
        axis.set_xlabel(f"{streams[name].unit} since the beginning")
        axis.grid(alpha=0.3)
        axis.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2
        )
    return figure


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
