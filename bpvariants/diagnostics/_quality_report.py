"""Table and plot of the measures of `gradient_quality`."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from bpvariants._pictures import axes_for
from bpvariants._tables import aligned, short

Measure: TypeAlias = Literal[
    "norm",
    "bias",
    "bias_standard_error",
    "variance",
    "error",
    "cosine",
    "cosine_deviation",
    "norm_ratio",
    "sign_agreement",
    "zeros",
]
COLUMNS: dict[Measure, str] = {  # heading of the column for each measure
    "norm": "norm",
    "bias": "bias",
    "bias_standard_error": "±",
    "variance": "variance",
    "error": "error",
    "cosine": "cosine",
    "cosine_deviation": "±",
    "norm_ratio": "ratio",
    "sign_agreement": "signs",
    "zeros": "zeros",
}
SPREADS: dict[Measure, Measure] = {
    "bias": "bias_standard_error",
    "cosine": "cosine_deviation",
}


def tabulate(quality: Any, steps: Sequence[Any] | None) -> str:
    """Return all measures as text with aligned columns."""
    names, measures = _rows(quality, steps)
    cells = [["", *COLUMNS.values()]]
    for i, name in enumerate(names):
        cells.append([name, *(short(measures[key][i]) for key in COLUMNS)])
    return aligned(cells)


def draw(
    quality: Any,
    axes: Any,
    measure: Measure,
    steps: Sequence[Any] | None,
    label: str | None,
) -> Any:
    """Draw one measure: a point for each array of params, or a line over a training."""
    if measure not in COLUMNS:
        raise ValueError(
            f"measure must be one of {', '.join(COLUMNS)}; got {measure!r}."
        )
    names, measures = _rows(quality, steps)
    axes = axes_for("quality.plot", axes)
    values = measures[measure]
    spread = measures[SPREADS[measure]] if measure in SPREADS else None
    if np.ndim(quality.total.bias) == 0:
        down = slice(None, None, -1)  # Matplotlib puts the first name at the bottom
        spread = None if spread is None else spread[down]
        axes.errorbar(
            values[down], names[down], xerr=spread, fmt="o", capsize=3, label=label
        )
        axes.set_xlabel(measure.replace("_", " "))
        return axes
    where = np.arange(len(values)) if steps is None else np.asarray(steps)
    (line,) = axes.plot(where, values, marker="o", markersize=3, label=label)
    if spread is not None:
        low, high = values - spread, values + spread
        axes.fill_between(where, low, high, color=line.get_color(), alpha=0.2)
    axes.set_ylabel(measure.replace("_", " "))
    return axes


def in_words(quality: Any) -> str:
    """Return the measures of all params together in a few words."""
    total = quality.total
    if np.ndim(total.bias):
        return f"measures at {len(total.bias)} times"
    words = f"cosine {short(total.cosine)}, bias {short(total.bias)}"
    if float(total.variance) > 0:
        words += f" ± {short(total.bias_standard_error)}"
        words += f", variance {short(total.variance)}"
    return words


def _rows(
    quality: Any, steps: Sequence[Any] | None
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of the rows, and the values of each measure in these rows."""
    moments = np.shape(quality.total.bias)
    if len(moments) > 1:
        raise ValueError(
            "only one axis can be shown, such as moments of a training; "
            f"got measures of shape {moments}. Select a part, for example by "
            "jax.tree.map(lambda a: a[0], quality)."
        )
    if moments:
        if steps is not None and len(steps) != moments[0]:
            raise ValueError(
                f"steps must name {moments[0]} moments, got {len(steps)} names."
            )
        names = [str(name) for name in (range(moments[0]) if steps is None else steps)]
        return names, {
            key: np.asarray(getattr(quality.total, key), float) for key in COLUMNS
        }
    if steps is not None:
        raise ValueError(
            "steps name moments of a training, but these are of one moment; leave "
            "steps out."
        )
    is_measures = lambda node: hasattr(node, "bias_standard_error")
    leaves = jax.tree.leaves_with_path(quality.leaves, is_leaf=is_measures)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves if path]
    named = [("total", quality.total), *named]
    return [name for name, _ in named], {
        key: np.array([float(getattr(leaf, key)) for _, leaf in named])
        for key in COLUMNS
    }
