"""Memory and time of one gradient through time, for every remat policy.

A remat policy decides which values BPTT stores and which it recomputes. Gruslys et al.
(2016) save 95 % of the memory of BPTT over T = 1000 steps, and take one third more
time. One third is the time of one additional forward pass: without recomputation, a
gradient takes as long as three forward passes, because a backward pass takes as long as
two. For an LSTM, this study first predicts memory and time without running the network,
then measures both.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from bpvariants import gradients
from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least
from experiments.harness.study import run_study, Study
from experiments.harness.timing import Entrants, race

HEADER = ["policy", "steps / T", "MiB predicted", "MiB", "% of full", "time predicted"]
HEADER += ["time", "ms"]
MARKS = "osD^vP*Xhd"


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How much memory and time does an LSTM's gradient take with each remat policy?"""

    QUICK: ClassVar = {
        "lengths": (200,),
        "growth": (100, 200, 400),
        "units": 32,
        "repeats": 3,
    }
    CHECKS: ClassVar = {"batch inputs units": at_least(1), "repeats": at_least(2)}

    lengths: tuple[int, ...] = (1000, 10_000)
    """Sequence lengths T; each length has its own panel and table."""
    batch: int = 8
    """Number of sequences in the batch."""
    inputs: int = 32
    """Number of inputs of the LSTM at each step."""
    units: int = 64
    """Number of units of the LSTM."""
    growth: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    """Sequence lengths T to measure the growth of memory and time with T."""
    repeats: int = 7
    """Number of times that each policy is timed; the table shows the median time."""

    def check(self):
        """Check the sequence lengths, and that only one seed is requested."""
        for name in ("lengths", "growth"):
            if not all(length >= 4 for length in getattr(self, name)):
                raise ValueError(
                    f"{name} must be at least 4 steps each, got {getattr(self, name)}."
                )
        if self.seeds != 1:
            raise ValueError(
                "seeds must be 1, because memory and time do not depend on them; "
                f"increase repeats instead. Got {self.seeds}."
            )


def main(config: Config) -> report.Result:
    """Measure all remat policies; show measured and predicted memory and time."""
    return run_study("memory_time", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job for each sequence length in `lengths` and in `growth`."""
    tables = [
        Job(f"T = {length}, all policies", 1, partial(_policies, config, length))
        for length in config.lengths
    ]
    growth = [
        Job(f"growth, T = {length}", 1, partial(_growth, config, length))
        for length in config.growth
    ]
    return tables + growth


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    policies = [row for row in rows if row["kind"] == "policy"]
    growth = [row for row in rows if row["kind"] == "growth"]
    _show(policies)
    _show_growth(growth)
    if policies:
        report.save_picture(folder, "memory_time", _draw(policies))
    if len(growth) > 1:
        report.save_picture(folder, "growth", _draw_growth(growth))


def _problem(config: Config, length: int) -> tuple[Any, Any, tuple]:
    """Return a step, a loss, and a gradient rule's arguments for `length` steps."""
    network = nn.OptimizedLSTMCell(config.units)
    keys = jax.random.split(jax.random.key(config.first_seed), 3)
    normal = lambda key, size: jax.random.normal(key, (length, config.batch, size))
    xs, targets = normal(keys[1], config.inputs), normal(keys[2], config.units)
    carry = network.initialize_carry(keys[0], xs[0].shape)
    loss = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)
    params = network.init(keys[0], carry, xs[0])
    return network.apply, loss, (params, carry, xs, targets)


def _policies(config: Config, length: int, way: Way) -> list[Row]:
    """Return one row for each remat policy; the first policy stores all values."""
    del way
    step, loss, arguments = _problem(config, length)
    params, carry, xs, targets = arguments
    size = gradients.remat.step_bytes(step, params, carry, xs[0], loss, targets[0])
    policies = _named(length, size)
    entrants: Entrants = {
        name: (gradients.bptt(step, loss, remat=policy), arguments)
        for name, policy in policies.items()
    }
    measured = race(f"T = {length}", entrants, repeats=config.repeats)
    rows = []
    for row in measured:
        cost = gradients.remat.predicted_cost(length, policies[row.name], size)
        rows.append({
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
        })  # fmt: skip
    return rows


def _named(length: int, size: gradients.remat.StepBytes) -> dict[str, Any]:
    """Return {name: remat policy} of all policies to measure on sequences of T steps.

    The policy `every(k)` stores one carry for every k steps. The memory of this policy
    is lowest at k = √(T c / r). Here c is the size of a carry, and r is the size of all
    values that the backward pass needs for one step.
    """
    best = math.sqrt(length * size.carry / size.kept)
    divisors = [k for k in range(1, length + 1) if length % k == 0]
    nearest = lambda goal: min(divisors, key=lambda k: abs(math.log(k / goal)))
    k, wide = nearest(best), nearest(4 * best)  # divisors of T: no inputs are copied
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
        except ValueError:  # the memory budget is too small for even one time step
            continue
        policies[f"budget({share:.0%} of full)"] = policy
    return policies


def _growth(config: Config, length: int, way: Way) -> Row:
    """Measure memory and time of a gradient over T steps, with two remat policies.

    The policy None stores all values, and slots(√T) stores √T carries.
    """
    del way
    step, loss, arguments = _problem(config, length)
    whole = gradients.bptt(step, loss)
    slots = gradients.remat.slots(round(math.sqrt(length)))
    entrants: Entrants = {
        "None": (whole, arguments),
        "slots(√T)": (gradients.bptt(step, loss, remat=slots), arguments),
    }
    row: Row = {"kind": "growth", "length": length}
    for measured in race(f"T = {length}", entrants, repeats=config.repeats):
        row[measured.name] = {"ms": measured.ms, "mib": measured.temp_mib}
    return row


def _slope(lengths: list[int], values: list[float]) -> float:
    """Return the slope of log value against log T, by a fitted line."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def _show(rows: list[Row]) -> None:
    """Print a table of remat policies for each sequence length T."""
    for length in dict.fromkeys(row["length"] for row in rows):
        lines, mine = [], [row for row in rows if row["length"] == length]
        for row in mine:
            line = [row["policy"], f"{row['evaluations'] / length:.2f}"]
            line += [f"{row['mib_predicted']:.2f}", f"{row['mib']:.2f}"]
            line += [f"{row['mib_ratio']:.2%}", f"{row['time_predicted']:.2f}"]
            lines.append([*line, f"{row['time']:.2f}", f"{row['ms']:.1f}"])
        report.show_table(
            f"One gradient through T = {length} steps of an LSTM",
            HEADER,
            lines,
            "Steps / T: evaluations of the step, per time step. Time: relative to the "
            "policy None, which stores everything; the prediction counts a backward "
            "pass as two forward passes. MiB: temporary memory by XLA's analysis, "
            "including weights and their gradients. Lower is better.",
        )
        least = min(mine, key=lambda row: row["mib"])
        share, time = 100 * least["mib_ratio"], least["time"]
        report.conclude(
            f"Least memory at T = {length:,}: {least['policy']}, {share:.1f} % of the "
            f"memory without recomputation, in {time:.2f} times the time."
        )


def _show_growth(rows: list[Row]) -> None:
    """Print how time and memory grow with the sequence length T."""
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
        "Slope: exponent a of a fit by Tᵃ, lower is better; 1 means growth in "
        "proportion to T.",
    )
    fits = [f"as T to the power of {line[2]} with {line[0]}" for line in lines]
    report.conclude(f"Memory grows {report.listed(fits)}.")


def _draw(rows: list[Row]) -> Figure:
    """Draw the time of each remat policy against its memory, a panel for each T.

    A line connects the prediction of a policy (hollow) and its measurement (full).
    """
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    figure, axes = report.panels(1, len(lengths), width=6.4, height=4.6)
    for axis, length in zip(axes[0], lengths, strict=True):
        mine = [row for row in rows if row["length"] == length]
        full = mine[0]["mib_predicted"]
        for i, row in enumerate(mine):
            # The colours are fewer than the marks, so that no pair comes twice.
            colour = report.COLOURS[i % (len(report.COLOURS) - 1)]
            style = {"color": colour, "marker": MARKS[i % len(MARKS)]}
            predicted = 100 * row["mib_predicted"] / full, row["time_predicted"]
            measured = 100 * row["mib_ratio"], row["time"]
            line = {"color": colour, "linewidth": 0.8, "alpha": 0.6}
            axis.plot(*zip(predicted, measured, strict=True), **line)
            axis.plot(*predicted, **style, markerfacecolor="none")
            axis.plot(*measured, **style, linestyle="", label=row["policy"])
        axis.axhline(4 / 3, color="#888888", linestyle=":", linewidth=1)
        axis.text(
            0.99, 4 / 3, "4/3: each step twice", fontsize=8, color="#666666",
            ha="right", va="bottom", transform=axis.get_yaxis_transform(),
        )  # fmt: skip
        axis.set(
            xlabel="memory, % of remat=None", ylabel="time, relative to remat=None"
        )
        axis.set_title(f"T = {length:,} (full: measured, hollow: predicted)")
        report.log_ticks(axis, "x")
    report.label_ends(*axes[0])
    return figure


def _draw_growth(growth: list[Row]) -> Figure:
    """Draw the time and the memory of one gradient against the sequence length T."""
    figure, axes = report.panels(1, 2, width=5)
    lengths = [row["length"] for row in growth]
    for axis, (key, label) in zip(
        axes[0], {"ms": "time, ms", "mib": "memory, MiB"}.items(), strict=True
    ):
        for i, name in enumerate(("None", "slots(√T)")):
            values = [row[name][key] for row in growth]
            style = {"color": report.COLOURS[i], "marker": MARKS[i]}
            axis.plot(lengths, values, label=f"remat = {name}", **style)
        axis.set(xlabel="sequence length T", ylabel=label)
        axis.set_title(f"growth of {label.split(',')[0]}")
        report.log_ticks(axis, "xy")
        axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    report.label_ends(*axes[0])
    return figure
