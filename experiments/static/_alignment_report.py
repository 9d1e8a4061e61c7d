"""Table and pictures of `alignment`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

# {rule: published test error of LeNet on MNIST in %} (Sanfiz & Akrout 2021).
PUBLISHED = {
    "bp": 0.91,
    "fa": 1.7,
    "dfa": 1.61,
    "usf": 0.94,
    "brsf": 0.91,
    "frsf": 0.97,
}
NAMES = {"bp": "BP", "fa": "FA", "dfa": "DFA", "usf": "uSF", "brsf": "brSF"}
NAMES |= {"frsf": "frSF"}
LAYERS = ("conv 1", "conv 2", "dense 3", "dense 4", "dense 5")


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print test errors, published errors, and angles between gradients.

    The angles are between the gradient of each rule and the exact gradient.
    """
    lines = []
    for row in rows:
        line = [
            NAMES[row["rule"]],
            report.mean_sd(row["error"]),
            report.mean_sd(row["best"]),
        ]
        angles = np.array(row["grads"], float)[:, -1].mean(axis=0)
        line += [f"{PUBLISHED[row['rule']]:.2f}", *(f"{a:.0f}" for a in angles)]
        lines.append([*line, f"{row['ms_per_step']:.1f}"])
    report.show_table(
        "MNIST by a network of LeNet's shape",
        ["", "error %", "best", "published", *(f"∠ {name}" for name in LAYERS), "ms"],
        lines,
        f"Error: test error on {config.test} images after {config.epochs:g} epochs of "
        f"{config.images} images; best: lowest test error during training; both: mean "
        f"± standard deviation over {config.seeds} seeds, lower is better.\nPublished: "
        "after 100 epochs of 60,000 images, at the epoch with the lowest test error "
        "(Sanfiz & Akrout 2021).\n∠: angle in degrees between a layer's ∂E/∂w by the "
        "rule and the exact ∂E/∂w, at the end of training. ms: time of one step of all "
        "seeds together.",
    )


def draw_errors(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs, and published test errors at the right edge."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        colour = f"C{list(NAMES).index(row['rule'])}"
        epochs, errors = np.array(row["epochs"]), np.array(row["errors"])
        label = f"{NAMES[row['rule']]}, {np.mean(row['error']):.2f} %"
        axis.plot(epochs, errors.mean(axis=0), marker=".", color=colour, label=label)
        axis.fill_between(
            epochs, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15
        )
        axis.plot(
            1.04 * epochs[-1], PUBLISHED[row["rule"]], "<", color=colour, markersize=7
        )
    axis.plot([], [], "<", color="grey", label="published, 100 epochs")
    axis.set(xlabel="epochs", ylabel="test error, %", yscale="log")
    ticks = [1, 2, 5, 10, 20, 50, 100]
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def draw_angles(rows: list[dict[str, Any]]) -> Figure:
    """Draw angles between each rule's gradient and the exact gradient against epochs.

    There is one panel for each layer.
    """
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    axes = figure.subplots(1, len(LAYERS), sharey=True)
    for row in rows:
        colour = f"C{list(NAMES).index(row['rule'])}"
        angles = np.array(row["grads"], float)
        for i, axis in enumerate(axes):
            seeds = angles[:, :, i]
            label = NAMES[row["rule"]]
            axis.plot(row["epochs"], seeds.mean(axis=0), color=colour, label=label)
            low, high = seeds.min(axis=0), seeds.max(axis=0)
            axis.fill_between(row["epochs"], low, high, color=colour, alpha=0.15)
    for name, axis in zip(LAYERS, axes, strict=True):
        axis.axhline(90, color="black", linewidth=0.8, linestyle=":")
        axis.set(xlabel="epochs", title=name, ylim=(-3, 120), yticks=range(0, 121, 30))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("angle to the exact ∂E/∂w, degrees")
    axes[-1].legend(fontsize=8)
    return figure
