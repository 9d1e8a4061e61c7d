"""Tables and pictures of `drift`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.forgetting._online_regression import METHODS

# Mean squared errors of one-step predictions on random walks, measured outside this
# project with 5 inputs and 5 seeds. The standard deviation of a walk's step is 0.01,
# and that of the targets' noise is 0.05. The forgetting factor is 0.9, and the method
# replay stores 20 examples. Of 2000 steps, the first 200 are left out of the mean. None
# means that the method diverged.
MEASURED_RATES = (0.05, 0.2, 0.5, 1.0)
MEASURED = {
    "sgd": (0.00861, 0.01031, None, None),
    "stored": (0.01133, 0.01492, None, None),
    "replay": (0.01232, 0.00778, 0.00678, None),
    "two sums": (0.01245, 0.00807, 0.00704, None),
    "rls": (0.00667, 0.00667, 0.00667, 0.00667),
}
SEASONS = ("Jan–Mar", "Apr–Jun", "Jul–Sep", "Oct–Dec")
COLOURS = dict(zip(METHODS, ["C7", "C1", "C0", "C2", "C3"], strict=True))


def show_walk(rows: list[dict[str, Any]], config: Any) -> None:
    """Print prediction errors on random walks, and errors measured elsewhere."""
    table = []
    for row in rows:
        if row["stream"] != "random walk":
            continue
        cells = []
        for rate, errors in row["errors"].items():
            cells += [_mean(errors), _measured(row["method"], float(rate))]
        table.append([row["method"], *cells])
    header = [""]
    for rate in config.rates:
        header += [f"η {rate:g}", "measured"]
    report.show_table(
        f"A linear model under drift, λ = {config.decay:g}: mean squared error",
        header,
        table,
        "Mean squared error of one-step predictions, lower is better, after step "
        f"{config.burn_in} of {config.steps}; mean ± standard deviation of "
        f"{config.seeds} walks. The noise alone gives an error of 0.0025. A walk "
        "counts as diverged if always predicting 0 has a lower error. "
        "sgd steps by η times the gradient; stored, replay and two sums step by η (1 − "
        "λ) times the discounted sum of past gradients. "
        f"replay keeps {config.horizon} examples; rls has no η. "
        "Measured: outside this project, λ 0.9, 5 walks of 2000 steps.",
    )


def show_left_out(reason: str) -> None:
    """Print why the study leaves out the weather of Seattle."""
    report.show_table("Seattle", [""], [["left out"]], reason)


def show_weather(rows: list[dict[str, Any]]) -> None:
    """Print the errors of predictions of tomorrow's maximum temperature."""
    for inputs in dict.fromkeys(row.get("inputs") for row in rows):
        mine = [row for row in rows if row.get("inputs") == inputs]
        if inputs is None:
            continue
        table = []
        for row in mine:
            setting = [row.get("learning_rate"), row.get("decay")]
            cells = ["" if number is None else f"{number:g}" for number in setting]
            numbers = [row["2014"], row["2015"], *row["seasons"].values()]
            table.append(
                [row["method"], *cells, *(f"{number:.2f}" for number in numbers)]
            )
        report.show_table(
            f"Seattle, tomorrow's maximum from today's data ({inputs}): °C",
            ["", "η", "λ", "2014", "2015", *SEASONS],
            table,
            "Root mean squared errors of one-step predictions, lower is better; models "
            "learn online from 2012 on. η and λ have the lowest error in 2014; seasons "
            "are seasons of 2015. persistence: predict today's maximum; fixed: least "
            "squares on 2012–2014, not updated.",
        )


def _mean(errors):
    if None in errors:
        return f"diverges ({errors.count(None)} of {len(errors)})"
    return report.mean_sd(errors)


def _measured(method, rate):
    if rate not in MEASURED_RATES:
        return ""
    value = MEASURED[method][MEASURED_RATES.index(rate)]
    return "diverges" if value is None else f"{value:.5f}"


def draw_walk(rows: list[dict[str, Any]], rates: np.ndarray) -> Figure:
    """Draw prediction errors against learning rates, and one weight against time."""
    mine = [row for row in rows if row["stream"] == "random walk"]
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in mine:
        name, colour = row["method"], COLOURS[row["method"]]
        curve = [np.nan if error is None else error for error in row["curve"]]
        left.plot(rates, curve, color=colour, label=name)
        for rate, errors in row["errors"].items():
            stable = [error for error in errors if error is not None]
            at = [float(rate)] * len(stable)
            left.plot(at, stable, "o", color=colour, markersize=3, alpha=0.5)
        measured = [np.nan if value is None else value for value in MEASURED[name]]
        left.plot(MEASURED_RATES, measured, "x", color=colour, markersize=9)
        right.plot(row["path"]["weight"], color=colour, linewidth=1, label=name)
    left.plot([], [], "kx", label="measured elsewhere")
    left.axhline(0.0025, color="black", linewidth=0.8, linestyle=":", label="noise")
    left.set(xscale="log", yscale="log", ylim=(0.002, 0.05), xlabel="η")
    left.set(
        ylabel="mean squared one-step error",
        title="A line ends where a walk diverges",
    )
    path = mine[0]["path"]
    truth = np.array(path["truth"])
    first = len(truth) * 3 // 4
    right.plot(truth, color="black", linewidth=1.5, label="truth")
    low, high = truth[first:].min() - 0.1, truth[first:].max() + 0.1
    right.set(xlabel="step", ylabel="first weight", ylim=(low, high))
    right.set_xlim(first, len(truth))
    right.set_title(f"One walk, followed with η = {path['learning_rate']:g}")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def draw_weather(rows: list[dict[str, Any]]) -> Figure:
    """Draw each method's prediction error, as a mean over a sliding 60-day window."""
    mine = [row for row in rows if row["stream"] == "seattle"]
    panels = list(dict.fromkeys(row["inputs"] for row in mine))
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    window = np.ones(60) / 60
    for axis, inputs in zip(axes, panels, strict=True):
        for row in mine:
            if row["inputs"] != inputs:
                continue
            squares = np.convolve(np.square(row["errors"]), window, "valid")
            days = np.array(row["days"], "datetime64[D]")[len(window) - 1 :]
            later = days >= np.datetime64("2013-01-01")
            style = {"color": COLOURS.get(row["method"], "black"), "linewidth": 1.2}
            style["linestyle"] = {"persistence": "--", "fixed": ":"}.get(
                row["method"], "-"
            )
            label = f"{row['method']}, {row['2015']:.2f} °C in 2015"
            axis.plot(days[later], np.sqrt(squares[later]), label=label, **style)
        axis.axvspan(*np.array(["2015-01-01", "2015-12-31"], "datetime64[D]"),
                     color="#eee", zorder=0)  # fmt: skip
        axis.set(title=f"inputs: {inputs}", ylabel="error over 60 days, °C")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
