"""Table and pictures of `images`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

NAMES = {
    "mlp_300": "784-300-10",
    "mlp_500_150": "784-500-150-10",
    "conv": "conv 16, conv 32, dense",
    "gru_rows": "GRU, row by row",
    "full_batch": "784-300-10, full batch",
}
STYLES = {  # {job: colour and line style of its curve}
    name: {"color": report.COLOURS[i], "linestyle": ("-", "--")[i // 4]}
    for i, name in enumerate(NAMES)
}
ERROR = "test error %"
LECUN, BAI = "LeCun's table, second hand", "Bai et al. 2018, table 1"
BIOTORCH, FUNG = "BioTorch, its best on test", "Fung et al. 2022, weights' names"
THIRD = "third party, 35 epochs"
PUBLISHED = {
    "mlp_300": [report.Published("784-300-10, squared error", {ERROR: 4.7}, LECUN)],
    "mlp_500_150": [report.Published("784-500-150-10", {ERROR: 2.95}, LECUN)],
    "conv": [
        report.Published("LeNet", {ERROR: 0.91}, BIOTORCH),
        report.Published("explicit convolutional", {ERROR: 0.71}, FUNG),
    ],
    "gru_rows": [report.Published("GRU, pixel by pixel", {ERROR: 3.8}, BAI)],
    "full_batch": [
        report.Published("784-128-10 by iRprop⁻", {ERROR: 4.85}, THIRD),
        report.Published("784-128-10 by Rprop⁻", {ERROR: 4.71}, THIRD),
    ],
}
LINEAR = report.Published("linear", {ERROR: 12.0}, LECUN)


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the test errors, and published errors of similar networks."""
    measures = (ERROR, "rule × update", "epochs", "weights", "ms")
    ours = {
        NAMES[row["job"]]: {
            ERROR: [round(error, 4) for error in row["test_error"]],
            "rule × update": f"{row['rule']} × {row['update']}",
            "epochs": f"{row['epochs']:.3g}",
            "weights": f"{row['params']:,}",
            "ms": f"{row['ms_per_step']:.1f}",
        }
        for row in rows
    }
    published = [one for row in rows for one in PUBLISHED[row["job"]]]
    report.show_beside(
        "MNIST: classification of handwritten digits",
        measures,
        ours,
        [LINEAR, *published],
        f"Lower is better. Ours: cross-entropy, {config.train:,} training images "
        f"without distortions, {config.test:,} test images. Settings come from a few "
        "trials that also looked at test images. ms: time of a step, all seeds "
        "together. Pixel by pixel is a harder task than row by row.",
    )
    _conclude(rows)


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which networks have the lowest error, and which are better than LeCun's."""
    errors = {NAMES[row["job"]]: row["test_error"] for row in rows}
    said = report.verdict(
        "test error", errors, higher_is_better=False, unit=" %", limits=(0, 100)
    )
    known = {
        NAMES[job]: float(PUBLISHED[job][0].scores[ERROR])
        for job in ("mlp_300", "mlp_500_150")
        if NAMES[job] in errors
    }
    ours = {name: errors[name] for name in known}
    table = report.against(
        "the same network in LeCun's table, which was trained with the squared error",
        known,
        ours,
        higher_is_better=False,
        unit=" points",
    )
    report.conclude(f"{said} {table}".strip())


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs.

    A thin line shows one seed, and a thick line the mean over seeds. A triangle at the
    right edge is LeCun's test error of the same network.
    """
    figure, axes = report.panels(width=9, height=4.8)
    axis = axes[0, 0]
    for row in rows:
        epochs = [point["epochs"] for point in row["curve"]]
        errors = np.array([point["test_error"] for point in row["curve"]])
        style, last = STYLES[row["job"]], np.mean(row["test_error"])
        label = f"{NAMES[row['job']]}, {last:.2f} %"
        if row["job"].startswith("mlp"):
            error = float(PUBLISHED[row["job"]][0].scores[ERROR])
            label += f" (LeCun's: {error:g} %)"
            axis.plot(
                1, error, marker="<", color=style["color"], clip_on=False, zorder=4,
                transform=axis.get_yaxis_transform(),
            )  # fmt: skip
        axis.plot(epochs, errors.mean(axis=1), marker="o", ms=4, label=label, **style)
        axis.plot(epochs, errors, alpha=0.35, linewidth=0.8, **style)
    axis.set(xlabel="epochs", ylabel="test error, %")
    axis.set_title("MNIST: test error during training (triangles: LeCun's table)")
    report.log_ticks(axis, "xy")
    report.label_ends(axis)
    return figure


def draw_mistakes(
    rows: list[dict[str, Any]], test: tuple[np.ndarray, np.ndarray]
) -> Figure:
    """Draw the first test images that each network misclassifies."""
    images, labels = test
    width = max(1, *(len(row["mistakes"]) for row in rows))
    figure = Figure(figsize=(max(4.6, 1.9 + 0.75 * width), 1.05 * len(rows) + 0.4))
    figure.suptitle("First mistakes: true digit → predicted digit")
    axes = figure.subplots(len(rows), width, squeeze=False)
    figure.subplots_adjust(left=0.22, right=0.99, bottom=0.02, top=0.86, hspace=0.45)
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].text(
            -0.3, 0.5, NAMES[row["job"]], transform=line[0].transAxes, ha="right",
            va="center", fontsize=9,
        )  # fmt: skip
        for axis, (i, said) in zip(line, row["mistakes"], strict=False):
            axis.imshow(images[i], cmap="gray_r")
            axis.set_title(f"{labels[i]} → {said}", fontsize=9, pad=2)
    return figure
