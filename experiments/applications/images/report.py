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
COLOURS = dict(zip(NAMES, ("C0", "C4", "C2", "C1", "C3"), strict=True))
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


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs.

    A thin line shows one seed, and a thick line the mean over seeds.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        epochs = [point["epochs"] for point in row["curve"]]
        errors = np.array([point["test_error"] for point in row["curve"]])
        colour, last = COLOURS[row["job"]], np.mean(row["test_error"])
        label = f"{NAMES[row['job']]}: {last:.2f} %"
        axis.plot(epochs, errors.mean(axis=1), "o-", color=colour, label=label)
        axis.plot(epochs, errors, color=colour, alpha=0.4, linewidth=0.8)
        if row["job"].startswith("mlp"):
            published = PUBLISHED[row["job"]][0]
            error = float(published.scores[ERROR])
            name = f"LeCun's {NAMES[row['job']]}: {error:g} %"
            axis.axhline(error, color=colour, linestyle="--", linewidth=1, label=name)
    axis.set(xscale="log", yscale="log", xlabel="epochs", ylabel="test error, %")
    axis.set_title("MNIST: test error during training")
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_formatter("{x:g}")
        which.set_minor_formatter("{x:g}")
    axis.tick_params(which="minor", labelsize=7)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    return figure


def draw_mistakes(
    rows: list[dict[str, Any]], test: tuple[np.ndarray, np.ndarray]
) -> Figure:
    """Draw the first test images that each network misclassifies."""
    images, labels = test
    width = max(1, *(len(row["mistakes"]) for row in rows))
    figure = Figure(figsize=(1.9 + 0.75 * width, 1.05 * len(rows) + 0.4))
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
