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
    errors = {NAMES[row["rule"]]: row["error"] for row in rows}
    said = report.verdict(
        "test error", errors, higher_is_better=False, unit=" %", limits=(0, 100)
    )
    report.conclude(said)


def draw_errors(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs, and published test errors at the right edge."""
    figure, axes = report.panels(width=8, height=4.8)
    axis = axes[0, 0]
    for row in rows:
        style = report.rule_style(row["rule"])
        epochs, errors = np.array(row["epochs"]), np.array(row["errors"])
        label = f"{NAMES[row['rule']]}, {np.mean(row['error']):.2f} %"
        label += f" (published: {PUBLISHED[row['rule']]:g} %)"
        axis.plot(epochs, errors.mean(axis=0), marker=".", label=label, **style)
        axis.fill_between(
            epochs, errors.min(axis=0), errors.max(axis=0), color=style["color"],
            alpha=0.13, lw=0,
        )  # fmt: skip
    axis.set(xlabel="epochs", ylabel="test error, %", title="MNIST")
    report.log_ticks(axis)
    report.label_ends(axis)
    return figure


def draw_angles(rows: list[dict[str, Any]]) -> Figure:
    """Draw angles between each rule's gradient and the exact gradient against epochs.

    There is one panel for each layer.
    """
    figure, axes = report.panels(1, len(LAYERS), width=2.9, height=4, sharey=True)
    for row in rows:
        style = report.rule_style(row["rule"])
        angles = np.array(row["grads"], float)
        for i, axis in enumerate(axes[0]):
            seeds = angles[:, :, i]
            axis.plot(
                row["epochs"], seeds.mean(axis=0), label=NAMES[row["rule"]], **style
            )
            low, high = seeds.min(axis=0), seeds.max(axis=0)
            colour = style["color"]
            axis.fill_between(row["epochs"], low, high, color=colour, alpha=0.13, lw=0)
    for name, axis in zip(LAYERS, axes[0], strict=True):
        axis.axhline(90, color="#666666", linewidth=0.8, linestyle=":")
        axis.set(xlabel="epochs", title=name, ylim=(-3, 120), yticks=range(0, 121, 30))
    axes[0, 0].set_ylabel("angle to the exact ∂E/∂w, degrees")
    report.label_ends(*axes[0])
    return figure
