"""Tables and picture of `influence_balancing`, and reference values."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

FARTHEST = 100  # largest number of steps that a gradient is propagated back
OPTIMUM, SENSITIVITY, LOST = -1 / 6, -6.0, 1e6
NEAR = 1e-3  # distance of θ from the optimum at which a method counts as arrived
WINDOWED = ("truncated_bptt", "artbp")  # rules whose gradient is of a window
# Reference values, computed outside this project. MEASURED has the sensitivity ds₁/dθ
# of the first unit for each lookback. FATES has the parameter θ for each method, after
# 3000 iterations at a learning rate of 1e-4. If |θ| exceeded 1e6, FATES instead has the
# number of iterations after which |θ| exceeded 1e6.
MEASURED = {
    **{1: "1", 5: "5", 10: "10", 20: "16.476", 23: "15.487", 30: "9.870"},
    **{40: ".566", 41: "first < 0", 50: "−4.753", 100: "−6"},
}
FATES = {
    "truncated_bptt, lookback 1, every 1": "3.26",
    "truncated_bptt, lookback 10, every 10": "lost after 2531",
    "truncated_bptt, lookback 30, every 30": "lost after 2448",
    "truncated_bptt, lookback 40, every 40": "1.68",
    "truncated_bptt, lookback 41, every 41": ".283",
    "truncated_bptt, lookback 50, every 50": "−.16654",
    "truncated_bptt, lookback 100, every 100": "−.166653",
    "rtrl": "−.166666665",
    "uoro": "−.162, .036, .064",
    "uoro, 10 times as long": "−.16667",
}


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print derivatives ds₁/dθ by truncated gradients, and each method's last θ.

    s₁ is the first unit of the network. θ is the network's only parameter.
    """
    for row in rows[:1]:
        report.show_table(
            "ds₁/dθ, truncated to K steps back; the exact value is −6",
            ["K", "here", "reference"],
            [[K, f"{x:.3f}", MEASURED[int(K)]] for K, x in row["table"].items()],
        )
    lines = []
    comparable = (config.iterations, config.learning_rate) == (3000, 1e-4)
    for row in rows[1:]:
        ends = [
            f"lost after {after}" if after is not None else f"{theta:.9f}"
            for theta, after in zip(row["theta"], row["lost_after"], strict=True)
        ]
        if len(ends) > 1:
            ends = [_summary(row)]
        known = FATES.get(row["method"], "") if comparable else ""
        lines.append([row["method"], f"{row['learning_rate']:g}", *ends, known])
    report.show_table(
        f"θ after {config.iterations} iterations; the optimum is −1/6 = −.166666667",
        ["", "learning rate", "θ", "reference"],
        lines,
        "truncated_bptt: a lookback of 41 steps is the first with the right sign. "
        f"artbp: windows of {FARTHEST} steps. Other rules: one step per iteration. "
        "Rules that draw random numbers: median (range) of "
        f"{config.seeds} seeds. snap_1 is exact in this network, because θ reaches "
        "each unit directly. rflo drops the recurrent matrix, so its ds₁/dθ is 2. The "
        "forward gradient is exact, because there is one parameter. kf_rtrl is "
        "missing, because θ does not factorise. Lost after: iterations until |θ| "
        "exceeds 1e6. Reference: computed outside of this project, 3000 iterations at "
        "a learning rate of 1e-4.",
    )
    _conclude(rows)


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which lookbacks give the wrong sign, and which methods find the optimum."""
    said = []
    for row in rows[:1]:
        wrong = np.flatnonzero(np.array(row["curve"]) > 0) + 1
        if len(wrong):
            said.append(
                f"The truncated derivative has the wrong sign at {len(wrong)} of "
                f"{len(row['curve'])} lookbacks; the longest of them is {wrong[-1]}."
            )
    near, far, lost = [], [], []
    for row in rows[1:]:
        if None in row["theta"]:
            lost.append(row["method"])
        elif max(abs(theta - OPTIMUM) for theta in row["theta"]) < NEAR:
            near.append(row["method"])
        else:
            far.append(row["method"])
    for words, names in {
        f"Within {NEAR:g} of the optimum with every seed": near,
        "Farther with at least one seed": far,
        "Lost with at least one seed": lost,
    }.items():
        if names:
            said.append(f"{words}: {'; '.join(names)}.")
    report.conclude(" ".join(said))


def _summary(row: dict[str, Any]) -> str:
    kept = [theta for theta in row["theta"] if theta is not None]
    if not kept:
        return "all lost"
    lost = f", {len(row['theta']) - len(kept)} lost" if None in row["theta"] else ""
    low, median, high = np.quantile(kept, [0, 0.5, 1])
    return f"{median:.6f} ({low:.6f} … {high:.6f}){lost}"


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw ds₁/dθ against lookbacks, and the error of θ against iterations.

    s₁ is the first unit of the network. θ is the network's only parameter.
    """
    figure, axes = report.panels(
        1, 3, width=4.7, height=4.2, gridspec_kw={"width_ratios": [2, 3, 3]}
    )
    left, middle, right = axes[0]
    curve = np.array(rows[0]["curve"])
    steps = np.arange(1, len(curve) + 1)
    left.fill_between(steps, 0, curve, where=curve > 0, color="#d55e00", alpha=0.2)
    left.plot(steps, curve, color="black")
    left.axhline(0, color="black", linewidth=0.8)
    left.axhline(SENSITIVITY, color="#666666", linewidth=0.8, linestyle=":")
    at = {"fontsize": 8, "color": "#666666", "ha": "right", "va": "bottom"}
    left.text(FARTHEST, SENSITIVITY, "exact: −6", **at)
    left.text(20, 4, "wrong\nsign", color="#a04000", fontsize=9, ha="center")
    left.set(xlabel="lookback (steps)", ylabel="ds₁/dθ, truncated to the lookback")
    left.set_title("Below a lookback of 41,\nthe sign is wrong")
    windows = [row for row in rows[1:] if row["method"].startswith(WINDOWED)]
    online = [row for row in rows[1:] if row not in windows]
    styles = report.rule_styles(row["method"] for row in rows[1:])
    for axis, mine in {middle: windows, right: online}.items():
        for row in mine:
            style, label = styles[row["method"]], row["method"]
            if label.startswith("truncated_bptt"):
                lookback = label.split(",")[1].split()[-1]
                label = f"lookback and every {lookback}"
            for j, path in enumerate(row["path"]):
                error = [np.nan if x is None else abs(x - OPTIMUM) for x in path]
                axis.plot(
                    row["iterations"], error, label="_" if j else label,
                    linewidth=0.9 if len(row["path"]) > 1 else 1.8, **style,
                )  # fmt: skip
        low, high = axis.dataLim.intervaly
        if np.isfinite([low, high]).all():  # not for a panel without curves
            axis.set_ylim(max(1e-10, low / 3), min(2 * LOST, 3 * high))
        axis.set_ylabel("|θ + 1/6|, distance to the optimum")
        report.log_ticks(axis)
    middle.set_xlabel("iterations, one window each")
    middle.set_title("truncated_bptt and artbp")
    right.set_xlabel("iterations, one step each")
    right.set_title("online rules")
    report.log_ticks(right, "x")
    report.label_ends(middle, right)
    return figure
