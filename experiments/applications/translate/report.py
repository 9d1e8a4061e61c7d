"""Tables and pictures of `translate`."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

MEASURES = ("BLEU", "95 %", "exact %", "forced nats", "perplexity")
MEASURES += ("own nats", "ms")
BASELINES = {
    "most_common": "most common sentence",
    "nearest": "nearest source",
}
NOTE = (
    "BLEU (higher is better): greedy, lower case, one reference. 95 %: bootstrap "
    "interval of BLEU, first seed. Nats (lower is better): loss per word, with END and "
    "without unknown words; forced: the decoder reads the reference's words; own: the "
    "decoder reads its own words. ms: time of a step, all seeds together. Nothing is "
    "published for this split."
)


TITLES = {
    "bleu": "validation: greedy translations",
    "forced_nats": "validation: loss, reads the reference",
    "own_nats": "validation: loss, reads its own words",
}
EXAMPLE = {"source": "sentence", "reference": "reference", "said": "translation"}


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the table of scores, and some example translations."""
    ours: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "forcing" not in row:
            for name, title in BASELINES.items():
                ours[title] = _scores({key: [row[name][key]] for key in row[name]})
            continue
        cells = _scores(row)
        cells["forced nats"], cells["own nats"] = row["forced_nats"], row["own_nats"]
        cells["perplexity"] = np.exp(row["forced_nats"]).tolist()
        cells["ms"] = f"{row['ms_per_step']:.0f}"
        ours[_name(row)] = cells
    part = "validation part" if config.tune else "test part"
    title = f"To {config.to.capitalize()}, {part}"
    trained = [row for row in rows if "forcing" in row]
    if trained:
        title += (
            f", {trained[0]['epochs']:.3g} epochs, {trained[0]['params']:,} weights"
        )
    report.show_beside(title, MEASURES, ours, [], NOTE)
    if trained:
        _conclude(ours)
        _show_examples(trained[0])


def _conclude(ours: dict[str, dict[str, Any]]) -> None:
    """Say which way of training is best, and which beat the nearest sentence."""
    nearest = BASELINES["nearest"]
    scores = {
        name: cells["BLEU"] for name, cells in ours.items() if "forced nats" in cells
    }
    sign: Any = {"higher_is_better": True}
    said = [report.verdict("BLEU", scores, limits=(0, 100), **sign)]
    if nearest in ours:
        (value,) = ours[nearest]["BLEU"]
        said.append(report.against(f"the {nearest}", value, scores, **sign))
    report.conclude(" ".join(filter(None, said)))


def _show_examples(row: dict[str, Any]) -> None:
    """Show sentences, their references, and a network's translations in a table."""
    lines = [[each[part] for part in EXAMPLE] for each in row["examples"]]
    report.show_table(
        f"Sentences, as a network of the first seed translates them ({_name(row)})",
        list(EXAMPLE.values()),
        lines,
        "The sentences are evenly spaced in the part.",
    )


def show_answer(sentence: str, said: str, unknown: list[str]) -> None:
    """Print a translation, and the source words that the network does not know."""
    console = report.wide_console()
    console.print(f"{sentence} → [bold]{said}[/bold]", soft_wrap=True)
    if unknown:
        console.print(f"Unknown words, not in training: {', '.join(unknown)}.")


def save_pictures(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Draw learning curves and attention, and save them as pictures."""
    trained = [row for row in rows if "forcing" in row]
    if trained:
        report.save_picture(folder, "translate", draw_curves(rows))
        report.save_picture(folder, "attention", draw_attention(trained[0]))


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw BLEU and losses on the validation part against epochs.

    A thin line shows one seed, and a thick line the mean over seeds.
    """
    figure, axes = report.panels(1, 3, width=5, height=4)
    trained = [row for row in rows if "forcing" in row]
    measures = {"bleu": "BLEU", "forced_nats": "nats a word", "own_nats": "nats a word"}
    for axis, (key, label) in zip(axes[0], measures.items(), strict=True):
        for i, row in enumerate(trained):
            style = {"color": report.COLOURS[i], "linestyle": ("-", "--")[i % 2]}
            points = [point for point in row["curve"] if "validation" in point]
            at = [row["epochs"] / row["steps"] * point["step"] for point in points]
            each = np.array([point["validation"][key] for point in points])
            means = each.mean(axis=1)
            axis.plot(at, means, marker="o", ms=3.5, label=_name(row), **style)
            axis.plot(at, each, alpha=0.35, linewidth=0.8, **style)
        axis.set(xlabel="epochs", ylabel=label, title=TITLES[key])
    nearest = next((row["nearest"]["bleu"] for row in rows if "nearest" in row), None)
    if nearest is not None:
        axis, style = axes[0, 0], {"color": "#666666", "linestyle": ":"}
        axis.axhline(nearest, label="nearest source, part tested", **style)
    tops = [axis.dataLim.y1 for axis in axes[0]]  # also of the dotted line
    for axis, top in zip(axes[0], (tops[0], max(tops[1:]), max(tops[1:])), strict=True):
        axis.set_ylim(0, 1.06 * top)
    report.label_ends(*axes[0])
    return figure


def draw_attention(row: dict[str, Any]) -> Figure:
    """Draw the attention at each written word, for the four longest examples.

    An example is a sentence, its reference and a network's translation.
    """
    chosen = sorted(row["examples"], key=lambda each: -len(each["source"]))[:4]
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(2, 2, squeeze=False).ravel()
    image = None
    for axis, each in zip(axes, chosen, strict=False):
        shares = np.array(each["shares"])
        image = axis.imshow(shares, "Blues", vmin=0, vmax=1, aspect="auto")
        read = [*each["source"].split(), "end"]
        written = [*each["said"].split(), "end"]
        axis.set_xticks(range(shares.shape[1]), read[: shares.shape[1]], rotation=60)
        axis.set_yticks(range(shares.shape[0]), written[: shares.shape[0]])
        axis.set_title(f"reference: {each['reference']}", fontsize=9)
        axis.set(xlabel="word read", ylabel="word written")
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="share of attention", shrink=0.6)
    return figure


def _name(row: dict[str, Any]) -> str:
    forced = row["forcing"]
    return "teacher forcing" if forced == 1 else f"{100 * forced:g} % forcing"


def _scores(scores: dict[str, Any]) -> dict[str, Any]:
    low, high = scores["low"][0], scores["high"][0]
    return {
        "BLEU": scores["bleu"],
        "exact %": scores["exact"],
        "95 %": f"{low:.1f}–{high:.1f}",
    }
