"""Figures of all studies: panels, plain ticks, labels at curves' ends, legends outside.

A study draws in three steps: it makes panels with `panels`, plots curves in the styles
of `_styles`, and names the curves with `label_ends` or `legend_below`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

TEXT, FAINT = "#222222", "#666666"  # colours of labels and of notes
SIZE = 9  # font size of labels, in points
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SAMPLE, _GAP = 18.0, 4.0  # length of a label's piece of line, and gaps, in points
_LONG = 26  # a label with more characters is broken after a comma


def panels(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = 5.0,
    height: float = 3.6,
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """Create a figure with panels; return it and an array [rows, columns] of axes.

    `width` and `height` are the size of one panel in inches. The other options are
    passed to `Figure.subplots`.
    """
    size = (width * columns, height * rows)
    layout = ConstrainedLayoutEngine(hspace=0.06 if rows > 1 else 0.02)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        plain(axis)
    return figure, axes


def plain(axis: Axes) -> None:
    """Give an axis the look of all studies: a light grid, and no frame."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.title.set_fontsize(11)


def log_ticks(axis: Axes, which: str = "y") -> None:
    """Make an axis logarithmic, and write its ticks as 0.1, 1 and 10.

    Numbers below 0.0001 and from 1,000,000 on are written as powers of ten. If the axis
    shows less than two decades, the ticks 2 and 5 of each decade are added.
    """
    for name in which:
        getattr(axis, f"set_{name}scale")("log")
        low, high = sorted(getattr(axis, f"get_{name}lim")())
        if low <= 0:  # the end of a linear axis
            low = getattr(axis.dataLim, f"minpos{name}") / 1.3
            getattr(axis, f"set_{name}lim")(low, high)
        decades = math.log10(high / low)
        part = getattr(axis, f"{name}axis")
        subs = (1,) if decades > 2 else (1, 2, 5) if decades > 0.6 else range(1, 10)
        part.set_major_locator(LogLocator(subs=list(subs), numticks=9))
        part.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        part.set_minor_locator(NullLocator())
        part.set_minor_formatter(NullFormatter())


def number(value: float) -> str:
    """Write a number in full where it is short, and else with a power of ten.

    Example:
      >>> number(0.1), number(1000), number(20000), number(1e-6), number(3e-7)
      ('0.1', '1,000', '20,000', '10⁻⁶', '3·10⁻⁷')
    """
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:,.10f}".rstrip("0").rstrip(".") if value else "0"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    factor = f"{value / 10.0**power:.3g}"
    ten = f"10{str(power).translate(SUPERSCRIPTS)}"
    return ten if factor == "1" else f"{factor}·{ten}"


def label_ends(*axes: Axes, size: float = SIZE) -> None:
    """Write the label of each curve at the right of its panel, beside the curve's end.

    Labels that would overlap are moved apart. A piece of the curve's line stands before
    each label. Curves that coincide everywhere share one label, which says so. Call
    this function after everything else is drawn, once with all panels of a figure.
    """
    figure = axes[0].get_figure(root=True)
    assert isinstance(figure, Figure)
    texts = {axis: _place_texts(axis, size) for axis in axes}
    figure.draw_without_rendering()  # computes the layout with room for the labels
    for axis, labels in texts.items():
        _move_apart(axis, labels)


def legend_below(
    figure: Figure, names: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
) -> None:
    """Write a legend below all panels, so wide that it is not cut.

    Args:
      figure: the figure.
      names: {label: style of its line}; by default, the labels of all curves.
      options: passed to `Figure.legend`.
    """
    handles = {}
    if names is None:
        for axis in figure.axes:
            lines, labels = axis.get_legend_handles_labels()
            handles = dict(zip(labels, lines, strict=True)) | handles
    else:
        handles = {name: Line2D([], [], **style) for name, style in names.items()}
    if not handles:
        return
    inches = 0.6 + 0.075 * max(map(len, handles))  # width of an entry
    columns = max(1, min(len(handles), int(figure.get_figwidth() / inches)))
    shown = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    shown |= {"fontsize": SIZE, "handlelength": 2.4} | options
    figure.legend(list(handles.values()), list(handles), **shown)


def _place_texts(axis: Axes, size: float) -> list[tuple[Line2D, Any]]:
    """Write labels at the heights of the curves' ends; return pairs (curve, text)."""
    points = _SAMPLE + 2 * _GAP
    figure = axis.get_figure(root=True)
    assert figure is not None
    shift = ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
    labels = []
    for lines in _coinciding([line for line in axis.lines if _named(line)]):
        words = _words([str(line.get_label()) for line in lines])
        text = axis.text(
            1, 0.5, words, transform=axis.transAxes + shift, fontsize=size,
            color=TEXT, gid="end of curve", va="center", ha="left", linespacing=1.05,
        )  # fmt: skip
        labels.append((lines[0], text))
    return labels


def _words(labels: Sequence[str]) -> str:
    r"""Return the label of curves that coincide, or of one curve, in short lines.

    Example:
      >>> _words(["CNN, random words, published, 11.8 %"])
      'CNN, random words,\npublished, 11.8 %'
    """
    if len(labels) == 1:
        parts = labels[0].split(", ")
        if len(labels[0]) <= _LONG or len(parts) == 1:
            return labels[0]
        broken = [
            f"{', '.join(parts[:i])},\n{', '.join(parts[i:])}"
            for i in range(1, len(parts))
        ]
        return min(broken, key=lambda text: max(map(len, text.split("\n"))))
    joined = " = ".join(labels)
    joined = " =\n".join(labels) if len(joined) > 1.5 * _LONG else joined
    return f"{joined}\n(these lines coincide)"


def _named(line: Line2D) -> bool:
    label = str(line.get_label())
    return bool(label) and not label.startswith("_") and len(_finite(line)) > 0


def _finite(line: Line2D) -> np.ndarray:
    """Return the finite points of a curve on the screen, [points, 2]."""
    parts = line.get_data(orig=False)  # dates as numbers
    data = np.column_stack([np.asarray(part, float) for part in parts])
    with np.errstate(all="ignore"):
        points = line.get_transform().transform(data)
    return points[np.isfinite(points).all(axis=1) & np.isfinite(data).all(axis=1)]


def _coinciding(lines: Sequence[Line2D]) -> list[list[Line2D]]:
    """Group the curves that are nowhere more than one pixel apart."""
    groups: list[list[Line2D]] = []
    for line in lines:
        points = _finite(line)
        for group in groups:
            other = _finite(group[0])
            same = other.shape == points.shape and len(points) > 1
            if same and np.abs(other - points).max() < 1:
                group.append(line)
                break
        else:
            groups.append([line])
    return groups


def _move_apart(axis: Axes, labels: list[tuple[Line2D, Any]]) -> None:
    """Move labels apart, and draw a piece of each curve's line before its label."""
    figure = axis.get_figure(root=True)
    assert isinstance(figure, Figure)
    box, pixel = axis.get_window_extent(), figure.dpi / 72
    low, high = box.y0, box.y1
    last = [_finite(line)[-1] for line, _ in labels]
    ends = [float(np.clip(y, low, high)) for _, y in last]
    heights = [text.get_window_extent().height + 1.5 * pixel for _, text in labels]
    places = spread(ends, heights, low, high)
    for (line, text), (x, _), end, place in zip(
        labels, last, ends, places, strict=True
    ):
        at = lambda y: (y - box.y0) / box.height
        text.set_y(at(place))
        start, stop = (1 + points * pixel / box.width for points in (_GAP, _SAMPLE))
        reach, near = _GAP * pixel / box.width, (x - box.x0) / box.width
        style = {"color": line.get_color(), "transform": axis.transAxes}
        style |= {"clip_on": False, "label": "_sample", "solid_capstyle": "butt"}
        if near > 0.9 and len(_finite(line)) > 1:  # else the curve ends far away
            xs, ys = [min(near, 1), start + reach], [at(end), at(place)]
            axis.plot(xs, ys, linewidth=0.7, alpha=0.7, **style)
        axis.plot(
            [start + reach, (start + stop) / 2 + reach, stop + reach],
            3 * [at(place)],
            linewidth=min(max(line.get_linewidth(), 1.4), 2.2),
            linestyle=line.get_linestyle(),
            marker=line.get_marker(),
            markersize=min(line.get_markersize(), 5),
            markevery=[1],
            **style,
        )


def spread(
    wanted: Sequence[float], heights: Sequence[float], low: float, high: float
) -> list[float]:
    """Return centres of labels that do not overlap, near the wanted centres.

    Labels keep the order of the wanted centres. Neighbours that overlap form a block,
    which is centred on the mean of their wanted places and kept within low … high; a
    block that is higher than that is centred.

    Example:
      >>> spread([5.0, 5.0, 20.0], [2.0, 2.0, 2.0], 0.0, 30.0)
      [4.0, 6.0, 20.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and (
            _bottom(blocks[-1], wanted, heights, low, high)
            < _bottom(blocks[-2], wanted, heights, low, high)
            + _total(blocks[-2], heights)
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = [0.0] * len(wanted)
    for block in blocks:
        at = _bottom(block, wanted, heights, low, high)
        for i in block:
            places[i] = at + heights[i] / 2
            at += heights[i]
    return places


def _total(block: Iterable[int], heights: Sequence[float]) -> float:
    return sum(heights[i] for i in block)


def _bottom(block, wanted, heights, low, high):
    """Return the lower end of a block of labels."""
    total = _total(block, heights)
    if total > high - low:
        return (low + high - total) / 2
    bottom, below = 0.0, 0.0
    for i in block:  # the place at which label i would be at its wanted height
        bottom += (wanted[i] - below - heights[i] / 2) / len(block)
        below += heights[i]
    return min(max(bottom, low), high - total)
