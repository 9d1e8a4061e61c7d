"""The tables and pictures of `proben1`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

ROUNDING = 0.005  # a published figure has two decimals, its deviation too
HEADER = ["", "test error", "median", "early", "paper", "", "class. %", "paper"]
HEADER += ["epochs", "paper"]
EARLY = 0.5  # a run that takes less than this part of the median's epochs is early


def show(table: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows of a table, those of each variant by themselves."""
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        lines = [_line(row) for row in mine]
        kinds = [verdict(row) for row in mine]
        count = lambda kind, kinds=kinds: kinds.count(kind)
        report.show_table(
            f"Proben1, table {table}, {variant}",
            HEADER,
            lines,
            f"Mean (standard deviation) of {len(mine[0]['test'])} runs. Of {len(mine)} "
            f"test errors {count('')} are within 2 standard deviations of the paper's; "
            f"of {count('median')} more the median is, and a few runs that stopped "
            f"early move the mean (early: their number); {count('off')} are off. "
            "The paper's figures are of Rprop+.",
        )


def verdict(row: dict[str, Any]) -> str:
    """Tell whether the mean test error is the paper's, or the median is, or neither."""
    mean, deviation = row["published"]["test"]
    limit = 2 * (deviation + ROUNDING) + ROUNDING
    close = lambda value: abs(value - mean) <= limit
    if close(np.mean(row["test"])):
        return ""
    return "median" if close(np.median(row["test"])) else "off"


def num_early(row: dict[str, Any]) -> int:
    """Count the runs that stopped long before the others."""
    return int(np.sum(row["total"] < EARLY * np.median(row["total"])))


def _line(row):
    paper = row["published"]
    median, early = f"{np.median(row['test']):.2f}", str(num_early(row) or "")
    line = [row["set"], _ours(row["test"], 2), median, early]
    line += [_mean_sd(paper["test"], 2), verdict(row)]
    for key, digits in {"classification": 2, "total": 0}.items():
        line += [_ours(row[key], digits), _mean_sd(paper[key], digits)]
    return line


def _ours(values, digits):
    return _mean_sd((np.mean(values), np.std(values, ddof=1)), digits)


def _mean_sd(pair, digits):
    mean, deviation = pair
    return f"{mean:.{digits}f} ({deviation:.{digits}f})"


def draw(table: str, rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors and epochs relative to the paper's, which are 1."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(14, 8), layout="constrained")
    panels = {"test": "test error", "total": "epochs"}
    for axis, (key, label) in zip(figure.subplots(2, 1), panels.items(), strict=True):
        first = {row["set"]: row["published"][key] for row in rows}
        spread = [2 * (first[name][1] + ROUNDING) / first[name][0] for name in names]
        style = {"color": "#ddd", "width": 0.9, "label": "paper ± 2 sd"}
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
            dots = {"fmt": "o", "markersize": 4, "color": f"C{i}", "label": variant}
            axis.errorbar(at, means, yerr=2 * errors, **dots)
            if key == "test":
                medians = [np.median(row[key]) for row in mine] / np.array(scale)
                axis.plot(at, medians, "_", color=f"C{i}", markersize=9)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(names)), names, rotation=60)
        axis.set(ylabel=f"{label}, relative to the paper's", yscale="log")
        axis.yaxis.set_major_formatter("{x:.2g}")
        axis.yaxis.set_minor_formatter("{x:.2g}")
        axis.tick_params(axis="y", which="minor", labelsize=8)
        axis.margins(x=0.01)
        axis.grid(alpha=0.3, axis="y", which="both")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    figure.suptitle(
        f"Proben1, table {table}: means ± 2 standard errors of "
        f"{len(rows[0]['test'])} runs; dashes: medians"
    )
    return figure


def _standard_error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))
