"""Tables and pictures of `chain_rule`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bpvariants import gradients
from experiments import report

FACTORS = ["∂E/∂y", "∂y/∂s", "∂s/∂w"]


def show(
    rows: list[dict[str, Any]],
    config: Any,
    info: gradients.static.BackpropInfo,
    micrograd: gradients.static.BackpropInfo,
) -> None:
    """Print factors of the chain rule: for whole layers, single weights and one unit.

    A last table has the factors for the expression in the README of the package
    micrograd.
    """
    of = lambda kind: [row for row in rows if row["row"] == kind]
    print(f"\nDigit {config.example}, E = {of('energy')[0]['value']:.6f}\n")
    print(f"{info.table()}\n")
    _show_layers(of("layer"), config)
    _show_weights(of("weight"))
    _show_paths(of("path"), of("paths")[0])
    _show_micrograd(of("micrograd"), micrograd)


def _show_layers(rows, config):
    names = ("error", "slope", "delta", "input", "grad")
    apart = ("by hand", "jax.grad", "differences")
    lines = [
        [f"layer {row['layer']}", *(f"{row[name]:.4g}" for name in names)]
        + [f"{row[name]:.0e}" for name in apart]
        for row in rows
    ]
    norms = ["‖∂E/∂y‖", "‖∂y/∂s‖", "‖δ‖", "‖∂s/∂w‖", "‖∂E/∂W‖"]
    report.show_table(
        f"Norms of factors, and differences of gradients, in {config.precision}",
        ["", *norms, "product", "jax.grad", "differences"],
        lines,
        "δ = ∂E/∂y ⊙ ∂y/∂s, unit by unit; ∂s/∂w is the output y of the layer below; "
        "∂E/∂W = (∂s/∂w) δᵀ, without biases.\nThe last three columns (lower is "
        "better) show ‖a − b‖ / ‖b‖ for the gradient in all weights and biases: b is "
        "by gradients.backprop, and a is\nthe product of the factors, or by jax.grad, "
        "or by central differences.",
    )


def _show_weights(rows):
    names = ("error", "slope", "input", "by hand", "jax.grad", "differences")
    lines = [
        [f"W_{row['layer']}, {row['from']} → {row['to']}"]
        + [f"{row[name]:.9f}" for name in names]
        for row in rows
    ]
    report.show_table(
        "The weight with the largest |∂E/∂w| of each layer",
        ["", *FACTORS, "product", "jax.grad", "differences"],
        lines,
        "W_l, i → k: the weight of layer l from unit i below to unit k above. Units "
        "are counted from 0.",
    )


def _show_paths(rows, total):
    lines = [
        [f"unit {row['unit']} above"]
        + [f"{row[name]:.6f}" for name in ("delta", "weight", "product")]
        for row in rows
    ]
    lines.append(["sum", "", "", f"{total['sum']:.6f}"])
    lines.append(["∂E/∂y (backprop)", "", "", f"{total['error']:.6f}"])
    report.show_table(
        f"∂E/∂y of hidden unit {total['unit']}: a sum over the units k above it",
        ["", "δ_k", "w_k", "δ_k w_k"],
        lines,
    )


def _show_micrograd(rows, info):
    number = lambda row, name: f"{row[name]:.4f}" if name in row else ""
    names = ("error", "slope", "input", "by hand", "backprop", "jax.grad", "published")
    lines = [[row["what"], *(number(row, name) for name in names)] for row in rows]
    report.show_table(
        "Factors for scalars: micrograd's example, at a = −4, b = 2",
        ["", "∂g/∂f", "∂f/∂e", "∂e/∂·", "product", "backprop", "jax.grad", "README"],
        lines,
        "g = f/2 + 10/f and f = e²; e = c − d is the rest of the expression in "
        "micrograd's README. The column README has the values printed there.",
    )
    print(f"{info.table()}\n")


def draw_chain(
    info: gradients.static.BackpropInfo,
    image: np.ndarray,
    micrograd: gradients.static.BackpropInfo,
) -> Figure:
    """Draw the chain rule for the digit's network and for micrograd's expression."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.6, 3, 1.7))
    _draw_image(left, image, "y_0 = x", cmap="gray_r")
    info.plot(middle)
    micrograd.plot(right)
    right.set_xticks([0], ["micrograd's e, f"])
    return figure


def draw_factors(
    info: gradients.static.BackpropInfo, image: np.ndarray, weight: dict[str, Any]
) -> Figure:
    """Draw the chain rule's factors for all hidden units, and gradients as images.

    The images show the gradient of the loss with respect to the weights of one hidden
    unit, and with respect to the weights of all hidden units.
    """
    figure = Figure(figsize=(12, 6), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    first, unit = info[0], weight["to"]
    error, delta = (np.asarray(leaf) for leaf in (first.error, first.delta))
    for axis, values, label in zip(
        top,
        (error, delta / np.where(error == 0, np.nan, error), delta),
        ("∂E/∂y", "∂y/∂s", "δ = ∂E/∂y · ∂y/∂s"),
        strict=True,
    ):
        colours = ["C1" if k == unit else "C0" for k in range(len(values))]
        axis.bar(range(len(values)), values, color=colours)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xlabel="hidden unit (from 0)", title=label)
        axis.grid(axis="y", alpha=0.3)
    grad = np.asarray(first.grad["w"])[:, unit]
    _draw_image(bottom[0], image, "∂s/∂w = y_0, the digit", cmap="gray_r")
    title = f"∂E/∂w of hidden unit {unit} = δ ({delta[unit]:.4f}) · y_0"
    limit = np.abs(grad).max()
    shown = _draw_image(bottom[1], grad, title, "RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=bottom[1])
    limit = np.abs(np.asarray(first.grad["w"])).max()
    shown = bottom[2].imshow(
        np.asarray(first.grad["w"]).T, "RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
    )
    figure.colorbar(shown, ax=bottom[2])
    bottom[2].set(xlabel="pixel (from 0)", ylabel="hidden unit", title="∂E/∂w, all")
    return figure


def _draw_image(axis, pixels: np.ndarray, title: str, cmap: str, **limits: Any) -> Any:
    side = round(len(pixels) ** 0.5)
    shown = axis.imshow(pixels.reshape(side, side), cmap, **limits)
    axis.set(title=title, xticks=[], yticks=[])
    return shown
