"""Data of `categorise`, and classification of a user's text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants import training
from bpvariants.types import PyTree
from experiments import data
from experiments.applications.categorise import (
    network,
    report as categorise_report,
    user_csv,
)
from experiments.applications.categorise.units import (
    encode,
    Kind,
    learn_units,
    of_kind,
    Units,
)
from experiments.harness.errors import DataError
from experiments.harness.jobs import Way

OWN = "own"  # name of the data set in a user's CSV file
SETS: dict[str, Callable[[], data.TextClasses]] = {
    "sms_spam": data.sms_spam,
    "trec": data.trec,
}


def sets_of(config: Any) -> tuple[str, ...]:
    """Return the names of a run's data sets; a user's CSV file is used alone."""
    return config.sets if config.csv is None else (OWN,)


def load(
    config: Any, name: str
) -> tuple[tuple[str, ...], data.LabelledTexts, data.LabelledTexts]:
    """Return a data set: its classes, its training part and its test part.

    If `config.tune` is True, the validation part is returned as the test part. If not,
    the training part includes the validation part.
    """
    classes, train, validation, test = _read(config, name)
    if config.tune:
        return classes, train, validation
    texts = train.texts + validation.texts
    labels = np.concatenate([train.labels, validation.labels])
    return classes, data.LabelledTexts(texts, labels), test


def _read(config: Any, name: str) -> data.TextClasses:
    if name == OWN:
        return user_csv.read_csv(config.csv, config.text, config.label)
    return SETS[name]()


def check(config: Any) -> None:
    """Check that the data sets of a run can be loaded, before the run begins."""
    for name in sets_of(config):
        _read(config, name)


def units_of(config: Any, kind: Kind, train: data.LabelledTexts) -> tuple[Units, int]:
    """Return the training part's symbols, and how many symbols of a text are read."""
    given = {"hashed": config.hashed, "width": config.width, "stride": config.stride}
    given["pairs"] = config.pairs
    longest = of_kind(config.longest, kind)
    return learn_units(train.texts, kind, **given), longest


def init(config: Any, units: Units, classes: tuple[str, ...]) -> PyTree:
    """Draw the parameters of the networks of all seeds."""
    own = lambda settings: of_kind(settings, units.kind)
    return network.init_runs(
        jax.random.key(config.first_seed), config.cell,
        indices=units.size, embedding=config.embedding, units=config.units,
        classes=len(classes), runs=config.seeds,
        scale=own(config.scale), shortcut=own(config.shortcut),
    )  # fmt: skip


def answer(config: Any, folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Print the class of the user's text; class probabilities are averaged over seeds.

    Raises:
      DataError: if the networks have not been trained yet.
    """
    job = f"{name}-{config.units_of[0]}"
    if job not in [row["job"] for row in rows]:
        raise DataError(f"--say: {job} is not trained yet; continue with --resume.")
    kind, (classes, train, _) = config.units_of[0], load(config, name)
    units, longest = units_of(config, kind, train)
    like = init(config, units, classes)
    _, params = training.read_checkpoint(Way(job, folder).checkpoints, like)
    encoded = encode(units, [config.say], longest)
    likely = network.say(params, config.cell, config.pooling, encoded)
    categorise_report.say(config.say, name, classes, likely[:, 0].mean(axis=0))
