"""Ablation of `categorise`: networks on words, each with one feature removed.

All networks learn from the training part alone. The validation part, on which settings
are chosen, and the test part are both tested with the same networks.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.categorise import baselines, jobs, texts
from experiments.applications.categorise.report import TITLES
from experiments.harness.jobs import Job, Row, Way

WHOLE = "complete network"
PARTS = {"validation": "accuracy", "test": "also_accuracy"}  # {part: field of a row}


def variants(config: Any) -> dict[str, dict[str, Any]]:
    """Return {name: changed options} of the complete network and of all others."""
    words = lambda name, value: {name: (value, *getattr(config, name)[1:])}
    no_pairs, no_shortcut = {"pairs": 0}, words("shortcut", False)
    large = words("scale", 0.3)
    return {
        WHOLE: {},
        "no pairs of words": no_pairs,
        "no shortcut": no_shortcut,
        "initial embeddings ×10": large,
        "no parts of words": {"hashed": 0},
        "no dropout": words("dropout", 0.0),
        "no unknown words in training": {"rare": 0.0},
        "last state, not the maximum": {"pooling": "last"},
        "all of the first three removed": no_pairs | no_shortcut | large,
    }


def make_jobs(config: Any, load: Callable) -> list[Job]:
    """Return a job for logistic regression, and one for each network."""
    tuned = dataclasses.replace(config, tune=True)
    tested = dataclasses.replace(config, tune=False)
    found = []
    for name in texts.sets_of(config):
        given = name, partial(load, tuned), partial(load, tested)
        found.append(Job(f"{name}-ablation-logistic", 1, partial(_logistic, *given)))
        steps = jobs.steps_of(config, "words")[0]
        for i, (variant, change) in enumerate(variants(config).items()):
            own = dataclasses.replace(tuned, looks=1, **change)
            train = partial(_train, own, variant, *given)
            found.append(Job(f"{name}-ablation-{i}", steps, train))
    return found


def _logistic(name: str, tuned: Callable, tested: Callable, way: Way) -> Row:
    _, train, validation = tuned(name)
    _, _, test = tested(name)
    asked = [*validation.texts, *test.texts]
    said = baselines.logistic(name, train.texts, train.labels, asked)
    both = np.split(said, [len(validation.texts)])
    labels = validation.labels, test.labels
    row: Row = {"set": name, "variant": baselines.NAMES[name]}
    for field, mine, right in zip(PARTS.values(), both, labels, strict=True):
        row[field] = jobs.percent((mine == right)[None])
    way.advance(1)
    return row


def _train(
    config: Any, variant: str, name: str, tuned: Callable, tested: Callable, way: Way
) -> Row:
    row = jobs.train_network(config, name, "words", tuned, way, also=tested(name)[2])
    shutil.rmtree(way.checkpoints, ignore_errors=True)  # 100 MB, not needed any more
    return row | {"variant": variant}


def show(folder: Path, rows: list[Row]) -> None:
    """Print a table and conclusions of each data set, and save its picture."""
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        seeds, header = max(len(row["accuracy"]) for row in mine), [""]
        for part in PARTS:
            header += [f"{part}, %", "95 %", "difference, 95 %"]
        report.show_table(
            f"Ablation on {TITLES[name]}",
            header,
            [_line(row, mine) for row in mine],
            "Accuracy, higher is better: mean ± standard deviation, and 95 % interval "
            f"of the mean, over {seeds} seeds. Difference: a network less the "
            f"{WHOLE} with the same seed. No network has learned from the validation "
            "part. Intervals over seeds do not contain the error that comes from the "
            "finite number of texts.",
        )
        report.save_picture(folder, f"ablation_{name}", draw(name, mine))
        for sentence in conclusions(mine):
            report.conclude(sentence, about=TITLES[name])


def conclusions(rows: list[Row]) -> list[str]:
    """Return sentences that compare the complete network with all others."""
    found = []
    for part, field in PARTS.items():
        scores = {row["variant"]: row[field] for row in rows}
        whole = scores.pop(WHOLE, None)
        if whole is None or len(whole) < 2:
            continue
        linear = {name: score for name, score in scores.items() if len(score) == 1}
        networks = {name: score for name, score in scores.items() if name not in linear}
        said = [
            report.against(
                name, score[0], {f"the {WHOLE}": whole}, higher_is_better=True,
                unit=" %",
            )
            for name, score in linear.items()
        ]  # fmt: skip
        for name, score in networks.items():
            gap = report.interval(np.subtract(score, whole).tolist())
            if gap.high < 0 or gap.low > 0:
                word = "worse" if gap.high < 0 else "better"
                said.append(f"{name}: {word} by {abs(gap.mean):.1f} points.")
        found.append(f"On the {part} part: {' '.join(filter(None, said))}")
    return found


def _line(row: Row, rows: list[Row]) -> list[str]:
    whole = {row["variant"]: row for row in rows}.get(WHOLE)
    cells = [row["variant"]]
    for field in PARTS.values():
        values = row[field]
        cells += [_mean_sd(values), _ends(report.interval(values))]
        gaps = [math.nan]
        if whole is not None and row is not whole and len(values) > 1:
            gaps = np.subtract(values, whole[field]).tolist()
        cells.append(_ends(report.interval(gaps), "+"))
    return cells


def _mean_sd(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def _ends(found: report.Interval, sign: str = "") -> str:
    if not math.isfinite(found.low):
        return "–"
    return f"{found.low:{sign}.1f} to {found.high:{sign}.1f}".replace("-", "−")


def draw(name: str, rows: list[Row]) -> Figure:
    """Draw the accuracy of each network on both parts, with 95 % intervals."""
    figure, axes = report.panels(1, 1, width=7.4, height=0.4 * len(rows) + 1.2)
    axis = axes[0, 0]
    cells = [row["cell"] for row in rows if "cell" in row]
    colour = report.cell_style(cells[0] if cells else "gru")["color"]
    styles: dict[str, dict[str, Any]] = {
        "validation": {"color": report.shade(colour, 0.45)}, "test": {"color": colour}
    }  # fmt: skip
    for shift, (part, field) in zip((-0.12, 0.12), PARTS.items(), strict=True):
        style = styles[part]
        for i, row in enumerate(rows):
            found, label = report.interval(row[field]), part if i == 0 else None
            if math.isfinite(found.low):
                axis.plot([found.low, found.high], [i + shift] * 2, **style)
            axis.plot(found.mean, i + shift, "o", label=label, **style)
    axis.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axis.invert_yaxis()
    axis.set(title=f"{TITLES[name]}: ablation", xlabel="accuracy, %")
    report.legend_below(figure)
    return figure
