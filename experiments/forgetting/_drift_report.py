"""Tables and pictures of `drift`."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from experiments import report

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
_shown = lambda update, **more: report.update_style(update) | more
STYLES = {  # {method: colour and line style of its curves}
    "sgd": _shown("sgd"),
    "stored": _shown("forgetting"),
    "replay": _shown("forgetting_normalised"),
    "two sums": _shown("forgetting_normalised", linestyle=":"),
    "rls": _shown("least_squares"),
    "persistence": {"color": "#888888", "linestyle": ":"},
    "fixed": {"color": "#888888", "linestyle": "--"},
}


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
    lowest = {
        row["method"]: _lowest(row) for row in rows if row["stream"] == "random walk"
    }
    measure = "error on random walks, each method at its best η"
    report.conclude(report.verdict(measure, lowest, higher_is_better=False))


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


def _lowest(row: dict[str, Any]) -> list[float]:
    """Return a method's errors at the rate with its lowest mean; NaN if it diverges."""
    tried = [np.array(errors, float) for errors in row["errors"].values()]
    mean = lambda errors: np.inf if np.isnan(errors).any() else errors.mean()
    return min(tried, key=mean).tolist()


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
    figure, axes = report.panels(1, 2, width=6.2, height=4.4)
    left, right = axes[0]
    for row in mine:
        name, style = row["method"], STYLES[row["method"]]
        curve = [np.nan if error is None else error for error in row["curve"]]
        left.plot(rates, curve, label=name, **style)
        dots = {"color": style["color"], "linestyle": ""}
        for rate, errors in row["errors"].items():
            stable = [error for error in errors if error is not None]
            at = [float(rate)] * len(stable)
            left.plot(at, stable, marker="o", markersize=3, alpha=0.5, **dots)
        measured = [np.nan if value is None else value for value in MEASURED[name]]
        left.plot(MEASURED_RATES, measured, marker="x", markersize=8, **dots)
        right.plot(row["path"]["weight"], linewidth=1, label=name, **style)
    left.axhline(0.0025, color="#666666", linewidth=0.8, linestyle=":")
    left.text(
        0.01, 0.0025, "noise alone", fontsize=8, va="bottom", color="#666666",
        transform=left.get_yaxis_transform(),
    )  # fmt: skip
    left.set(ylim=(0.002, 0.05), xlabel="learning rate η (×: measured elsewhere)")
    left.set_ylabel("mean squared one-step error")
    left.set_title("A line ends where a walk diverges")
    report.log_ticks(left, "xy")
    path = mine[0]["path"]
    truth = np.array(path["truth"])
    first = len(truth) * 3 // 4
    right.plot(truth, color="#bbbbbb", linewidth=4, label="true weight", zorder=1)
    low, high = truth[first:].min() - 0.1, truth[first:].max() + 0.1
    right.set(xlabel="time step", ylabel="first weight", ylim=(low, high))
    right.set_xlim(first, len(truth))
    right.set_title(f"One walk, followed with η = {path['learning_rate']:g}")
    report.label_ends(left, right)
    return figure


def draw_weather(rows: list[dict[str, Any]]) -> Figure:
    """Draw prediction errors over 60 days, and errors in 2015, for each set of inputs.

    The curves are differences from the error of persistence (predict today's maximum),
    because the error itself changes with the seasons much more than with the method.
    """
    mine = [row for row in rows if row["stream"] == "seattle"]
    sets = list(dict.fromkeys(row["inputs"] for row in mine))
    figure, axes = report.panels(
        len(sets), 2, width=6, height=3.6, gridspec_kw={"width_ratios": [3, 1.3]}
    )
    for (curves, bars), inputs in zip(axes, sets, strict=True):
        own = [row for row in mine if row["inputs"] == inputs]
        _draw_over_time(curves, own)
        curves.set_title(f"inputs: {inputs}")
        names = [row["method"] for row in own]
        errors = [row["2015"] for row in own]
        colours = [STYLES[name]["color"] for name in names]
        shown = bars.barh(names, errors, color=colours)
        bars.bar_label(shown, fmt="%.2f", padding=3, fontsize=8)
        bars.invert_yaxis()
        bars.margins(x=0.2)
        bars.set(xlabel="error in 2015, °C", title="whole of 2015")
        bars.grid(visible=False)
    report.label_ends(*axes[:, 0])
    return figure


def _draw_over_time(axis: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw errors over 60 days, less the error of persistence."""
    window = np.ones(60) / 60
    error = lambda row: np.sqrt(np.convolve(np.square(row["errors"]), window, "valid"))
    base = next(error(row) for row in rows if row["method"] == "persistence")
    for row in rows:
        days = np.array(row["days"], "datetime64[D]")[len(window) - 1 :]
        later = days >= np.datetime64("2013-01-01")
        gain = error(row) - base[-len(days) :]
        axis.plot(
            days[later], gain[later], label=row["method"], linewidth=1.3,
            **STYLES[row["method"]],
        )  # fmt: skip
    axis.axvspan(*np.array(["2015-01-01", "2015-12-31"], "datetime64[D]"),
                 color="#eeeeee", zorder=0)  # fmt: skip
    locator = AutoDateLocator(maxticks=8)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.set_ylabel("error over 60 days,\n°C above persistence")
