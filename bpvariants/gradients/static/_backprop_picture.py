"""Picture of the chain rule: each layer's factors, and how they scale the error.

E is the mean loss; w, s and y are a layer's weights, net input and output. The gradient
∂E/∂w is the product of the factors ∂E/∂y, ∂y/∂s and ∂s/∂w, as in `_backprop`. With
δ = ∂E/∂s, the picture shows three numbers whose product is ‖∂E/∂w‖: the norm of ∂E/∂y,
and the ratios by which ∂y/∂s and then ∂s/∂w scale this norm,

    ‖∂E/∂y‖,    ‖δ‖ / ‖∂E/∂y‖,    ‖∂E/∂w‖ / ‖δ‖.

For a layer of a single unit, the two ratios are the absolute factors |∂y/∂s| and
|∂s/∂w|.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bpvariants._examples import norm
from bpvariants._tables import short

HEIGHTS = {"error": 2.0, "slope": 1.0, "input": 0.0}  # y coordinates of a layer's nodes
RADIUS = 0.3


def plot_chain(layers: Sequence[Any], axes: Any) -> Any:
    """Draw the chain-rule factors of each layer; see `BackpropInfo.plot`."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(
            "info.plot needs Matplotlib: pip install matplotlib. Without it, "
            "print(info.table()) shows norms of each layer as text."
        ) from error
    if axes is None:
        from matplotlib import pyplot

        size = (1.2 + 1.7 * len(layers), 4.2)
        axes = pyplot.figure(figsize=size, layout="constrained").subplots()
    factors = [_factors(layer) for layer in layers]
    norms = np.array([list(each.values()) for each in factors])
    colour = _colours(norms, mpl)
    for place, each in enumerate(factors):
        _draw_layer(axes, place, each, colour)
    for place in range(len(layers) - 1):  # arrow for δ from each layer to the one below
        _arrow(axes, (place + 1, HEIGHTS["slope"]), (place, HEIGHTS["error"]))
    axes.set_xlim(-0.6, len(layers) - 0.3)
    axes.set_ylim(-0.85, 2.45)
    axes.set_aspect("equal")
    axes.set_xticks(range(len(layers)), [f"layer {i + 1}" for i in range(len(layers))])
    axes.set_yticks([])
    axes.set_title("∂E/∂w = ∂E/∂y · ∂y/∂s · ∂s/∂w", fontsize="medium")
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def _factors(layer: Any) -> dict[str, float]:
    trees = layer.error, layer.delta, layer.grad
    error, delta, grad = (float(norm(tree)) for tree in trees)
    ratio = lambda a, b: a / b if b else 0.0
    return {
        "error": error,
        "slope": ratio(delta, error),
        "input": ratio(grad, delta),
        "delta": delta,
        "grad": grad,
    }


def _colours(norms: np.ndarray, mpl: Any) -> Any:
    """Return a function value -> colour; larger values have darker colours.

    The colour scale is logarithmic and spans all `norms`. All colours are light enough
    to read text on them. Zero, infinite and NaN values are grey.
    """
    good = norms[np.isfinite(norms) & (norms > 0)]
    low, high = (np.log10(good.min()), np.log10(good.max())) if good.size else (0, 0)
    blues = mpl.colormaps["Blues"]

    def colour(value):
        if not (np.isfinite(value) and value > 0):
            return "lightgrey"
        return blues(0.1 + 0.45 * (np.log10(value) - low) / max(high - low, 1e-9))

    return colour


def _draw_layer(axes: Any, place: int, factors: dict[str, float], colour: Any) -> None:
    labels = {"error": "∂E/∂y", "slope": "∂y/∂s", "input": "∂s/∂w"}
    for name, label in labels.items():
        axes.text(
            place,
            HEIGHTS[name],
            f"{label}\n{short(factors[name])}",
            ha="center",
            va="center",
            fontsize="small",
            bbox={"boxstyle": "round,pad=0.4", "facecolor": colour(factors[name])},
        )
    for above, below in (("error", "slope"), ("slope", "input")):
        _arrow(axes, (place, HEIGHTS[above]), (place, HEIGHTS[below]))
    beside = {"ha": "left", "va": "center", "fontsize": "x-small"}
    axes.text(place + 0.06, 0.5, f"‖δ‖ {short(factors['delta'])}", **beside)
    product = f"‖∂E/∂w‖\n{short(factors['grad'])}"
    axes.text(place, -0.62, product, ha="center", va="center", fontsize="small")


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    gap = np.subtract(end, start)
    gap = gap / np.linalg.norm(gap) * RADIUS
    arrow = {"arrowstyle": "->", "color": "dimgrey"}
    axes.annotate("", np.subtract(end, gap), np.add(start, gap), arrowprops=arrow)
