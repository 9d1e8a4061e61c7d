"""Alternative texts of figures: axes, curves, and the ends of the curves."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MOST = 12  # number of curves or bars of a panel that are described


def describe(figure: Figure) -> str:
    """Say in words what a figure shows, for readers who do not see it.

    Each panel is described by its title, the labels of its axes, the first and last
    values of its named curves, and its bars.

    Example:
      >>> figure = Figure()
      >>> axis = figure.subplots()
      >>> _ = axis.plot([0, 1, 2], [3.0, 2.0, 0.5], label="bptt")
      >>> _ = axis.set(title="adding", xlabel="updates", ylabel="loss")
      >>> describe(figure)
      'adding: loss against updates, 0 to 2. Curves: bptt falls from 3 to 0.5.'
    """
    parts = [figure.get_suptitle(), *map(_panel, figure.axes)]
    return " ".join(part for part in parts if part) or "A picture without axes."


def _panel(axis: Axes) -> str:
    title = " ".join(axis.get_title().split())
    horizontal, vertical = (
        " ".join(text.split()) for text in (axis.get_xlabel(), axis.get_ylabel())
    )
    curves = [_curve(line) for line in axis.lines if _named(line)]
    bars = [each for box in axis.containers for each in _bars(axis, box)]
    if not (title or curves or bars or axis.images):
        return ""
    said = _axes(horizontal, vertical, [line.get_xdata() for line in axis.lines])
    if axis.images and not said:
        said = "an image"
    text = ": ".join(part for part in (title, said) if part)
    for word, found in (("Curves", curves), ("Bars", bars)):
        if found:
            more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
            text += f". {word}: {', '.join(found[:_MOST])}{more}"
    return f"{text}."


def _axes(horizontal: str, vertical: str, xs: list[Any]) -> str:
    if not (horizontal or vertical):
        return ""
    said = f"{vertical or 'values'} against {horizontal or 'position'}"
    numbers = [np.asarray(x) for x in xs if len(x)]
    numbers = [x for x in numbers if np.issubdtype(x.dtype, np.number)]
    if not numbers or not horizontal:
        return said
    joined = np.concatenate([np.ravel(x).astype(float) for x in numbers])
    joined = joined[np.isfinite(joined)]
    return f"{said}, {joined.min():.3g} to {joined.max():.3g}" if joined.size else said


def _named(line: Any) -> bool:
    return not str(line.get_label()).startswith("_") and len(line.get_ydata()) > 1


def _curve(line: Any) -> str:
    name = " ".join(str(line.get_label()).split())
    values = np.asarray(line.get_ydata())
    if not np.issubdtype(values.dtype, np.number):  # names, one below the other
        return f"{name} for {', '.join(map(str, values))}"
    values = values.astype(float)
    values = values[np.isfinite(values)]
    if not values.size:
        return f"{name} has no finite value"
    first, last = values[0], values[-1]
    if f"{first:.3g}" == f"{last:.3g}":
        return f"{name} begins and ends at {last:.3g}"
    return (
        f"{name} {'falls' if last < first else 'rises'} from {first:.3g} to {last:.3g}"
    )


def _bars(axis: Axes, container: Any) -> list[str]:
    """Return the heights of a group of bars, with the names below them if known."""
    patches = getattr(container, "patches", [])
    flat = getattr(container, "orientation", "vertical") == "horizontal"
    sizes = [bar.get_width() if flat else bar.get_height() for bar in patches]
    label = str(container.get_label())
    name = "" if label.startswith("_") else f"{label} "
    return [f"{name}{', '.join(f'{size:.3g}' for size in sizes)}"] if sizes else []
