"""Table and curves of `language`, with published losses; sampled text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

COLOURS = {"kept": report.COLOURS[0], "reset": report.COLOURS[1]}
NANOGPT = "nanoGPT's readme"
PUBLISHED = {"small transformer, on a CPU": 1.88, "transformer, on a GPU": 1.47}
MEASURES = ("nats", "bits", "nats, reset", "train", "params", "epochs", "minutes")


def show(
    rows: Sequence[dict[str, Any]], source: str, config: Any, published: bool
) -> None:
    """Print the table of losses in nats and bits per character.

    Args:
      rows: one row for each model, with its loss in nats per character.
      source: name of the text.
      config: settings of the study.
      published: whether to show published losses (they exist for Tiny Shakespeare).
    """
    ours = {}
    for row in rows:
        nats = row["nats"]
        many = (
            [report.bits(each) for each in nats]
            if isinstance(nats, list)
            else report.bits(nats)
        )
        ours[row["model"]] = {"nats": nats, "bits": many}
        if "state" in row:
            ours[row["model"]] |= {
                "nats, reset": row["nats_reset"],
                "train": row["train"],
                "params": f"{row['params'] / 1000:.0f}K",
                "epochs": f"{row['epochs']:.2g}",
                "minutes": f"{row['wall_seconds'] / 60:.1f}",
            }
    others = [
        report.Published(model, {"nats": nats, "bits": report.bits(nats)}, NANOGPT)
        for model, nats in PUBLISHED.items()
    ]
    report.show_beside(
        f"{source}, {config.rule} × {config.update}",
        MEASURES,
        ours,
        others if published else [],
        "Nats and bits per character of the last tenth of the text (lower is better), "
        "in 64 streams that first read 128 unscored characters. Reset: the state is "
        f"set to zeros every {config.window} characters. Train: mean of the last 50 "
        "updates. Minutes: all seeds together.",
    )
    networks = {row["model"]: row["nats"] for row in rows if "state" in row}
    ngrams = {row["model"]: row["nats"] for row in rows if "state" not in row}
    sign: Any = {"higher_is_better": False, "unit": " nats"}
    said = [report.verdict("loss", networks, **sign)] if networks else []
    if networks and ngrams:
        best = min(ngrams, key=lambda model: ngrams[model])
        said.append(report.against(best, ngrams[best], networks, **sign))
    if said:
        report.conclude(" ".join(filter(None, said)))


def show_sample(sample: str, temperature: float) -> None:
    """Print text sampled from a network."""
    console = report.wide_console()
    console.print(f"\nWritten at temperature {temperature:g}:\n", style="bold")
    console.print(sample, markup=False, highlight=False, emoji=False)


def draw(rows: Sequence[dict[str, Any]], source: str, tested: int) -> Figure:
    """Draw the loss, in nats per character, against the number of updates.

    A thin line shows the test loss of one seed, a thick line the mean over seeds, and a
    dashed line the mean training loss. A dotted line is the test loss of an n-gram
    model.
    """
    figure, axes = report.panels(width=8.5, height=4.6)
    axis = axes[0, 0]
    for row in (row for row in rows if "state" in row):
        colour, steps = COLOURS[row["state"]], row["curve_steps"]
        curve, train = np.array(row["curve"]), np.array(row["train_curve"])
        axis.plot(steps, curve, color=colour, linewidth=0.6, alpha=0.5)
        label = f"{row['model']}, test"
        axis.plot(steps, curve.mean(axis=1), color=colour, label=label)
        style = {"color": colour, "linestyle": "--", "linewidth": 1}
        label = f"{row['model']}, training"
        axis.plot(steps, train.mean(axis=1), label=label, **style)
    ngrams = [row for row in rows if "state" not in row]
    for i, row in enumerate(ngrams):
        shade = report.shade("#000000", 0.25 + 0.75 * i / max(1, len(ngrams) - 1))
        style = {"color": shade, "linestyle": ":"}
        axis.axhline(row["nats"], label=row["model"], zorder=1, **style)
    name = Path(source).name  # without the folder of a user's file
    title = f"{name}: loss on the first {tested:,} test characters"
    axis.set(title=title, xlabel="updates", ylabel="nats per character")
    report.label_ends(axis)
    return figure
