"""A trained model of `categorise` that classifies a text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bpvariants import training
from experiments.applications.categorise import network, texts
from experiments.applications.categorise.units import encode, split, Units
from experiments.harness import models, novelty
from experiments.harness.jobs import Row, Way

READS = {"text": str}
LEARNED = 2000  # number of training texts that a new text is compared with


def make_predict(saved: models.Saved) -> Callable[[str], models.Answer]:
    """Return a function that classifies a text, given as a string."""
    own = saved.settings
    units = Units(own["kind"], json.loads(own["counts"]), *own["shape"])

    def predict(text: str) -> models.Answer:
        if not split(text, units.kind):
            raise ValueError("the text is empty; give at least one word.")
        likely, views = _read(saved.params["networks"], own, units, [text])
        best = int(likely[0].argmax())
        return models.answer(saved, own["classes"][best], float(likely[0, best]), views)

    return predict


def _read(
    params: Any, settings: dict[str, Any], units: Units, given: list[str]
) -> tuple[np.ndarray, novelty.Views]:
    """Return class probabilities [N, C], and the vectors by which texts are compared.

    The vectors are the pooled states of the first network, and statistics of the text:
    the share of unknown symbols, the mean frequency of symbols in the training texts,
    and the length; frequency and length are logarithms.
    """
    encoded = encode(units, given, settings["longest"])
    likely, states = network.read(
        params, settings["cell"], settings["pooling"], encoded
    )
    statistics = []
    for text in given:
        symbols = split(text, units.kind)[: settings["longest"]]
        named = [each.casefold() if units.kind == "words" else each for each in symbols]
        counts = np.array([units.counts.get(each, 0) for each in named])
        values = (counts == 0).mean(), np.log1p(counts).mean(), np.log(len(counts))
        statistics.append(values)
    views = {"state": states[0], "symbols": np.array(statistics)}
    return likely.mean(axis=0), views


def save(config: Any, folder: Path, rows: list[Row]) -> None:
    """Save the networks of the first data set and kind of symbols, if trained.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
    """
    name, kind = texts.sets_of(config)[0], config.units_of[0]
    where = Way(f"{name}-{kind}", folder).checkpoints
    if f"{name}-{kind}" not in [row["job"] for row in rows] or not where.exists():
        return
    classes, train, held_out = texts.load(config, name)
    units, longest = texts.units_of(config, kind, train)
    like = texts.init(config, units, classes)
    _, params = training.read_checkpoint(where, like)
    settings = {
        "classes": list(classes),
        "kind": kind,
        "counts": json.dumps(units.counts),
        "shape": [units.hashed, units.width, units.stride, units.pairs],
        "longest": longest,
        "cell": config.cell,
        "pooling": config.pooling,
    }
    readable = lambda part: [text for text in part.texts if split(text, kind)]
    views = [
        _read(params, settings, units, part)[1]
        for part in (_some(readable(train)), readable(held_out))
    ]
    saved = {"networks": params, "novelty": novelty.calibrate(*views)}
    models.save_model(folder, "categorise", saved, settings)


def _some(given: list[str]) -> list[str]:
    """Return evenly spaced texts, at most :data:`LEARNED`."""
    chosen = np.linspace(0, len(given) - 1, min(LEARNED, len(given))).astype(int)
    return [given[i] for i in chosen]
