"""Data of `categorise`, and classification of a user's text."""

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
from experiments.harness.errors import DataError
from experiments.harness.jobs import Way

SETS: dict[str, Callable[[], data.TextClasses]] = {
    "sms_spam": data.sms_spam,
    "trec": data.trec,
}


def load(
    tune: bool, name: str
) -> tuple[tuple[str, ...], data.LabelledTexts, data.LabelledTexts]:
    """Return a data set: its classes, its training part and its test part.

    If `tune` is True, the validation part is returned as the test part. If not, the
    training part includes the validation part.
    """
    classes, train, validation, test = SETS[name]()
    if tune:
        return classes, train, validation
    texts = train.texts + validation.texts
    labels = np.concatenate([train.labels, validation.labels])
    return classes, data.LabelledTexts(texts, labels), test


def check(config: Any) -> None:
    """Check that the data sets of a run can be loaded, before the run begins."""
    for name in config.sets:
        SETS[name]()


def units_of(config: Any, kind: Kind, train: data.LabelledTexts) -> tuple[Units, int]:
    """Return the training part's symbols, and how many symbols of a text are read."""
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
    """Print the class of the user's text; class probabilities are averaged over seeds.

    Raises:
      DataError: if the networks have not been trained yet.
    """
    kind, (classes, train, _) = config.units_of[0], load(config.tune, name)
    job = f"{name}-{kind}"
    if job not in [row["job"] for row in rows]:
        raise DataError(f"--say: {job} is not trained yet; continue with --resume.")
    units, longest = units_of(config, kind, train)
    like = init(config, units, classes)
    _, params = training.read_checkpoint(Way(job, folder).checkpoints, like)
    encoded = encode(units, [config.say], longest)
    likely = network.say(params, config.cell, config.pooling, encoded)
    categorise_report.say(config.say, name, classes, likely[:, 0].mean(axis=0))
