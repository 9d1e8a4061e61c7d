"""Tables and pictures of `chain_rule`."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bpvariants import gradients
from experiments import report

FACTORS = ["∂E/∂y", "∂y/∂s", "∂s/∂w"]
NORMS = ["‖∂E/∂y‖", "‖∂y/∂s‖", "‖δ‖", "‖∂s/∂w‖", "‖∂E/∂W‖"]


def show_network(
    folder: Path,
    rows: list[dict[str, Any]],
    info: gradients.static.BackpropInfo,
    image: np.ndarray,
) -> None:
    """Show the network with its factors, and compare the gradient with others."""
    report.say(
        "The error E of the last layer travels back to the weights. At each layer, it "
        "is multiplied by factors of the chain rule: ∂E/∂w = ∂E/∂y · ∂y/∂s · ∂s/∂w, "
        "where s are the weighted sums of a layer, and y its outputs.\n"
    )
    sizes = " and ".join(str(np.asarray(layer.delta).size) for layer in info)
    report.save_picture(
        folder,
        "chain",
        draw_chain(rows, info, image),
        alt=f"An image of a digit, layers of {sizes} units, and the loss, joined by "
        "lines; below each layer, the norms that are in the first table.",
        caption="The network and its factors. A unit's colour is its δ. The 40 "
        "connections of each layer with the largest |∂E/∂w| are drawn; a wider line is "
        "a larger |∂E/∂w|.",
    )
    layers = [row for row in rows if row["row"] == "layer"]
    exact = max(row[name] for row in layers for name in ("by hand", "jax.grad"))
    rough = max(row["differences"] for row in layers)
    report.conclude(
        "The product of the factors, gradients.backprop and jax.grad give the same "
        f"gradient up to rounding: relative differences are at most {exact:.0e}. "
        f"Central differences, which are an approximation, differ by {rough:.0e}."
    )


def show_factors(
    folder: Path,
    rows: list[dict[str, Any]],
    info: gradients.static.BackpropInfo,
    image: np.ndarray,
) -> None:
    """Show the factors of all hidden units, and those of one unit as images."""
    weight = next(row for row in rows if row["row"] == "weight")
    report.save_picture(
        folder,
        "factors",
        draw_factors(info, image, weight),
        caption=f"The factors of each hidden unit. Below, those of unit {weight['to']} "
        "as images: its inputs y₀, their product with δ, which is the gradient in the "
        "weights of this unit, and the gradients of all units.",
    )


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
    report.say(f"\nDigit {config.example}, E = {of('energy')[0]['value']:.6f}\n")
    report.say(f"{info.table()}\n", exact=True)
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
    report.show_table(
        f"Norms of factors, and differences of gradients, in {config.precision}",
        ["", *NORMS, "product", "jax.grad", "differences"],
        lines,
        "δ = ∂E/∂y ⊙ ∂y/∂s, unit by unit; ∂s/∂w is the output y of the layer below; "
        "∂E/∂W = (∂s/∂w) δᵀ, without biases.\nThe last three columns (lower is "
        "better) show ‖a − b‖ / ‖b‖ for the gradient in all weights and biases: b is "
        "by gradients.backprop, and a is the product of the factors, or by jax.grad, "
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
        f"Hidden unit {total['unit']}: ∂E/∂y as a sum over units k",
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
    report.say(f"{info.table()}\n", exact=True)


def draw_chain(
    rows: list[dict[str, Any]],
    info: gradients.static.BackpropInfo,
    image: np.ndarray,
) -> Figure:
    """Draw the network, and below each layer the numbers of the table of norms.

    A unit's colour is its δ. The 40 connections of each layer with the largest |∂E/∂w|
    are drawn; a wider line is a larger |∂E/∂w|.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set(xlim=(-0.45, 3.45), ylim=(-0.55, 1.12))
    axis.imshow(
        image.reshape(8, 8), "gray_r", extent=(-0.32, 0.32, 0.22, 0.78), aspect="auto"
    )
    columns = [np.column_stack([np.full(8, 0.32), np.linspace(0.74, 0.26, 8)])]
    columns += [_heights(place, layer) for place, layer in enumerate(info, 1)]
    for below, above, layer in zip(columns, columns[1:], info, strict=False):
        _draw_links(axis, below, above, np.abs(np.asarray(layer.grad["w"])))
    for column, layer in zip(columns[1:], info, strict=True):
        delta = np.asarray(layer.delta)
        limit = np.abs(delta).max()
        axis.scatter(
            *column.T, s=190, c=delta, cmap="RdBu_r", vmin=-limit, vmax=limit,
            edgecolors="black", linewidths=0.8, zorder=3,
        )  # fmt: skip
    energy = next(row["value"] for row in rows if row["row"] == "energy")
    words: dict[str, Any] = {"ha": "center", "va": "center"}
    axis.text(
        3, 0.5, f"E\n{energy:.4g}", bbox={"boxstyle": "round", "fc": "w"}, **words
    )
    for _, y in columns[-1]:
        axis.plot([2, 2.9], [y, 0.5], color="#bbbbbb", linewidth=0.7, zorder=0)
    axis.text(0, 1.08, "y₀ = x, the digit", **words)
    axis.text(
        3.4, -0.3, "colour of a unit: its δ,\nred above 0, blue below\n\n"
        "width of a line: |∂E/∂w|", ha="right", va="center", fontsize=9,
    )  # fmt: skip
    _write_numbers(axis, [row for row in rows if row["row"] == "layer"])
    axis.annotate(
        "", (0.5, 1.0), (2.7, 1.0), arrowprops={"arrowstyle": "->", "color": "#d55e00"}
    )
    axis.text(2.72, 1.0, "errors go back", ha="left", va="center", color="#d55e00")
    return figure


def _heights(place: int, layer: Any) -> np.ndarray:
    """Return the coordinates [units, 2] of a layer's units in the picture."""
    units = np.asarray(layer.delta).size
    return np.column_stack([np.full(units, place), np.linspace(0.92, 0.08, units)])


def _draw_links(axis: Axes, below: np.ndarray, above: np.ndarray, size: np.ndarray):
    """Draw the connections with the largest |∂E/∂w|; a digit's rows share a place."""
    group = len(size) // len(below)
    size = size.reshape(len(below), group, -1).max(axis=1)
    for place in np.argsort(-size, axis=None)[:40]:
        i, k = np.unravel_index(place, size.shape)
        line = np.array([below[i], above[k]])
        width = 0.3 + 2.7 * size[i, k] / size.max()
        axis.plot(*line.T, color="#555555", linewidth=width, alpha=0.45, zorder=1)


def _write_numbers(axis: Axes, layers: list[dict[str, Any]]) -> None:
    """Write the norms of each layer below its units, as the table has them."""
    names = ("error", "slope", "delta", "input", "grad")
    for i, (name, symbol) in enumerate(zip(names, NORMS, strict=True)):
        y = -0.12 - 0.09 * i
        axis.text(-0.32, y, symbol, ha="left", va="center")
        for row in layers:
            weight = "bold" if name == "grad" else "normal"
            axis.text(
                row["layer"], y, f"{row[name]:.4g}", ha="center", va="center",
                fontweight=weight,
            )  # fmt: skip
    for row in layers:
        axis.text(row["layer"], 1.08, f"layer {row['layer']}", ha="center", va="center")


def draw_factors(
    info: gradients.static.BackpropInfo, image: np.ndarray, weight: dict[str, Any]
) -> Figure:
    """Draw the chain rule's factors for all hidden units, and gradients as images.

    The images show the gradient of the loss with respect to the weights of one hidden
    unit, and with respect to the weights of all hidden units.
    """
    figure, axes = report.panels(2, 3, width=4, height=3)
    top, bottom = axes
    first, unit = info[0], weight["to"]
    error, delta = (np.asarray(leaf) for leaf in (first.error, first.delta))
    for axis, values, label in zip(
        top,
        (error, delta / np.where(error == 0, np.nan, error), delta),
        ("∂E/∂y", "∂y/∂s", "δ = ∂E/∂y · ∂y/∂s"),
        strict=True,
    ):
        colours = [report.COLOURS[1 if k == unit else 0] for k in range(len(values))]
        axis.bar(range(len(values)), values, color=colours)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xlabel="hidden unit (from 0)", title=label, xticks=range(len(values)))
        axis.grid(visible=False, axis="x")
    grad = np.asarray(first.grad["w"])[:, unit]
    _draw_image(bottom[0], image, "∂s/∂w = y₀, the digit", cmap="gray_r")
    title = f"∂E/∂w of unit {unit} = δ ({delta[unit]:.4f}) · y₀"
    limit = np.abs(grad).max()
    shown = _draw_image(bottom[1], grad, title, "RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=bottom[1], format=FuncFormatter(_tick))
    limit = np.abs(np.asarray(first.grad["w"])).max()
    shown = bottom[2].imshow(
        np.asarray(first.grad["w"]).T, "RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
    )
    figure.colorbar(shown, ax=bottom[2], format=FuncFormatter(_tick))
    bottom[2].set_yticks(range(len(delta)))
    bottom[2].set(xlabel="pixel (from 0)", ylabel="hidden unit", title="∂E/∂w, all")
    for axis in bottom:
        axis.grid(visible=False)
        axis.spines[:].set_visible(True)
    return figure


def _tick(value: float, _: Any) -> str:
    return f"{value:g}"


def _draw_image(axis, pixels: np.ndarray, title: str, cmap: str, **limits: Any) -> Any:
    side = round(len(pixels) ** 0.5)
    shown = axis.imshow(pixels.reshape(side, side), cmap, **limits)
    axis.set(title=title, xticks=[], yticks=[])
    return shown
