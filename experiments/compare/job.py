"""Types of `compare`: tasks, jobs (trainings) and references (simple baselines)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import optax

from bpvariants.types import PyTree
from experiments.compare.kinds import Kind

Scores = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training, described by its network, gradient rule, update rule and data.

    If there are several `rates`, each seed is trained with each of them, and the rate
    with the best score in the validation data is used: `init` then takes the rate as a
    second argument, `update` has a place for it, such as "adam({rate:g})", and scores
    contain the key "validation", which is removed from the results.
    """

    kind: str  # kind of backpropagation, such as "static"
    network: str
    rule: str
    update: str  # name of the update, with its settings
    gradient: Callable  # (params, *batch) -> ((value, aux), grads)
    optimizer: optax.GradientTransformation
    init: Callable[..., PyTree]  # key -> params
    data: Any  # the argument `data` of `training.fit`
    steps: int
    evaluate: Callable[[PyTree], Scores]  # params -> {name of a score: number}
    sample: Callable[[jax.Array, PyTree], tuple] | None = None
    carry: Callable[[PyTree], PyTree] | None = None  # params -> initial carry
    batch: str = "full"  # description of the mini-batches
    rates: tuple[float, ...] = ()


class Reference(NamedTuple):
    """Name and scores of a simple baseline, such as logistic regression."""

    name: str
    scores: Scores


class Part(NamedTuple):
    """A part of a task's section: an explanation, and learning curves of some jobs."""

    kind: Kind
    shows: Callable[[Any], bool]  # whether a row's curve is in the picture
    by: str = "update"  # curves are named by "update" or by "rule"


@dataclass(frozen=True)
class Task:
    """A data set, the jobs (trainings) to compare on it, and names of their scores."""

    name: str
    title: str
    about: str  # a few sentences about the data, the train/test split and the score
    value: str  # name of the quantity in the learning curves
    score: str  # name of the main score, a key of `Scores`
    measure: str  # description of the main score
    higher_is_better: bool
    jobs: list[Job]
    parts: list[Part]
    references: list[Reference] = field(default_factory=list)
    unit: str = ""
    limits: tuple[float, float] = (0.0, math.inf)  # lowest and highest possible score
    chance: float | None = None  # score of guessing
