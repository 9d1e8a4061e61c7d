"""Table and picture of the study `equilibrium_propagation`."""

from collections.abc import Collection

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.harness.jobs import Row

NOTE = (
    "Test error in %, mean ± standard deviation over seeds (lower is better). last: "
    "after training. chosen: when the error on validation images was lowest. − exact: "
    "difference in percentage points to bptt (to rbp, if bptt has not run) from the "
    "same seeds and with the same weights.\nCosine: between the rule's gradient and "
    "that of bptt on 100 training images. Residual: ‖f(h) − h‖ / ‖h‖ after the free "
    "phase, mean over test images. Both are given before → after training."
)


def show(rows: list[Row]) -> None:
    """Print the table, with a line for each rule."""
    present = dict.fromkeys(row["rule"] for row in rows)
    report.show_table(
        "MNIST by equilibrium propagation",
        ["", "last", "− exact", "chosen", "− exact", "cosine", "residual"],
        [_line(rows, rule, present) for rule in present],
        NOTE,
    )
    said = conclusion(rows)
    if said:
        report.conclude(said)


def conclusion(rows: list[Row]) -> str:
    """Compare each rule's error with the exact gradient's, paired by seed."""
    errors: dict[str, dict[int, float]] = {}
    for row in rows:
        errors.setdefault(row["rule"], {})[row["seed"]] = row["error"]
    said = []
    for exact in dict.fromkeys(exact_of(rule, errors) for rule in errors):
        ours, theirs = {}, {}
        for rule, each in errors.items():
            if exact and exact != rule and exact_of(rule, errors) == exact:
                seeds = [seed for seed in each if seed in errors[exact]]
                ours[rule] = [each[seed] for seed in seeds]
                theirs[rule] = [errors[exact][seed] for seed in seeds]
        reference = f"the test error of {exact}"
        said.append(
            report.against(
                reference, theirs, ours, higher_is_better=False, unit=" points"
            )
        )
    return " ".join(filter(None, said))


def draw(rows: list[Row]) -> Figure:
    """Draw test errors, cosines to bptt's gradient and residuals of the first seed."""
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    styles = report.rule_styles([row["rule"] for row in first])
    figure, axes = report.panels(1, 3, width=5, height=4)
    for row in first:
        parts = np.linspace(0, row["updates"], len(row["cosines"]))
        curves = row["errors"], row["cosines"], row["residuals"]
        for axis, curve in zip(axes[0], curves, strict=True):
            name = row["rule"]
            axis.plot(parts[-len(curve) :], curve, label=name, **styles[name])
            axis.locator_params(axis="x", nbins=4)
    left, middle, right = axes[0]
    left.set(xlabel="updates", ylabel="test error, %", title="test error")
    middle.set(xlabel="updates", ylabel="cosine", title="cosine to bptt's gradient")
    right.set(
        xlabel="updates", ylabel="residual", title="residual after the free phase"
    )
    report.log_ticks(left)
    report.log_ticks(right)
    report.label_ends(left, middle, right)
    return figure


def chosen(row: Row) -> float:
    """Return the test error when the validation error was lowest."""
    return row["errors"][int(np.argmin(row["valid_errors"]))]


def exact_of(rule: str, present: Collection[str]) -> str | None:
    """Return the rule with the exact gradient of the same network, if it has run."""
    kind = " asymmetric" if "asymmetric" in rule else ""
    names = (name + kind for name in ("bptt", "rbp"))
    return next((name for name in names if name in present), None)


def _line(rows: list[Row], rule: str, present: Collection[str]) -> list[str]:
    mine = [row for row in rows if row["rule"] == rule]
    exact = exact_of(rule, present)
    partners = {row["seed"]: row for row in rows if row["rule"] == exact}
    cells = [rule]
    for error in (lambda row: row["errors"][-1], chosen):
        pairs = [
            error(row) - error(partners[row["seed"]])
            for row in mine
            if row["seed"] in partners
        ]
        cells += [
            report.mean_sd([error(row) for row in mine]),
            _signed(pairs) if pairs and rule != exact else "–",
        ]
    ends = lambda name, i: float(np.mean([row[name][i] for row in mine]))
    cells.append(f"{ends('cosines', 0):.4f} → {ends('cosines', -1):.4f}")
    cells.append(f"{ends('residuals', 0):.1g} → {ends('residuals', -1):.1g}")
    return cells


def _signed(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.2f}{spread}"
