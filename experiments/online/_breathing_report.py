"""Tables and pictures of `breathing`, and the published errors."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.online import _breathing_scores as scores

Rows = list[dict[str, Any]]
# {(method, samples per second): published mean nRMSE}, M. Pohl et al., arXiv 2403.01607
PUBLISHED = {("snap_1", 3.3): 0.335, ("snap_1", 10): 0.157, ("uoro", 30): 0.086}
TO_BEAT = 0.157
NAMES = {
    "persistence": "persistence",
    "last target": "the last target again",
    "ridge": "ridge regression, fitted in the first minute",
    "rls": "recursive least squares",
    "known targets": "recursive least squares on known targets",
    "lms": "LMS (linear)",
    "snap_1": "tanh, SnAp-1",
    "uoro": "tanh, UORO",
    "truncated_bptt": "tanh, truncated BPTT",
    "rflo": "leaky tanh, RFLO",
    "rtrl": "tanh, RTRL",
    "eprop": "LSTM, e-prop",
}
COLOURS = {"measured": "#0072b2", "at once": "#d55e00"}
WORDS = {
    "measured": "targets learned when measured",
    "at once": "targets learned at once (uses the future)",
}


def show(rows: Rows, config: Any) -> None:
    """Print errors by method, by rate and by smoothing, and paired comparisons."""
    main = _of(rows, rate=10, smoothing="none")
    if main:
        _show_methods(main, config)
        _show_comparisons(main)
    _show_rates(rows)
    _show_smoothed(rows)


def cell(row: dict[str, Any] | None) -> str:
    """Return the mean nRMSE over sequences with its interval, like .57 (.5 to .6)."""
    if row is None:
        return "–"
    if not np.isfinite(row["nrmse"]).all():
        return "not finite"
    low, high = scores.interval(row["nrmse"])
    return f"{np.mean(row['nrmse']):.3f} ({low:.3f} to {high:.3f})"


def _of(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows with the given fields; rates may differ by rounding."""
    rounded = lambda a: round(a, 1) if isinstance(a, float | int) else a
    same = lambda row, key: rounded(row[key]) == rounded(wanted[key])
    return [row for row in rows if all(same(row, key) for key in wanted)]


def _one(rows: Rows, **wanted: Any) -> dict[str, Any] | None:
    found = _of(rows, **wanted)
    return found[0] if found else None


def _methods(rows: Rows) -> list[str]:
    return [name for name in NAMES if _of(rows, method=name)]


def _show_methods(rows: Rows, config: Any) -> None:
    lines = []
    for name in _methods(rows):
        mine = [_one(rows, method=name, protocol=each) for each in COLOURS]
        published = PUBLISHED.get((name, 10))
        seconds = sum(row["seconds"] for row in mine if row)
        lines.append([NAMES[name], *map(cell, mine)])
        lines[-1] += [f"{published:.3f}" if published else "", f"{seconds:.0f}"]
    report.show_table(
        "10 samples per second: mean nRMSE",
        ["", "measured", "at once", "published", "s"],
        lines,
        "Mean over sequences and horizons up to 2.1 s, lower is better, with the 95 % "
        "bootstrap interval over sequences. Measured: a target is learned from when "
        "its sample is measured; only this is a forecast. At once: the weights learn "
        "from the target of a forecast right after it, as in the published program. "
        "The forecast for time t + h then uses samples up to t + h − 1. The last "
        f"target again: this sample itself. Networks have {config.units} units, those "
        f"of RTRL and e-prop {config.few}. s: seconds with compilation; both protocols "
        "share the compiled programs.",
    )


def _show_comparisons(rows: Rows) -> None:
    """Print the best method of each protocol, compared with what it should beat."""
    pairs: list[tuple[dict[str, Any], list[float], str]] = []
    for protocol, rival in (("measured", "persistence"), ("at once", "snap_1")):
        mine = [
            row for row in _of(rows, protocol=protocol)
            if np.isfinite(row["nrmse"]).all() and row["method"] != "last target"
        ]  # fmt: skip
        best = min(mine, key=lambda row: np.mean(row["nrmse"]), default=None)
        other = _one(rows, protocol=protocol, method=rival)
        if best is None:
            continue
        pairs.append((best, [TO_BEAT] * len(best["nrmse"]), "published"))
        if other and other is not best:
            pairs.append((best, other["nrmse"], NAMES[rival]))
    if repeated := _one(rows, method="last target"):
        pairs.append((repeated, [TO_BEAT] * len(repeated["nrmse"]), "published"))
    report.show_table(
        "Best methods, and what they are compared with",
        ["", "protocol", "compared with", "difference", "p"],
        [compared(*pair) for pair in pairs],
        f"Published: the mean {TO_BEAT} of SnAp-1; errors of single sequences are not "
        "published, so it is taken as the error of each. p: two-sided paired bootstrap "
        "over sequences.",
    )
    if pairs:
        report.conclude(" ".join(in_words(*pair) for pair in pairs))


def in_words(row: dict[str, Any], other: list[float], name: str) -> str:
    """Say whether a method's error differs from the errors `other` [S] of a rival."""
    low, high = scores.interval(np.subtract(row["nrmse"], other).tolist())
    method = NAMES[row["method"]]
    rival = "the published error of SnAp-1" if name == "published" else name
    about = f"{method[:1].upper()}{method[1:]} against {rival}"
    if low <= 0 <= high:
        found = "no difference in nRMSE"
    else:
        by = " to ".join(f"{end:.3f}" for end in sorted((abs(low), abs(high))))
        found = f"nRMSE {'lower' if high < 0 else 'higher'} by {by}"
    return f"{about}, {WORDS[row['protocol']]}: {found}."


def compared(row: dict[str, Any], other: list[float], name: str) -> list[str]:
    """Return the cells of a paired comparison with the errors `other` [S]."""
    differences = np.subtract(row["nrmse"], other)
    low, high = scores.interval(differences.tolist())
    text = f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    p = scores.p_value(differences.tolist())
    shown = f"{p:.4f}" if p >= 0.001 else "< 0.001"
    return [NAMES[row["method"]], row["protocol"], name, text, shown]


def _show_rates(rows: Rows) -> None:
    raw = _of(rows, smoothing="none")
    rates = sorted({row["rate"] for row in raw})
    if len(rates) < 2:
        return
    lines = []
    for protocol, words in WORDS.items():
        mine = _of(raw, protocol=protocol)
        names = [n for n in _methods(mine) if len(_of(mine, method=n)) == len(rates)]
        lines.append([words])
        for name in names:
            found = [cell(_one(mine, method=name, rate=rate)) for rate in rates]
            lines.append([NAMES[name], *found])
    published = [
        [f"{name}, published"]
        + [f"{PUBLISHED[key]:.3f}" if (key := (name, round(rate, 1))) in PUBLISHED
           else "" for rate in rates]
        for name in ("snap_1", "uoro")
    ]  # fmt: skip
    report.show_table(
        "Mean nRMSE by samples per second",
        ["", *(f"{rate:.3g} Hz" for rate in rates)],
        [*lines, *published],
        "Every third sample at 3.33 Hz; interpolated between samples at 30 Hz, where a "
        "value contains the later sample, up to 0.1 s ahead.",
    )


def _show_smoothed(rows: Rows) -> None:
    at_ten = _of(rows, rate=10)
    kinds = [k for k in ("none", "causal", "centred") if _of(at_ten, smoothing=k)]
    if len(kinds) < 2:
        return
    lines = []
    for protocol, words in WORDS.items():
        lines.append([words])
        for name in _methods(_of(at_ten, protocol=protocol, smoothing=kinds[-1])):
            mine = _of(at_ten, protocol=protocol, method=name)
            found = [cell(_one(mine, smoothing=kind)) for kind in kinds]
            lines.append([NAMES[name], *found])
    report.show_table(
        "Mean nRMSE of smoothed series, 10 samples per second",
        ["", *kinds],
        lines,
        "Inputs and targets are means of five samples: four are earlier (causal), or "
        "two of them later ones (centred). With the centred mean, a method reads the "
        "future of the samples, so its error is not that of a forecast.",
    )


def save(folder: Path, rows: Rows) -> None:
    """Save the pictures: errors by method, and forecasts beside the truth."""
    main = _of(rows, rate=10, smoothing="none")
    if main:
        report.save_picture(folder, "errors", draw_errors(main))
        report.save_picture(folder, "forecasts", draw_forecasts(main))


def draw_errors(rows: Rows) -> Figure:
    """Draw the mean nRMSE of all methods with intervals, and each sequence's."""
    names = _methods(rows)
    figure, axes = report.panels(width=7.6, height=1.2 + 0.4 * len(names))
    axis = axes[0, 0]
    for row in rows:
        if not np.isfinite(row["nrmse"]).all():
            continue
        y = names.index(row["method"]) + (
            -0.15 if row["protocol"] == "measured" else 0.15
        )
        colour, values = COLOURS[row["protocol"]], row["nrmse"]
        axis.plot(values, np.full(len(values), y), ".", color=colour, alpha=0.35, ms=4)
        axis.plot(scores.interval(values), [y, y], color=colour, lw=2.5)
        axis.plot(np.mean(values), y, "o", color=colour, ms=6)
    axis.axvline(TO_BEAT, color="#222222", linestyle="--", linewidth=1)
    axis.set_yticks(range(len(names)), [NAMES[name] for name in names])
    axis.set(
        xlabel="nRMSE, mean over horizons up to 2.1 s", ylim=(len(names) - 0.5, -0.5)
    )
    axis.set_title("Breathing, 10 samples per second")
    report.log_ticks(axis, "x")
    marks = {WORDS[p]: {"color": c, "marker": "o"} for p, c in COLOURS.items()}
    dot = {"color": "#888888", "marker": ".", "linestyle": ""}
    published = {"color": "#222222", "linestyle": "--"}
    report.legend_below(
        figure, marks | {"one sequence": dot, "published, SnAp-1": published}
    )
    return figure


def draw_forecasts(rows: Rows) -> Figure:
    """Draw 30 s of one coordinate with its longest forecasts, a panel per protocol."""
    figure, axes = report.panels(2, 1, width=7.6, height=2.6, sharex=True, sharey=True)
    styles = report.rule_styles(["snap_1"]) | {
        "rls": {"color": "#009e73", "linestyle": "-."}
    }
    for axis, (protocol, words) in zip(axes[:, 0], WORDS.items(), strict=True):
        mine = _of(rows, protocol=protocol)
        if not mine:
            continue
        truth = np.array(mine[0]["truth"])
        seconds = np.arange(len(truth)) / 10
        axis.plot(seconds, truth, color="#222222", linewidth=1.8)
        for name, style in styles.items():
            if row := _one(mine, method=name):
                axis.plot(seconds, row["forecast"], linewidth=1.3, **style)
        axis.set(title=f"{words[0].upper()}{words[1:]}", ylabel="position, mm")
        low, high = truth.min(), truth.max()
        axis.set_ylim(low - (high - low), high + (high - low))
    axes[-1, 0].set_xlabel("seconds after the first minute")
    ahead = rows[0]["horizons"][-1]
    names = {"measured position": {"color": "#222222"}}
    names |= {f"{NAMES[n]}, {ahead:.1f} s ahead": s for n, s in styles.items()}
    report.legend_below(figure, names)
    return figure
