"""Tables and pictures of `yin_yang`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments import data, report

# {(network, rule): (mean, standard deviation)} of published test accuracies in %. Those
# of 4-30-3 are over 20 runs (Kriener, Göltz, Petrovici 2022); those of 4-120-3 are from
# a later table of the same data.
PUBLISHED = {
    ("4-30-3", "backprop"): (97.6, 1.5),
    ("4-30-3", "frozen"): (85.5, 5.8),
    ("4-30-3", "linear"): (63.8, 1.0),
    ("4-120-3", "backprop"): (98.7, 0.3),
    ("4-120-3", "linear"): (64.3, 0.2),
}
NAMES = {
    "backprop": "backpropagation",
    "frozen": "frozen lower weights",
    "linear": "linear",
    "fa": "FA",
    "dfa": "DFA",
    "usf": "uSF",
    "brsf": "brSF",
    "frsf": "frSF",
    "rbp": "settling, RBP",
    "jfb": "settling, JFB",
    "ep": "settling, EP",
}
HEADER = ["", "test %", "95 % interval", "worst run", "− backprop", "published", "∠"]
CLASSES = ("yang", "yin", "dots")
COLOURS = ("#c9d7e8", "#f3d9b1", "#b7dcc4")  # of regions
STRONG = ("#0072b2", "#d55e00", "#009e73")  # of points
SIDE = 96
Rows = Sequence[dict[str, Any]]


def show(rows: Rows, config: Any) -> None:
    """Print a table for each network: accuracies, intervals, published accuracies."""
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == name]
        report.show_table(
            f"Yin-Yang, network {name}",
            [*HEADER, "s"],
            [[*line(row, mine), f"{row['seconds']:.0f}"] for row in mine],
            f"Accuracy in % on 1000 test points after {config.epochs} epochs of Adam "
            f"with learning rate {mine[0]['rate']:g}: mean ± standard deviation over "
            f"{len(mine[0]['accuracy'])} runs (higher is better), the 95 % interval of "
            "the mean, and the worst run.\n− backprop: mean difference to "
            "backpropagation, paired by seed, with its 95 % interval.\nPublished: "
            "Kriener, Göltz, Petrovici 2022; for 4-120-3, a later table of the same "
            "data.\n∠: angle in degrees between the rule's and the exact gradient "
            "below the output layer, at the end of training, median over runs. s: "
            "seconds of all runs together, with compilation.",
        )
        scores = {NAMES[row["rule"]]: row["accuracy"] for row in mine}
        if len(scores) > 1:
            said = report.verdict(
                "test accuracy", scores, higher_is_better=True, unit=" %"
            )
            report.conclude(said, about=name)


def line(row: dict[str, Any], rows: Rows) -> list[str]:
    """Return the cells of a rule's row; `rows` are all rows of the same network."""
    found = report.interval(row["accuracy"])
    by_rule = {each["rule"]: each["accuracy"] for each in rows}
    difference = ""
    if row["rule"] != "backprop" and "backprop" in by_rule:
        pairs = zip(row["accuracy"], by_rule["backprop"], strict=True)
        paired = report.interval([mine - exact for mine, exact in pairs])
        difference = _with_interval(paired)
    published = PUBLISHED.get((row["network"], row["rule"]))
    angles = [each for each in row["angle"] if each is not None]
    return [
        NAMES[row["rule"]],
        _mean_sd(row["accuracy"]),
        f"{found.low:.1f} to {found.high:.1f}" if math.isfinite(found.low) else "–",
        f"{min(row['accuracy']):.1f}",
        difference,
        f"{published[0]:.1f} ± {published[1]:.1f}" if published else "",
        f"{np.median(angles):.0f}" if angles else "–",
    ]


def markdown(rows: Rows) -> str:
    """Return the tables of all networks, for a page in Markdown."""
    tables = []
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == name]
        lines = [[name, *HEADER[1:]], ["---"] * len(HEADER)]
        lines += [line(row, mine) for row in mine]
        tables.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(tables) + "\n"


def _mean_sd(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def _with_interval(found: report.Interval) -> str:
    minus = lambda value: f"{value:+.1f}".replace("-", "−")
    if not math.isfinite(found.low):
        return minus(found.mean)
    return f"{minus(found.mean)} ({minus(found.low)} to {minus(found.high)})"


def draw_accuracy(rows: Rows) -> Figure:
    """Draw the accuracy of each run, means with intervals, and published accuracies.

    There is one panel for each network.
    """
    names = list(dict.fromkeys(row["network"] for row in rows))
    rules = [rule for rule in NAMES if rule in {row["rule"] for row in rows}]
    figure, axes = report.panels(
        1, len(names), width=5.4, height=1.4 + 0.42 * len(rules), sharey=True
    )
    for name, axis in zip(names, axes[0], strict=True):
        for row in rows:
            if row["network"] != name:
                continue
            y, runs = rules.index(row["rule"]), row["accuracy"]
            spread = y + 0.16 * np.linspace(-1, 1, len(runs)) if len(runs) > 1 else [y]
            axis.plot(runs, spread, ".", color="#9aa7b5", markersize=4)
            found = report.interval(runs)
            if math.isfinite(found.low):
                axis.plot([found.low, found.high], [y, y], color="#0072b2", lw=3)
            axis.plot(found.mean, y, "o", color="#0072b2", markersize=6)
            published = PUBLISHED.get((name, row["rule"]))
            if published:
                axis.errorbar(
                    published[0], y + 0.32, xerr=published[1], fmt="s", color="#d55e00",
                    markersize=4, capsize=2,
                )  # fmt: skip
        axis.set_yticks(range(len(rules)), [NAMES[rule] for rule in rules])
        axis.set(title=f"network {name}", xlabel="test accuracy, %")
    axes[0, 0].set_ylim(len(rules) - 0.4, -0.6)
    blue = {"color": "#0072b2", "marker": "o"}
    dot = {"color": "#9aa7b5", "marker": ".", "linestyle": ""}
    square = {"color": "#d55e00", "marker": "s"}
    labels = {"mean and its 95 % interval": blue, "one run": dot}
    report.legend_below(figure, labels | {"published mean ± sd": square})
    return figure


def describe(rows: Rows) -> str:
    """Say in words what the picture of the regions shows."""
    shares = [
        f"{NAMES[row['rule']]} {row['regions_accuracy']:.1f} % correct" for row in rows
    ]
    return (
        "The training points in the shape of the Yin-Yang symbol, then one disc for "
        "each rule, coloured by the class that the network finds at each point: "
        f"{', '.join(shares)}."
    )


def draw_regions(rows: Rows) -> Figure:
    """Draw the points of the classes, and the regions that one run of each rule finds.

    The first panel has the training points; the others have the test points that are
    misclassified.
    """
    columns = min(4, len(rows) + 1)
    figure, axes = report.panels(
        math.ceil((len(rows) + 1) / columns), columns, width=2.7, height=2.9
    )
    middle = (np.arange(SIDE) + 0.5) / SIDE
    xs, ys = np.meshgrid(middle, middle)
    outside = np.hypot(xs - 0.5, ys - 0.5) > 0.5
    for axis in axes.flat:
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set_axis_off()
    points, classes = data.yin_yang().train
    first, *others = axes.flat
    for i, name in enumerate(CLASSES):
        at = points[classes == i][:500]
        first.plot(at[:, 0], at[:, 1], ".", color=STRONG[i], markersize=2, label=name)
    first.set_title("training points", fontsize=10)
    test, wanted = data.yin_yang().test
    for row, axis in zip(rows, others, strict=False):
        grid = np.array(list(row["regions"]), int).reshape(SIDE, SIDE)
        axis.imshow(
            np.ma.masked_array(grid, outside), origin="lower", extent=(0, 1, 0, 1),
            cmap=ListedColormap(COLOURS), vmin=0, vmax=2, interpolation="nearest",
        )  # fmt: skip
        at = np.minimum((test[:, :2] * SIDE).astype(int), SIDE - 1)
        wrong = grid[at[:, 1], at[:, 0]] != wanted
        for i in range(len(CLASSES)):
            shown = test[wrong & (wanted == i)]
            axis.plot(shown[:, 0], shown[:, 1], ".", color=STRONG[i], markersize=3)
        title = f"{NAMES[row['rule']]}, {row['regions_accuracy']:.1f} %"
        axis.set_title(title, fontsize=10)
    dots = {"linestyle": "", "marker": "o"}
    report.legend_below(
        figure,
        {name: dots | {"color": STRONG[i]} for i, name in enumerate(CLASSES)},
    )
    return figure
