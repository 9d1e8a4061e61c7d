"""Data of `categorise`, and the answer for a text of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants import training
from bpvariants.types import PyTree
from experiments import data
from experiments.applications.categorise import network, report as categorise_report
from experiments.applications.categorise.units import (
    encode,
    Kind,
    learn_units,
    of_kind,
    Units,
)
from experiments.harness.jobs import Way

SETS: dict[str, Callable[[], data.TextClasses]] = {
    "sms_spam": data.sms_spam,
    "trec": data.trec,
}


def load(
    tune: bool, name: str
) -> tuple[tuple[str, ...], data.LabelledTexts, data.LabelledTexts]:
    """Return the classes of a set, what to learn from, and what to test on."""
    classes, train, validation, test = SETS[name]()
    if tune:
        return classes, train, validation
    texts = train.texts + validation.texts
    labels = np.concatenate([train.labels, validation.labels])
    return classes, data.LabelledTexts(texts, labels), test


def check(config: Any) -> None:
    """Check that the sets of a run are there, before it is begun."""
    for name in config.sets:
        SETS[name]()


def units_of(config: Any, kind: Kind, train: data.LabelledTexts) -> tuple[Units, int]:
    """Return the symbols of the training part, and how many of a text are read."""
    given = {"hashed": config.hashed, "width": config.width, "stride": config.stride}
    longest = of_kind(config.longest, kind)
    return learn_units(train.texts, kind, **given), longest


def init(config: Any, units: Units, classes: tuple[str, ...]) -> PyTree:
    """Draw the parameters of the networks of all seeds."""
    return network.init_runs(
        jax.random.key(config.first_seed), config.cell,
        indices=units.size, embedding=config.embedding, units=config.units,
        classes=len(classes), runs=config.seeds,
    )  # fmt: skip


def answer(config: Any, folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Print which class of a set the text is of, by the mean over seeds.

    Raises:
      SystemExit: if the networks that are to say so are not trained yet.
    """
    kind, (classes, train, _) = config.units_of[0], load(config.tune, name)
    job = f"{name}-{kind}"
    if job not in [row["job"] for row in rows]:
        raise SystemExit(f"--say: {job} is not trained yet; go on with --resume.")
    units, longest = units_of(config, kind, train)
    like = init(config, units, classes)
    _, params = training.read_checkpoint(Way(job, folder).checkpoints, like)
    encoded = encode(units, [config.say], longest)
    likely = network.say(params, config.cell, config.pooling, encoded)
    categorise_report.say(config.say, name, classes, likely[:, 0].mean(axis=0))
