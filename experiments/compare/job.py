"""Tasks, jobs and references of `compare`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import optax

from bpvariants.types import PyTree

Scores = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training: a gradient rule and an update, on one network."""

    kind: str  # of backpropagation
    network: str
    rule: str
    update: str  # with its settings
    gradient: Callable  # (params, *batch) -> ((value, aux), grads)
    optimizer: optax.GradientTransformation
    init: Callable[[jax.Array], PyTree]  # key -> params
    data: Any  # as `training.fit` takes it
    steps: int
    evaluate: Callable[[PyTree], Scores]  # params -> {name: number}
    sample: Callable[[jax.Array, PyTree], tuple] | None = None
    carry: Callable[[PyTree], PyTree] | None = None  # params -> carry
    batch: str = "full"  # how the batch is drawn, in words


class Reference(NamedTuple):
    """A simple method beside which the jobs are set, computed in the same run."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class Task:
    """Jobs that are compared with each other, and what their numbers mean."""

    name: str
    title: str
    about: str  # data, split and score, in two or three sentences
    value: str  # what the curves show
    score: str  # the score that matters, one of those that evaluate returns
    measure: str  # what that score is, in words
    higher_is_better: bool
    jobs: list[Job]
    references: list[Reference] = field(default_factory=list)
