"""Trained models in the folder of a run, so that they can answer later questions.

A study that can be asked calls :func:`save_model` when its training is finished. The
folder of the run then has model/arrays, which orbax writes, and model/model.json.
The function :func:`load` reads both. To make a study askable:

1. Call :func:`save_model` in the study's `finish` function. `settings` must hold all
   that is needed to rebuild the network without the data set (sizes, vocabularies, …).
2. Write the module experiments/applications/<study>/ask.py with two names:
   `READS`, a dict {option of the command `ask`: function text -> input of `predict`},
   and `make_predict`, a function (saved) -> predict, where `saved` is :class:`Saved`
   and `predict` is a function input -> :class:`Answer`.
3. Add the name of the study to :data:`STUDIES`.
"""

import dataclasses
import importlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import bpvariants
from bpvariants.types import PyTree
from experiments import report
from experiments.harness import novelty
from experiments.harness.errors import DataError

STUDIES = (
    "categorise", "control", "forecast", "identify", "images", "language", "music",
    "robot", "speech", "translate",
)  # fmt: skip
FORMAT = 1  # number of the file format; other numbers are refused


class Saved(NamedTuple):
    """Contents of a saved model."""

    study: str
    settings: dict[str, Any]  # JSON values: options of the run, vocabularies, …
    params: PyTree  # dicts and lists of numpy arrays


@dataclasses.dataclass(frozen=True)
class Answer:
    """Answer of a model to one input.

    Attributes:
      value: the answer, such as a digit, a class or a text.
      probability: the model's probability of this answer, if it has one.
      distance: distance of the input from the training inputs, if it was calibrated.
        The unit is the distance that a share `alarms` of held-out inputs exceeds.
      alarms: share of held-out inputs with a distance above 1, the calibrated rate of
        false alarms.
    """

    value: Any
    probability: float | None = None
    distance: float | None = None
    alarms: float | None = None

    @property
    def unlike(self) -> bool:
        """Whether the input is unlike the training inputs: its distance is above 1."""
        return self.distance is not None and not self.distance <= 1

    def __str__(self) -> str:
        """Return the answer, and a warning if the input is unlike the training inputs.

        Example:
          >>> print(Answer(7, 0.9, 0.4, 0.05))
          7
        """
        several = isinstance(self.value, list | tuple)
        value = " ".join(map(str, self.value)) if several else self.value
        return f"{value}{self.warning}"

    @property
    def warning(self) -> str:
        """A warning in brackets if the input is unlike the training inputs, else ""."""
        if not self.unlike:
            return ""
        assert self.alarms is not None
        return (
            f" (do not trust this: the input is unlike what was learned; its distance "
            f"is {self.distance:.1f}, and {100 * (1 - self.alarms):g} % of held-out "
            "inputs are below 1)"
        )


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model: `predict(x)` returns an :class:`Answer`."""

    study: str
    settings: dict[str, Any]
    reads: dict[str, Callable[[str], Any]]  # options of the command `ask`
    predict: Callable[[Any], Answer]

    def __repr__(self) -> str:
        short = {k: v for k, v in self.settings.items() if isinstance(v, str | int)}
        settings = ", ".join(f"{name}={value!r}" for name, value in short.items())
        settings = f" ({settings})" if settings else ""
        options = " or ".join(f"--{name}" for name in self.reads)
        return (
            f"Model of {self.study}{settings}; ask it by predict(x), or by the "
            f"command ask with {options}"
        )


def answer(
    saved: Saved,
    value: Any,
    probability: float | None,
    views: novelty.Views,
    calibrated: Any = None,
) -> Answer:
    """Return an answer with the distance of the input from the training inputs.

    Args:
      saved: a model.
      value: the answer.
      probability: the model's probability of the answer.
      views: {view: [1, dim]}, the input, for `novelty.distances`.
      calibrated: a result of :func:`~experiments.harness.novelty.calibrate`, by default
        `saved.params["novelty"]`. If it is empty, the distance is None.
    """
    calibrated = saved.params["novelty"] if calibrated is None else calibrated
    if not calibrated:
        return Answer(value, probability)
    (distance,) = novelty.distances(calibrated, views)
    return Answer(value, probability, float(distance), novelty.ALARMS)


def save_model(
    folder: Path, study: str, params: PyTree, settings: dict[str, Any]
) -> None:
    """Write a trained model into the folder of a run; an older model is replaced.

    If the process is killed meanwhile, :func:`load` says that the model is incomplete.

    Args:
      folder: folder of the run.
      study: one of :data:`STUDIES`.
      params: nested dicts, lists and tuples of arrays; tuples are read as lists.
      settings: JSON values.
    """
    import orbax.checkpoint as ocp

    if study not in STUDIES:
        raise ValueError(f"study must be one of {', '.join(STUDIES)}; got {study!r}.")
    if not report.writes():
        return
    where = folder / "model"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    arrays: dict[str, np.ndarray] = {}
    tree = _numbered(params, arrays)
    with ocp.StandardCheckpointer() as writer:
        writer.save((where / "arrays").absolute(), arrays)
    content = {
        "format": FORMAT,
        "bpvariants": bpvariants.__version__,
        "study": study,
        "settings": settings,
        "tree": tree,
        "sums": {name: _sum(leaf) for name, leaf in arrays.items()},
    }
    text = json.dumps(content, ensure_ascii=True)
    report.write_atomically(where / "model.json", text + "\n")


def load(folder: str | Path) -> Model:
    """Return the model in the folder of a finished run; `predict(x)` asks it.

    Args:
      folder: the folder, which was given as --out or is named at the end of a run.

    Raises:
      DataError: if the folder has no complete model that this version can read. The
        message says what to do.
    """
    saved = read_model(Path(folder))
    module = importlib.import_module(f"experiments.applications.{saved.study}.ask")
    return Model(saved.study, saved.settings, module.READS, module.make_predict(saved))


def read_model(folder: Path) -> Saved:
    """Return the contents of the model in a folder; see :func:`load`."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: give the folder of a run.")
    content = _described(folder)
    where = folder / "model"
    try:
        arrays = _arrays((where / "arrays").absolute())
        wrong = [
            name for name, sum_ in content["sums"].items() if _sum(arrays[name]) != sum_
        ]
        if wrong:
            raise ValueError(f"{len(wrong)} arrays are not what was written")
        params = _put_back(content["tree"], arrays)
        return Saved(content["study"], content["settings"], params)
    except Exception as error:  # damaged files raise many kinds of errors
        raise DataError(
            f"the model in {where} is damaged ({type(error).__name__}: "
            f"{str(error)[:100]}). {_again(folder, content['study'])}"
        ) from error


def _described(folder: Path) -> dict[str, Any]:
    """Return the contents of model.json, if this version can read it."""
    where, study = folder / "model", _study_of(folder)
    if not where.exists() and not (folder / "config.json").exists():
        raise DataError(
            f"{folder} is no folder of a run: it has no config.json. Give the folder "
            "that was --out, or that the run named at its end."
        )
    if not where.exists():
        raise DataError(
            f"{folder} has no trained model. Studies that save one: "
            f"{', '.join(STUDIES)}. {_again(folder, study)}"
        )
    path = where / "model.json"
    if not path.exists():
        raise DataError(
            f"the model in {where} is incomplete, because the process was stopped "
            f"while it was written. {_again(folder, study)}"
        )
    try:
        content = json.loads(path.read_bytes())
        found = content["format"]
        content["sums"].items()
        study = content["study"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged. {_again(folder, study)}") from error
    if found != FORMAT:
        raise DataError(
            f"the model in {where} has format {found}, written by bpvariants "
            f"{content.get('bpvariants', '?')}; this version reads format {FORMAT}. "
            "Use that version, or train the model again in another --out."
        )
    if study not in STUDIES:
        raise DataError(f"{path} is of {study!r}, which is not one of {STUDIES}.")
    return content


def _again(folder: Path, study: str | None) -> str:
    return (
        "To go on with a run that was stopped, or to write the model of a finished run "
        f"again, which takes no training: python -m experiments {study or 'STUDY'} "
        f"--out {folder} --resume"
    )


def _study_of(folder: Path) -> str | None:
    """Return the study whose name begins the name of a run's folder, or None."""
    return next((name for name in STUDIES if folder.name.startswith(name)), None)


def _numbered(tree: PyTree, arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree with numbers in place of its arrays; fill in `arrays`."""
    if isinstance(tree, dict):
        return {str(name): _numbered(part, arrays) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_numbered(part, arrays) for part in tree]
    arrays[str(len(arrays))] = np.asarray(tree)
    return len(arrays) - 1


def _put_back(tree: Any, arrays: dict[str, np.ndarray]) -> PyTree:
    if isinstance(tree, dict):
        return {name: _put_back(part, arrays) for name, part in tree.items()}
    if isinstance(tree, list):
        return [_put_back(part, arrays) for part in tree]
    return arrays[str(tree)]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        found = reader.metadata(path)
        # Older versions of orbax return what newer ones return as `item_metadata`.
        found = getattr(found, "item_metadata", found)
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), found.tree)
        return reader.restore(path, like)


def _sum(leaf: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)
