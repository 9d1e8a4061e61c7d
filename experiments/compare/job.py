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
    batch: str = "full"  # how mini-batches are drawn, in words


class Reference(NamedTuple):
    """A simple baseline, computed in the same run."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class Task:
    """Jobs that are compared with each other, and how to read their scores."""

    name: str
    title: str
    about: str  # data, split and score, in two or three sentences
    value: str  # what the curves show
    score: str  # the main score, a key of what evaluate returns
    measure: str  # that score in words
    higher_is_better: bool
    jobs: list[Job]
    references: list[Reference] = field(default_factory=list)
