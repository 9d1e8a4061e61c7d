"""Tables and pictures of the study `proben1`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

ROUNDING = 0.005  # largest rounding error of published values (two decimals)
HEADER = ["", "test error", "median", "early", "paper", "", "class. %", "paper"]
HEADER += ["epochs", "paper"]
PAPER_RUNS = {"3": 10, "8": 60, "10": 60}
EARLY = 0.5  # a run is early if its number of epochs is below EARLY × the median


def show(table: str, rows: list[dict[str, Any]]) -> None:
    """Print a table of results for each variant of Rprop, with Prechelt's results."""
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        lines = [_line(row) for row in mine]
        kinds = [verdict(row) for row in mine]
        count = lambda kind, kinds=kinds: kinds.count(kind)
        report.show_table(
            f"Proben1, table {table}, {variant}",
            HEADER,
            lines,
            f"Mean ± standard deviation of {len(mine[0]['test'])} runs (lower is "
            f"better).\nEarly: runs with less than {EARLY:g} times the median number "
            "of epochs, which can move the mean. Median: only the median is within 2 "
            "standard deviations of the paper's mean; off: neither is.\n* marks a "
            "difference of more than 2 standard errors. Root mean square differences "
            f"in standard errors (1 is expected by chance): {_misfits(mine)}.",
        )
        report.conclude(
            f"{variant}: of {len(mine)} mean test errors, {count('')} are within 2 "
            "standard deviations of the paper's. Of the others, medians that are: "
            f"{count('median')}; off: {count('off')}."
        )


def verdict(row: dict[str, Any]) -> str:
    """Return whether our test errors agree with Prechelt's mean test error.

    The result is "" if our mean test error is close to Prechelt's. It is "median" if
    only our median test error is close to it, and "off" if neither of the two is.
    """
    mean, deviation = row["published"]["test"]
    limit = 2 * (deviation + ROUNDING) + ROUNDING
    close = lambda value: abs(value - mean) <= limit
    if close(np.mean(row["test"])):
        return ""
    return "median" if close(np.median(row["test"])) else "off"


def deviation(row: dict[str, Any], key: str) -> float:
    """Return our mean of a quantity minus Prechelt's mean, in standard errors."""
    mean, deviation = row["published"][key]
    rounding = ROUNDING if key in ("test", "classification", "gl") else 0.5
    theirs = (deviation + rounding) / np.sqrt(PAPER_RUNS[row["table"]])
    error = np.hypot(theirs, _standard_error(row[key]))
    return float((np.mean(row[key]) - mean) / error)


def _misfits(rows):
    names = {"test": "test error", "classification": "class. %", "total": "epochs"}
    names |= {"relevant": "epochs to least validation error", "gl": "GL"}
    size = lambda key: np.sqrt(np.mean([deviation(row, key) ** 2 for row in rows]))
    return ", ".join(f"{name} {size(key):.1f}" for key, name in names.items())


def num_early(row: dict[str, Any]) -> int:
    """Count the runs with fewer epochs than EARLY times the median number of epochs."""
    return int(np.sum(row["total"] < EARLY * np.median(row["total"])))


def _line(row):
    paper = row["published"]
    median, early = f"{np.median(row['test']):.2f}", str(num_early(row) or "")
    line = [row["set"], report.mean_sd(row["test"]), median, early]
    mark = "*" if abs(deviation(row, "test")) > 2 else ""
    line += [_published(paper["test"], 2), f"{mark} {verdict(row)}".strip()]
    for key, digits in {"classification": 2, "total": 0}.items():
        line += [report.mean_sd(row[key]), _published(paper[key], digits)]
    return line


def _published(pair, digits):
    mean, deviation = pair
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def draw(table: str, rows: list[dict[str, Any]]) -> Figure:
    """Draw our test errors and numbers of epochs, each divided by Prechelt's value."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure, axes = report.panels(2, 1, width=13, height=3.9)
    panels = {"test": "test error", "total": "epochs"}
    for axis, (key, label) in zip(axes.flat, panels.items(), strict=True):
        first = {row["set"]: row["published"][key] for row in rows}
        spread = [2 * (first[name][1] + ROUNDING) / first[name][0] for name in names]
        style = {"color": "#e4e4e4", "width": 0.9, "label": "paper ± 2 sd"}
        axis.bar(
            range(len(names)),
            2 * np.array(spread),
            bottom=1 - np.array(spread),
            **style,
        )
        for i, variant in enumerate(variants):
            mine = [row for row in rows if row["variant"] == variant]
            shift = 0.8 * ((i + 0.5) / len(variants) - 0.5)
            at = [names.index(row["set"]) + shift for row in mine]
            scale = [row["published"][key][0] for row in mine]
            means = [np.mean(row[key]) for row in mine] / np.array(scale)
            errors = [_standard_error(row[key]) for row in mine] / np.array(scale)
            dots = {"fmt": "osD^v"[i % 5], "markersize": 4, "label": variant}
            dots |= {"color": report.update_style(variant)["color"]}
            axis.errorbar(at, means, yerr=2 * errors, **dots)
            if key == "test":
                medians = [np.median(row[key]) for row in mine] / np.array(scale)
                axis.plot(at, medians, "_", color=dots["color"], markersize=9)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(names)), names, rotation=60)
        axis.set(ylabel=f"{label}, relative to the paper's", ylim=_limits(rows, key))
        axis.margins(x=0.01)
        axis.grid(visible=False, axis="x")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(
        f"Proben1, table {table}: means ± 2 standard errors of "
        f"{len(rows[0]['test'])} runs; dashes: medians"
    )
    return figure


def _limits(rows, key):
    """Return limits of the y axis that fit our means.

    Prechelt's standard deviations may go beyond the limits of the axis.
    """
    ratios = [np.mean(row[key]) / row["published"][key][0] for row in rows]
    errors = [_standard_error(row[key]) / row["published"][key][0] for row in rows]
    low, high = np.min(np.subtract(ratios, errors)), np.max(np.add(ratios, errors))
    return min(1, low) - 0.1, max(1, high) + 0.1


def _standard_error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))
