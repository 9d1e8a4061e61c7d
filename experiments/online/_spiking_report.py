"""Tables of the study spiking, and its raster picture."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

# {training: (losses that NEST's tests demand, losses of the original program)}. The
# tests have no losses of the original program for two sequences in a mini-batch.
REFERENCES: dict[str, tuple[tuple[float, ...], tuple[float, ...] | None]] = {
    "regression": (
        (101.964356999041, 103.466731126205, 103.340607074771, 103.680244037686,
         104.412775748752),
        (101.964363098144, 103.466735839843, 103.340606689453, 103.680244445800,
         104.412780761718),
    ),
    "evidence_1": (
        (0.741152550006, 0.740388187700, 0.665785233177, 0.663644193322,
         0.729428962844),
        (0.741152524948, 0.740388214588, 0.665785133838, 0.663644134998,
         0.729429066181),
    ),
    "evidence_2": (
        (0.702163370672, 0.735555303152, 0.740354864111, 0.683882815282,
         0.707841122268),
        None,
    ),
}  # fmt: skip


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print our losses beside the published ones, and the rules side by side."""
    for row in (row for row in rows if "published" in row):
        nest, tensorflow = REFERENCES[row["published"]]
        lines = []
        for i, loss in enumerate(row["losses"]):
            other = "" if tensorflow is None else f"{tensorflow[i]:.12f}"
            gap = f"{abs(loss - nest[i]):.0e}"
            lines.append([str(i + 1), f"{loss:.12f}", f"{nest[i]:.12f}", other, gap])
        report.show_table(
            f"{row['published']}: losses of 100 neurons, by e-prop",
            ["update", "bpvariants", "NEST", "TensorFlow", "difference to NEST"],
            lines,
            "Loss before each update, in float64; NEST and TensorFlow: published.",
        )
        gap = max(abs(a / b - 1) for a, b in zip(row["losses"], nest, strict=False))
        report.conclude(
            f"The losses of {row['published']} differ from those of NEST by at most "
            f"{report.number(float(f'{gap:.1g}'))} of their size."
        )
    for task in ("regression", "evidence"):
        found = [row for row in rows if row.get("task") == task]
        lines = [
            [
                row["rule"],
                report.mean_sd([losses[0] for losses in row["losses"]]),
                report.mean_sd([np.mean(losses[-10:]) for losses in row["losses"]]),
                f"{np.mean(row['cosine']):.3f}",
                f"{row['seconds']:.2f}",
            ]
            for row in found
        ]
        if lines:
            report.show_table(
                f"{task}: {config.units} neurons, {config.updates} updates by Adam",
                ["rule", "first loss", "loss, last 10 updates", "cosine", "s/update"],
                lines,
                "Loss: mean ± standard deviation over the seeds, lower is better. "
                f"Cosine: of the first gradient to that of {config.rules[0]}, weights "
                "of the readout left out. s/update: time of one network's update, with "
                "compilation.",
            )
            late = {
                row["rule"]: [float(np.mean(losses[-10:])) for losses in row["losses"]]
                for row in found
            }
            said = report.verdict(
                "loss of the last 10 updates", late, higher_is_better=False
            )
            report.conclude(said, about=task)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw input spikes, spikes and outputs after five updates, a column a task."""
    rows = [row for row in rows if "spikes" in row]
    figure, axes = report.panels(
        3, len(rows), width=6.4, height=2.4, sharex="col",
        gridspec_kw={"height_ratios": [1, 2, 1.2]},
    )  # fmt: skip
    for column, row in zip(axes.T, rows, strict=True):
        for axis, name in zip(column[:2], ("inputs", "spikes"), strict=True):
            t, neuron = np.array(row[name]).reshape(-1, 2).T
            axis.plot(t, neuron, "|", markersize=2.5, color="#333333", alpha=0.7)
            axis.set_ylabel("input" if name == "inputs" else "neuron")
        column[0].set_title(row["published"].replace("_", ", batch "))
        output, target = (np.array(row[name]) for name in ("output", "target"))
        colors = ["#0072b2", "#d55e00"]
        for k in range(output.shape[1]):
            column[2].plot(output[:, k], color=colors[k], label=f"output {k + 1}")
        if output.shape[1] == 1:
            column[2].plot(target, color="#666666", linestyle="--", label="target")
        column[2].set(xlabel="time step, ms", ylabel="output")
    report.legend_below(figure)
    return figure
