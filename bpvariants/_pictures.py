"""Matplotlib axes for methods `plot`; Matplotlib is imported when it is needed."""

from typing import Any

import numpy as np


def axes_for(
    name: str, axes: Any = None, size: tuple[float, float] = (6.0, 3.6)
) -> Any:
    """Return the given axes, or the axes of a new pyplot figure.

    Args:
      name: the method that draws, for the error message.
      axes: Matplotlib axes, or None.
      size: width and height of a new figure in inches.

    Raises:
      ImportError: if Matplotlib is not installed.
      ValueError: if `axes` has no method `plot`, such as an array of axes.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{name} needs Matplotlib: pip install matplotlib. Without it, use table()."
        ) from error
    if axes is None:
        from matplotlib import pyplot

        return pyplot.figure(figsize=size, layout="constrained").subplots()
    if not hasattr(axes, "plot"):
        raise ValueError(
            f"axes must be one Matplotlib axes, such as plt.subplots()[1], got "
            f"{type(axes).__name__}."
        )
    return axes


def label_ends(axes: Any, lines: list[tuple[Any, str]]) -> None:
    """Write a label at the right end of each line, and move labels that overlap.

    `lines` contains pairs of a Matplotlib line and its label. The limits of the axes
    should not change after the call.
    """
    axes.get_xlim()  # computes the limits, which transData needs
    axes.get_ylim()
    ends = []
    for line, label in lines:
        x, y = line.get_xdata(), line.get_ydata()
        if len(y) and y[-1] == y[-1]:  # not NaN
            place = axes.transData.transform((float(x[-1]), float(y[-1])))
            ends.append((axes.transAxes.inverted().transform(place)[1], line, label))
    apart, lowest = 0.075, -1.0  # least distance of two labels, in units of the axes
    for height, line, label in sorted(ends, key=lambda end: end[0]):
        lowest = max(height, lowest + apart)
        axes.text(
            1.02, lowest, label, transform=axes.transAxes, va="center",
            color=line.get_color(), fontsize="small", clip_on=False,
        )  # fmt: skip


def draw_convergence(
    axes: Any, steps: Any, residual: Any, converged: Any, unit: str
) -> None:
    """Draw a point for each example: number of steps, and residual on a log scale.

    A residual of 0 is drawn at the lowest other residual, and one that is infinite or
    NaN at the highest.
    """
    steps, residual = np.ravel(steps), np.ravel(np.asarray(residual, float))
    converged = np.ravel(converged)
    known = np.isfinite(residual) & (residual > 0)
    lowest = residual[known].min() if known.any() else 1.0
    highest = residual[known].max() if known.any() else 1.0
    # A log scale has no 0, infinity and NaN.
    shown = np.where(known, residual, np.where(residual == 0, lowest, highest))
    for flag, label, colour, mark in (
        (True, "converged", "#0072B2", "o"),
        (False, "not converged", "#D55E00", "x"),
    ):
        chosen = converged == flag
        if chosen.any():
            axes.plot(
                steps[chosen], shown[chosen], mark, color=colour,
                label=f"{label}: {int(chosen.sum())} of {len(converged)}",
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(lowest / 3, highest * 3)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel(f"number of {unit}")
    axes.set_ylabel("residual of an example")
    axes.legend(frameon=False)


def draw_losses(axes: Any, steps: Any, values: np.ndarray, **style: Any) -> Any:
    """Draw losses [steps] as a line, or those of several runs [runs, steps] as lines.

    Returns the line of the losses, or that of the median of the runs.
    """
    if values.ndim > 1:
        for i, run in enumerate(values):
            label = "a run" if i == 0 else "_nolegend_"
            axes.plot(
                steps, run, color="#999999", linewidth=0.6, alpha=0.6, label=label
            )
        known = np.ma.masked_invalid(values)
        values = np.ma.filled(np.ma.median(known, axis=0), np.nan)
        style = {"label": "median of the runs"} | style
    (line,) = axes.plot(steps, values, **({"color": "#0072B2"} | style))
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss")
    return line
