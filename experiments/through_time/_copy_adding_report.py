"""Tables and pictures of `copy_adding`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import report

# Published losses of Bai, Kolter, Koltun 2018, table 1: copy task with T = 1000 and 16K
# parameters, adding task with T = 600 and 70K parameters.
PUBLISHED = {
    "copy": {"lstm": ".0204", "gru": ".0197", "tanh": ".0202"},
    "adding": {"lstm": ".164", "gru": "5.3e-5", "tanh": ".177"},
}
TCN = {"copy": "3.5e-5", "adding": "5.8e-5"}
PUBLISHED_FLOOR = {"copy": ".0204", "adding": ".1667"}
TITLES = {"copy": "copy memory", "adding": "adding"}
LEAST = 1e-30  # gradient norms below this value are drawn at this value


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print our losses, published losses, and floors: lowest losses without memory."""
    sizes = {
        "copy": f"T = {config.copy_length}",
        "adding": f"T = {config.adding_length}",
    }
    header = ["", "gradient", "params", "loss", "of the floor", "below at"]
    header += ["‖δ₁‖/‖δ_T‖", "published", "ms/step", "compile s", "MiB"]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines = []
        for row in rows:
            if row["task"] != task:
                continue
            whole = row["rule"] == "bptt"
            published = PUBLISHED[task][row["cell"]] if whole else ""
            line = [row["cell"], row["rule"], str(row["params"])]
            line.append(report.mean_sd(row["loss"]))
            line.append(f"{np.mean(row['loss']) / row['floor']:.3g}")
            line.append(_below(row["below"]))
            reach = [_reach(row[key]) for key in ("flow_before", "flow_after")]
            line.append("{:.0e} → {:.0e}".format(*reach) if whole else "")
            memory = row["temp_bytes"]
            line += [published, f"{row['ms_per_step']:.1f}"]
            line += [f"{row['compile_seconds']:.1f}"]
            lines.append([*line, "?" if memory is None else f"{memory / 2**20:.1f}"])
        floor = next(row["floor"] for row in rows if row["task"] == task)
        lines.append(["floor", "", "", f"{floor:.4f}", "1", *2 * [""]])
        lines[-1] += [PUBLISHED_FLOOR[task], "", "", ""]
        lines.append(["TCN", *6 * [""], TCN[task], "", "", ""])
        report.show_table(
            f"{TITLES[task].capitalize()}, {sizes[task]}, after {config.steps} steps",
            header,
            lines,
            _note(task, config),
        )
        _conclude(task, floor, [row for row in rows if row["task"] == task])


def _conclude(task: str, floor: float, rows: list[dict[str, Any]]) -> None:
    """Say which cells have the lowest loss, and which use their memory."""
    scores = {f"{row['cell']} by {row['rule']}": row["loss"] for row in rows}
    said = [
        report.verdict("loss", scores, higher_is_better=False),
        report.against("the floor", floor, scores, higher_is_better=False),
    ]
    report.conclude(" ".join(filter(None, said)), about=TITLES[task].capitalize())


def _note(task: str, config: Any) -> str:
    what = {
        "copy": "Cross-entropy in nats per step, lower is better. Floor: loss of a "
        "network that predicts the blanks and guesses the symbols, which are shown "
        f"{config.copy_length + 10} steps before.",
        "adding": "Squared error, lower is better. Floor: loss of always predicting 1.",
    }
    return (
        f"{what[task]} Loss: mean ± standard deviation of {config.seeds} seeds, in the "
        "last fifth of the steps. Below at: for each seed, the first step at which the "
        "mean loss of the last hundred steps is a tenth below the floor. Lookback "
        "20, every 10: every 10 steps, gradients go back 20 steps. δ_t: gradient of "
        "the last step's loss in the carry of step t, before → after training. "
        "Published: Bai et al. 2018, table 1, copy T = 1000 and adding T = 600; "
        "comparable with ours at these sizes only."
    )


def _below(steps: list[int | None]) -> str:
    return ", ".join("never" if step is None else str(step) for step in steps)


def _reach(flow: list[list[float]]) -> float:
    return float(np.exp(np.mean([np.log(_relative(run)[0]) for run in flow])))


def _relative(flow: list[float]) -> np.ndarray:
    return np.maximum(np.array(flow) / max(flow[-1], LEAST), LEAST)


def draw_losses(rows: list[dict[str, Any]]) -> Figure:
    """Draw training losses against updates, one panel for each task and rule.

    A horizontal line is the floor, the lowest loss of a network without memory.
    """
    shown = list(dict.fromkeys((row["task"], row["rule"]) for row in rows))
    across = min(3, len(shown))
    figure, axes = report.panels(-(-len(shown) // across), across, width=5.4)
    for axis, (task, rule) in zip(axes.flat, shown, strict=False):
        mine = [row for row in rows if (row["task"], row["rule"]) == (task, rule)]
        for row in mine:
            style = report.cell_style(row["cell"])
            for run in row["curve"]:
                axis.plot(row["curve_steps"], run, linewidth=0.5, alpha=0.4, **style)
            mean = np.mean(row["curve"], axis=0)
            axis.plot(row["curve_steps"], mean, label=row["cell"], **style)
        floor = mine[0]["floor"]
        axis.axhline(floor, color="#666666", lw=0.9, label="floor")
        axis.set(xlabel="updates", ylabel="loss")
        axis.set_title(f"{TITLES[task]}\n{rule}")
        axis.set_ylim(top=3 * floor)  # do not show the high early losses
        report.log_ticks(axis)
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    report.label_ends(*axes.flat[: len(shown)])
    return figure


def draw_flow(rows: list[dict[str, Any]]) -> Figure:
    """Draw the norm of ∂ℓ_T/∂h_t, for the last loss ℓ_T and the carry h_t of each step.

    The left panel of a task is before training, the right panel after training.
    """
    whole = [row for row in rows if row["rule"] == "bptt"]
    tasks = list(dict.fromkeys(row["task"] for row in whole))
    figure, axes = report.panels(len(tasks), 2, width=5.2, sharey="row")
    for line, task in zip(axes, tasks, strict=True):
        for row in (row for row in whole if row["task"] == task):
            for axis, key in zip(line, ("flow_before", "flow_after"), strict=True):
                runs = [np.log(_relative(run)) for run in row[key]]
                curve = np.exp(np.mean(runs, axis=0))
                steps = 1 + np.arange(len(curve))
                style = report.cell_style(row["cell"])
                axis.plot(steps, curve, label=row["cell"], **style)
        for axis, when in zip(line, ("before training", "after training"), strict=True):
            axis.set(title=f"{TITLES[task]}, {when}", xlabel="time step t")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            report.log_ticks(axis)
        line[0].set_ylabel("‖δ_t‖ / ‖δ_T‖")
    report.label_ends(*axes.flat)
    return figure
