"""Runs of a sweep, in groups of runs that share one compiled function.

Float fields of a config are traced. Runs that differ only in floats and seeds therefore
share one compiled function and run under `vmap`. All other fields of a config are
static. Runs with equal static fields form a group.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from bpvariants._checks import is_count

COLUMNS = ("seed", "status", "steps", "limit", "seconds", "curve")


class Run(NamedTuple):
    """One run: the fields of its config, as JSON values, and its seed."""

    fields: dict[str, Any]
    seed: int

    def name(self) -> str:
        """Return the text that identifies the run, in memory and in a file."""
        return name_of(self.fields | {"seed": self.seed})


class Group(NamedTuple):
    """Runs that differ only in floats and seeds.

    Attributes:
      static: the static fields, whose values the runs share.
      traced: names of the fields that are traced, because they are floats.
      build: function {name: float} -> config; the config has the user's type.
      runs: indices of the runs in the list of all runs.
    """

    static: dict[str, Any]
    traced: tuple[str, ...]
    build: Callable[[dict[str, Any]], Any]
    runs: list[int]


def name_of(fields: dict[str, Any]) -> str:
    """Return a text that identifies a run's fields, and differs for 1 and 1.0."""
    return json.dumps(fields, sort_keys=True)


def all_runs(
    configs: Sequence[Any], seeds: Sequence[int]
) -> tuple[list[Run], list[Group]]:
    """Check the arguments; return a run for each config and seed, and the groups."""
    records = _records(configs)
    seeds = _checked_seeds(seeds)
    runs = [Run(record, seed) for record in records for seed in seeds]
    groups: dict[str, Group] = {}
    for i, run in enumerate(runs):
        traced = tuple(name for name, value in run.fields.items() if _is_float(value))
        static = {name: run.fields[name] for name in run.fields if name not in traced}
        config = configs[i // len(seeds)]
        build = partial(_with_floats, config)
        key = name_of({"static": static, "traced": traced})
        groups.setdefault(key, Group(static, traced, build, [])).runs.append(i)
    return runs, list(groups.values())


def _records(configs: Sequence[Any]) -> list[dict[str, Any]]:
    """Check the configs; return the fields of each config as JSON values."""
    if isinstance(configs, (str, dict)) or not isinstance(configs, Sequence):
        raise ValueError(
            "configs must be a list with a dict, dataclass or NamedTuple for each "
            f"setting, such as [{{'rate': r}} for r in (0.1, 0.01)]; got {configs!r}."
        )
    if not configs:
        raise ValueError("configs is empty; give a list with at least one config.")
    records = [_fields(i, config) for i, config in enumerate(configs)]
    for i, record in enumerate(records):
        if list(record) != list(records[0]) and set(record) == set(records[0]):
            records[i] = {name: record[name] for name in records[0]}
        elif set(record) != set(records[0]):
            odd = sorted(set(record) ^ set(records[0]))
            raise ValueError(
                f"configs must all have the same fields, but {', '.join(odd)} is only "
                f"in one of configs[0] and configs[{i}]; give it in every config, as "
                "None where it does not apply."
            )
        if type(configs[i]) is not type(configs[0]):
            raise ValueError(
                "configs must all be of one type, but configs[0] is a "
                f"{type(configs[0]).__name__} and configs[{i}] is a "
                f"{type(configs[i]).__name__}."
            )
    for name in records[0]:  # convert a field's ints if any config has a float
        if any(_is_float(record[name]) for record in records):
            for record in records:
                if type(record[name]) is int:
                    record[name] = float(record[name])
    names = [name_of(record) for record in records]
    for i, name in enumerate(names):
        if names.index(name) < i:
            raise ValueError(
                f"configs[{i}] is configs[{names.index(name)}] again, {name}; give it "
                "once. To run one setting several times, give several seeds."
            )
    return records


def _fields(index: int, config: Any) -> dict[str, Any]:
    if isinstance(config, dict):
        fields = config
    elif hasattr(config, "_asdict"):
        fields = config._asdict()
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = [field.name for field in dataclasses.fields(config)]
        fields = {name: getattr(config, name) for name in names}
    else:
        raise ValueError(
            f"configs[{index}] must be a dict, a dataclass or a NamedTuple, got "
            f"{config!r}."
        )
    for name in fields:
        if not isinstance(name, str) or name in COLUMNS:
            raise ValueError(
                f"configs[{index}] has a field {name!r}; names must be strings other "
                f"than {', '.join(COLUMNS)}, which are columns of the table."
            )
    return {
        name: _plain(f"configs[{index}][{name!r}]", value)
        for name, value in fields.items()
    }


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, tuple):
        return [_plain(name, each) for each in value]
    raise ValueError(
        f"{name} must be a finite float, which is traced, or a static value: an int, a "
        f"bool, a str, None or a tuple of these; got {value!r}. For a function or "
        "another object give a name that make_run looks up; for infinity give None."
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    remedy = "give distinct integers from 0 to 2**32 - 1, such as range(10)"
    if isinstance(seeds, str) or not hasattr(seeds, "__len__") or not len(seeds):
        raise ValueError(
            f"seeds must be a sequence, not empty, got {seeds!r}; {remedy}."
        )
    for i, seed in enumerate(seeds):
        known = is_count(seed, 0, 2**32 - 1)
        if not known or seed in list(seeds)[:i]:
            again = "twice" if known else "in it"
            raise ValueError(f"seeds has {seed!r} {again}; {remedy}.")
    return [int(seed) for seed in seeds]


def _with_floats(config: Any, floats: dict[str, Any]) -> Any:
    """Put traced floats into a copy of a config, without calling the constructor."""
    if isinstance(config, dict):
        return config | floats
    if hasattr(config, "_replace"):
        return config._replace(**floats)
    config = copy.copy(config)
    for name, value in floats.items():
        object.__setattr__(config, name, value)  # works for frozen dataclasses
    return config
