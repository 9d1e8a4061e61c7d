"""Result of a sweep, with a table and a picture."""

import collections
import math
from typing import Any, NamedTuple

import numpy as np

from bpvariants._pictures import axes_for
from bpvariants._settings import check_one_of
from bpvariants._tables import aligned, in_short, short
from bpvariants.training.sweeps._runs import COLUMNS


class SweepGroup(NamedTuple):
    """Runs of one compiled program. See :func:`sweep`.

    Attributes:
      static: the static fields of the config, which are equal in all runs of the
        program.
      runs: number of runs of the program in this call.
      block: number of runs that train at the same time, on all devices together.
      num_bytes: memory in bytes that a block of runs needs on each device; None if XLA
        does not report it.
      compile_seconds: time spent in compiling the program.
      seconds: time spent in running the program.
    """

    static: dict[str, Any]
    runs: int
    block: int
    num_bytes: int | None
    compile_seconds: float
    seconds: float


class SweepResult(NamedTuple):
    """Result of :func:`sweep`.

    Attributes:
      rows: list with a dict for each run that has ended, including runs that were read
        from the file. Rows are ordered by config, then by seed.
        `pandas.DataFrame(rows)` makes a table.
      groups: a :class:`SweepGroup` for each program that was compiled.
      interrupted: whether Ctrl-C was pressed before the last run had ended.
    """

    rows: list[dict[str, Any]]
    groups: list[SweepGroup]
    interrupted: bool

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self) -> str:
        """Return the rows as text, with a line for each run."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        names = [name for name in names if name != "curve"]
        cell = lambda value: short(value) if isinstance(value, float) else str(value)
        cells = [[cell(row.get(name, "")) for name in names] for row in self.rows]
        return aligned([names, *cells]) if names else ""

    def plot(
        self, axes: Any = None, metric: str | None = None, over: str | None = None
    ) -> Any:
        """Draw a metric of each run over a field of the configs.

        A line connects the medians over the seeds. Runs that diverged have no point;
        their number is in the legend. `plot` needs Matplotlib.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.
          metric: name of a metric. Default: the first metric of the rows.
          over: name of a field of the configs. Default: the first field that has
            several values; if there is none, the seed.

        Returns:
          The Matplotlib axes of the picture.

        Raises:
          ValueError: if there are no rows, or if `metric` or `over` is not the name of
            a column.

        Example:
          >>> import jax
          >>> from matplotlib.figure import Figure
          >>> from bpvariants import training
          >>> def make_run(config, key):
          ...     return jax.random.normal(key), lambda w, t: (
          ...         w - config["rate"] * w, {"loss": w**2}
          ...     )
          >>> configs = [{"rate": 0.1}, {"rate": 0.5}]
          >>> result = training.sweep(make_run, configs, range(2), steps=9)
          >>> axes = result.plot(Figure().subplots())
          >>> axes.get_xlabel(), axes.get_ylabel()
          ('rate', 'loss')
        """
        axes = axes_for("result.plot", axes)
        metric, over = self._columns(metric, over)
        values: dict[Any, list[float]] = {}
        diverged = 0
        for row in self.rows:
            value = row.get(metric, math.nan)
            bad = row["status"] == "diverged" or not math.isfinite(value)
            diverged += bad
            values.setdefault(_place(row.get(over)), []).extend([] if bad else [value])
        places = sorted(values, key=lambda place: (isinstance(place, str), place))
        axes.plot(
            [place for place in places for _ in values[place]],
            [value for place in places for value in values[place]],
            "o", color="#0072B2", alpha=0.5, markersize=4, label="a run",
        )  # fmt: skip
        kept = [place for place in places if values[place]]
        medians = [float(np.median(values[place])) for place in kept]
        axes.plot(kept, medians, color="#0072B2", label="median")
        if diverged:
            axes.plot([], [], " ", label=f"{diverged} of {len(self.rows)} diverged")
        for scale, numbers in ((axes.set_xscale, kept), (axes.set_yscale, medians)):
            if _spans_decades(numbers):
                scale("log")
        axes.set_xlabel(over)
        axes.set_ylabel(metric)
        axes.legend(frameon=False)
        return axes

    def _columns(self, metric: str | None, over: str | None) -> tuple[str, str]:
        if not self.rows:
            raise ValueError("the sweep has no rows, so there is nothing to draw.")
        names = list(self.rows[0])
        fields = names[: names.index("seed")]
        metrics = [name for name in names if name not in (*fields, *COLUMNS)]
        if metric is None and not metrics:
            raise ValueError("the rows have no metrics, so there is nothing to draw.")
        varied = [name for name in fields if len({str(r[name]) for r in self.rows}) > 1]
        metric = metrics[0] if metric is None else metric
        over = [*varied, "seed"][0] if over is None else over
        check_one_of("metric", metric, [*metrics, "steps", "seconds"])
        check_one_of("over", over, [*fields, "seed"])
        return metric, over

    def _words(self) -> str:
        ended = collections.Counter(row["status"] for row in self.rows)
        words = [f"{len(self.rows)} runs"]
        words += [f"{count} {status}" for status, count in sorted(ended.items())]
        seconds = sum(group.seconds + group.compile_seconds for group in self.groups)
        programs = f"{len(self.groups)} program{'s' * (len(self.groups) != 1)}"
        words.append(f"{programs} in {short(seconds)} s")
        return ", ".join(words + ["interrupted"] * self.interrupted)


def _place(value: Any) -> Any:
    """Return a value's place on an axis: a number, or a text for other values."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else str(value)


def _spans_decades(numbers: list) -> bool:
    if not numbers or any(isinstance(number, str) for number in numbers):
        return False
    return min(numbers) > 0 and max(numbers) > 10 * min(numbers)
