"""Memory against time of one gradient through time, by every remat policy.

Gruslys et al. (2016) save 95 % of the memory of T = 1000 steps for one third more time,
which is what one more forward pass costs: a backward pass takes as long as two. Here
the same is predicted before anything runs, then measured, for an LSTM.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from bpvariants import gradients
from experiments import report
from experiments.harness.timing import Entrants, race

HEADER = ["policy", "steps / T", "MiB predicted", "MiB", "% of full", "time predicted"]
HEADER += ["time", "ms"]
MARKS = "osD^vP*Xhd"


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure memory and time of one gradient of an LSTM by every remat policy."""

    lengths: tuple[int, ...] = (1000, 10_000)
    """Time steps T; each is a panel and a table."""
    batch: int = 8
    """Examples at a time."""
    inputs: int = 32
    """Numbers that each step is given."""
    units: int = 64
    """Units of the LSTM."""
    growth: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    """Time steps at which growth with T is measured."""
    repeats: int = 7
    """How often each is timed; the median counts."""
    out: Path | None = None
    """Folder to write to; by default runs/memory_time-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("batch", "inputs", "units"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        for name in ("lengths", "growth"):
            if not all(length >= 4 for length in getattr(self, name)):
                raise ValueError(
                    f"{name} must be at least 4 steps each, got {getattr(self, name)}."
                )
        if self.repeats < 2:
            raise ValueError(f"repeats must be at least 2, got {self.repeats}.")


def main(config: Config) -> report.Result:
    """Measure all policies, show what was predicted beside them, and write them."""
    folder = report.make_folder("memory_time", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    try:
        with report.Progress(len(config.lengths) + 1) as progress:
            for length in config.lengths:
                progress.begin(f"T = {length}, all policies", 1)
                for row in _policies(config, length):
                    rows.append(row)
                    report.append_row(folder, row)
                progress.advance(1)
            progress.begin("growth with T", len(config.growth))
            for done, length in enumerate(config.growth):
                rows.append(_growth(config, length))
                report.append_row(folder, rows[-1])
                progress.advance(done + 1)
    except KeyboardInterrupt:
        interrupted = True
    by_kind = lambda kind: [row for row in rows if row["kind"] == kind]
    _show(by_kind("policy"))
    _show_growth(by_kind("growth"))
    if by_kind("policy"):
        picture = _draw(by_kind("policy"), by_kind("growth"))
        report.save_picture(folder, "memory_time", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _problem(config: Config, length: int) -> tuple[Any, Any, tuple]:
    network = nn.OptimizedLSTMCell(config.units)
    keys = jax.random.split(jax.random.key(0), 3)
    normal = lambda key, size: jax.random.normal(key, (length, config.batch, size))
    xs, targets = normal(keys[1], config.inputs), normal(keys[2], config.units)
    carry = network.initialize_carry(keys[0], xs[0].shape)
    loss = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)
    params = network.init(keys[0], carry, xs[0])
    return network.apply, loss, (params, carry, xs, targets)


def _policies(config: Config, length: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each policy, the first of them that keeps everything."""
    step, loss, arguments = _problem(config, length)
    params, carry, xs, targets = arguments
    size = gradients.remat.step_bytes(step, params, carry, xs[0], loss, targets[0])
    policies = _named(length, size)
    entrants: Entrants = {
        name: (gradients.bptt(step, loss, remat=policy), arguments)
        for name, policy in policies.items()
    }
    measured = race(f"T = {length}", entrants, repeats=config.repeats)
    for row in measured:
        cost = gradients.remat.predicted_cost(length, policies[row.name], size)
        yield {
            "kind": "policy",
            "length": length,
            "policy": row.name,
            "evaluations": cost.evaluations,
            "mib_predicted": (cost.bytes or 0) / 2**20,
            "mib": row.temp_mib,
            "mib_ratio": row.temp_mib / measured[0].temp_mib,
            "time_predicted": (cost.evaluations + 2 * length) / (3 * length),
            "time": row.ratio,
            "ms": row.ms,
            "compile_seconds": row.compile_seconds,
        }


def _named(length: int, size: gradients.remat.StepBytes) -> dict[str, Any]:
    """Return the policies to measure; √(T c/r) is where `every` needs least."""
    best = math.sqrt(length * size.carry / size.kept)
    divisors = [k for k in range(1, length + 1) if length % k == 0]
    nearest = lambda goal: min(divisors, key=lambda k: abs(math.log(k / goal)))
    k, wide = nearest(best), nearest(4 * best)  # others take a copy of the inputs
    root = round(math.sqrt(length))
    policies = {
        "None": None,
        '"step"': "step",
        f"every({wide})": gradients.remat.every(wide),
        f"every({k})": gradients.remat.every(k),
        f"every({wide}, {max(k // 2, 1)})": gradients.remat.every(wide, max(k // 2, 1)),
        f"slots({root})": gradients.remat.slots(root),
        f"slots({max(root // 4, 1)})": gradients.remat.slots(max(root // 4, 1)),
    }
    for share in (0.05, 0.01):
        num_bytes = int(share * length * size.kept)
        try:
            policy = gradients.remat.budget(num_bytes)
            gradients.remat.predicted_cost(length, policy, size)
        except ValueError:  # of few steps, one alone is more
            continue
        policies[f"budget({share:.0%} of full)"] = policy
    return policies


def _growth(config: Config, length: int) -> dict[str, Any]:
    """Measure how a gradient grows with T, kept whole and by √T slots."""
    step, loss, arguments = _problem(config, length)
    whole = gradients.bptt(step, loss)
    slots = gradients.remat.slots(round(math.sqrt(length)))
    entrants: Entrants = {
        "None": (whole, arguments),
        "slots(√T)": (gradients.bptt(step, loss, remat=slots), arguments),
    }
    row = {"kind": "growth", "length": length}
    for measured in race(f"T = {length}", entrants, repeats=config.repeats):
        row[measured.name] = {"ms": measured.ms, "mib": measured.temp_mib}
    return row


def _slope(lengths: list[int], values: list[float]) -> float:
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def _show(rows: list[dict[str, Any]]) -> None:
    for length in dict.fromkeys(row["length"] for row in rows):
        lines = []
        for row in (row for row in rows if row["length"] == length):
            line = [row["policy"], f"{row['evaluations'] / length:.2f}"]
            line += [f"{row['mib_predicted']:.2f}", f"{row['mib']:.2f}"]
            line += [f"{row['mib_ratio']:.2%}", f"{row['time_predicted']:.2f}"]
            lines.append([*line, f"{row['time']:.2f}", f"{row['ms']:.1f}"])
        report.show_table(
            f"One gradient through T = {length} steps of an LSTM",
            HEADER,
            lines,
            "Steps: evaluations of the step, per time step. Time: relative to None; "
            "predicted, as if a backward pass took two forward passes. MiB: temporary "
            "memory by XLA's analysis, in which weights and their gradients are too.",
        )


def _show_growth(rows: list[dict[str, Any]]) -> None:
    if len(rows) < 2:
        return
    lengths, lines = [row["length"] for row in rows], []
    for name in ("None", "slots(√T)"):
        of = lambda key, name=name: [row[name][key] for row in rows]
        slopes = [f"{_slope(lengths, of(key)):.2f}" for key in ("ms", "mib")]
        ends = f"{of('ms')[0]:.1f} … {of('ms')[-1]:.1f}"
        lines.append([name, *slopes, ends, f"{of('mib')[0]:.2f} … {of('mib')[-1]:.2f}"])
    report.show_table(
        f"Growth from T = {lengths[0]} to {lengths[-1]}",
        ["policy", "slope of time", "slope of memory", "ms", "MiB"],
        lines,
        "Slopes of straight lines through logarithms: 1 is growth in proportion to T.",
    )


def _draw(rows: list[dict[str, Any]], growth: list[dict[str, Any]]) -> Figure:
    """Draw a panel of memory and time for each T, and one of growth."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    panels = len(lengths) + (len(growth) > 1)
    figure = Figure(figsize=(5.4 * panels, 4.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, length in zip(axes, lengths, strict=False):
        for i, row in enumerate(row for row in rows if row["length"] == length):
            style = {"color": f"C{i}", "marker": MARKS[i % len(MARKS)]}
            full = rows[[r["length"] for r in rows].index(length)]["mib_predicted"]
            predicted = 100 * row["mib_predicted"] / full, row["time_predicted"]
            measured = 100 * row["mib_ratio"], row["time"]
            line = {"color": style["color"], "linewidth": 0.8, "alpha": 0.6}
            axis.plot(*zip(predicted, measured, strict=True), **line)
            axis.plot(*predicted, **style, markerfacecolor="none")
            axis.plot(*measured, **style, linestyle="", label=row["policy"])
        axis.set(xscale="log", xlabel="memory, % of keeping everything")
        axis.set(ylabel="time, relative", title=f"T = {length}")
        axis.axhline(4 / 3, color="grey", linestyle=":", linewidth=1)
        axis.grid(alpha=0.3)
        axis.legend(
            fontsize=7, title="full: measured, hollow: predicted", ncols=3,
            loc="upper center", bbox_to_anchor=(0.5, -0.15),
        )  # fmt: skip
    if len(growth) > 1:
        _draw_growth(axes[-1], growth)
    return figure


def _draw_growth(axis: Any, growth: list[dict[str, Any]]) -> None:
    lengths, right = [row["length"] for row in growth], axis.twinx()
    for i, name in enumerate(("None", "slots(√T)")):
        of = lambda key, name=name: [row[name][key] for row in growth]
        axis.loglog(lengths, of("ms"), f"C{i}o-", label=f"{name}: ms")
        right.loglog(lengths, of("mib"), f"C{i}s--", label=f"{name}: MiB")
    axis.set(xlabel="T", ylabel="ms", title="growth with T")
    axis.set_xticks(lengths, map(str, lengths))
    axis.set_xticks([], minor=True)
    right.set_ylabel("MiB")
    lines = [line for each in (axis, right) for line in each.get_lines()]
    axis.legend(lines, [line.get_label() for line in lines], fontsize=7)
    axis.grid(alpha=0.3)
