"""Table and picture of the study `rprop_minibatch`."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from experiments import report

FLOOR = 1e-6  # losses below this value are drawn at this value
TARGET = 0.01  # the table shows the first epoch with a training loss below TARGET
COMPARED = 1e-3  # lower losses are not compared, because rounding errors dominate


def show(rows: list[dict[str, Any]], images: int) -> None:
    """Print a table of all methods, each at its best learning rate or step size."""
    header = ["", "batches", "rate", "updates", "train loss", "test %"]
    header += [f"to {TARGET:g}", "median Δ", "at Δ_min", "flips"]
    lines = [_line(row) for row in rows if row["best"]]
    title = f"{images} digits, MLP 64-32-10, {len(rows[0]['loss'][0])} epochs"
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(r["rate"] for r in rows))
    up, down = math.log(1.2), math.log(2)
    note = (
        f"rate: Δ₀, or Adam's learning rate; the best of {rates} by the final training "
        "loss.\nTrain loss (lower is better) and test accuracy at the end: mean ± "
        "standard deviation over seeds. A loss of 0 is below the precision of float32."
        f"\nTo {TARGET:g}: epochs until the loss is first below it. At Δ_min: share of "
        "step sizes that cannot shrink.\nFlips: share of gradient elements whose sign "
        "changed at the last update of an epoch, mean of the last tenth of epochs. "
        "Step sizes shrink if this share is above "
        f"{up / (down + 2 * up):.0%} in rprop, or "
        f"{up / (down + up):.0%} in rprop_minus; pure noise gives 33% and 50%.\n"
        'probabilistic_rprop moves by Δ, "expected" by (2 p − 1) Δ, p = P(g > 0).'
    )
    report.show_table(title, header, lines, note + _same(rows))
    losses = {
        f"{row['method']} on {row['batches']} batches": [run[-1] for run in row["loss"]]
        for row in rows
        if row["best"]
    }
    said = report.verdict("final training loss", losses, higher_is_better=False)
    report.conclude(said)


def _line(row: dict[str, Any]) -> list[str]:
    loss, accuracy = (_numbers(row, name)[:, -1] for name in ("loss", "accuracy"))
    rare = max(1, len(row["flips"][0]) // 10)
    return [
        row["method"],
        f"{row['batches']} {row['batch'] or ''}".strip(),
        f"{row['rate']:g}",
        str(row["updates"]),
        report.mean_sd(loss.tolist()),
        report.mean_sd(accuracy.tolist()),
        _epochs(_numbers(row, "loss")),
        _unless_nan(_numbers(row, "median_step")[:, -1], ".2g"),
        _unless_nan(_numbers(row, "at_min")[:, -1], ".0%"),
        _unless_nan(_numbers(row, "flips")[:, -rare:], ".0%"),
    ]


def _numbers(row: dict[str, Any], name: str) -> np.ndarray:
    """Return the measurements with a given name, [seeds, epochs]; None becomes NaN."""
    return np.array(row[name], float)


def _epochs(losses: np.ndarray) -> str:
    """Return the mean number of epochs to a loss below TARGET, and a count of runs.

    The count is the number of runs that reached a loss below TARGET. The count is left
    out if all runs reached it.
    """
    came = [int(np.argmax(run)) + 1 for run in losses < TARGET if run.any()]
    if not came:
        return "–"
    missing = f" ({len(came)}/{len(losses)})" if len(came) < len(losses) else ""
    return f"{np.mean(came):.0f}{missing}"


def _unless_nan(numbers: np.ndarray, form: str) -> str:
    mean = float(np.mean(numbers))
    return "–" if np.isnan(mean) else format(mean, form)


def _same(rows: list[dict[str, Any]]) -> str:
    """Return a note on the difference of losses between MultiSteps and full batches.

    MultiSteps averages the gradients of an epoch's mini-batches, then updates once.
    """
    full = {row["rate"]: row for row in rows if row["batches"] == "full"}
    added = [row for row in rows if row["method"].startswith("MultiSteps")]
    if not added or len(full) < len(added):
        return ""
    most = 0.0
    for row in added:
        here, there = _numbers(row, "loss"), _numbers(full[row["rate"]], "loss")
        early = np.minimum.accumulate(there, axis=1) > COMPARED
        most = max(most, *abs(here[early] / there[early] - 1), 0.0)
    return (
        f"\nUntil the loss is below {COMPARED:g}, the loss of MultiSteps differs from "
        f"that of full batches by a factor of at most 1 ± {most:.2g}, at any rate."
    )


def draw(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Draw training losses, step sizes and sign changes of gradients against epochs."""
    figure, axes = report.panels(1, 3, width=4.8, height=4.2)
    loss, step, flips = axes[0]
    shown = [row for row in rows if row["best"]]
    for i, row in enumerate(shown):
        epochs = 1 + np.arange(len(row["loss"][0]))
        style = _style(shown, i)
        values = np.maximum(_numbers(row, "loss"), FLOOR)
        for run in values:
            loss.plot(epochs, run, **style, lw=0.5, alpha=0.35)
        name = f"{row['method']}, {row['batches']} batches"
        label = f"{name}, rate {row['rate']:g}"
        loss.plot(epochs, np.median(values, axis=0), label=label, lw=1.6, **style)
        for axis, key in ((step, "median_step"), (flips, "flips")):
            numbers = _numbers(row, key)
            if np.isfinite(numbers).all():
                axis.plot(epochs, numbers.mean(axis=0), lw=1.6, **style)
    loss.set_ylabel("training loss (cross entropy, nats)")
    loss.set_title(f"median loss (thin: seeds), at least {report.number(FLOOR)} drawn")
    step.set_ylabel("median step size Δ")
    step.axhline(1e-6, color="#888888", lw=0.8)
    step.set_title("step sizes (line: Δ_min of rprop)")
    flips.set(ylabel="share of gradients", ylim=(0, None))
    flips.set_title("sign changes at the last update of an epoch")
    for axis in axes[0]:
        axis.set_xlabel("epochs")
    for axis in (loss, step):
        report.log_ticks(axis)
    report.legend_below(figure)
    return report.save_picture(folder, "minibatch", figure)


def _style(rows: list[dict[str, Any]], i: int) -> dict[str, Any]:
    """Return the style of a method: full batches black, others colours in order."""
    if rows[i]["method"].startswith("adam"):
        return report.update_style("adam")
    others = [row for row in rows if not row["method"].startswith("adam")]
    at = others.index(rows[i])
    colours = [colour for colour in report.COLOURS if colour != report.COLOURS[1]]
    dash = ("-", "--", "-.", ":")[at % 4]
    return {"color": colours[at % len(colours)], "linestyle": dash}
