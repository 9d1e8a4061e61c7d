"""Checks of a study's options, and its small form, `--quick`."""

import dataclasses
import difflib
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

Config = TypeVar("Config")


def check_at_least_one(config: Any, *names: str) -> None:
    """Check that options that count something, if they are given, count something."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def check_known(
    option: str, given: str | Iterable[str], known: Collection[str]
) -> None:
    """Check that an option names something that there is, or some such things.

    Example:
      >>> check_known("rule", "btpp", ["bptt", "rtrl"])
      Traceback (most recent call last):
      ValueError: rule must be one of bptt, rtrl; got 'btpp'. Did you mean 'bptt'?
    """
    names = [given] if isinstance(given, str) else list(given)
    unknown = [name for name in names if name not in known]
    if unknown:
        many, got = (
            ("one", f"{given!r}")
            if isinstance(given, str)
            else ("some", ", ".join(map(str, unknown)))
        )
        raise ValueError(
            f"{option} must be {many} of {', '.join(known)}; got {got}."
            f"{did_you_mean(unknown[0], known)}"
        )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a sentence, after a space, with what a name may have been meant for."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""


def at_quick_size(config: Config, **sizes: Any) -> Config:
    """Return the config of a study as it is to run: if it is `quick`, at small sizes.

    A study has the option `quick: bool = False`, begins `main` with
    `config = at_quick_size(config, steps=100, seeds=1)`, and takes less than a minute
    then on two cores. What was given another value than its default stays as it is.

    Args:
      config: a dataclass, one of whose fields is quick.
      sizes: what replaces the defaults of other fields.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     steps: int = 10_000
      ...     units: int = 64
      ...     quick: bool = False
      >>> at_quick_size(Config(quick=True), steps=20, units=8)
      Config(steps=20, units=8, quick=True)
      >>> at_quick_size(Config(quick=True, units=9), steps=20, units=8)
      Config(steps=20, units=9, quick=True)
      >>> at_quick_size(Config(), steps=20) == Config()
      True
    """
    study: Any = config
    defaults = {field.name: field.default for field in dataclasses.fields(study)}
    unknown = set(sizes) - set(defaults)
    if unknown:
        raise ValueError(f"sizes must be of options, got {', '.join(sorted(unknown))}.")
    if not study.quick:
        return config
    left = {
        name: size
        for name, size in sizes.items()
        if getattr(config, name) == defaults[name]
    }
    return dataclasses.replace(study, **left)
