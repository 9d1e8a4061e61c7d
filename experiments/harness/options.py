"""Checks of a study's options, and a function that applies the sizes of `--quick`."""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import numpy as np

Config = TypeVar("Config")
Check = Callable[[str, Any], None]  # (option name, value) -> None; may raise ValueError


def at_least(least: float) -> Check:
    """Return a check that an option's number, or each of its numbers, is >= `least`.

    Example:
      >>> at_least(1)("steps", 0)
      Traceback (most recent call last):
      ValueError: steps must be at least 1, got 0.
    """
    return _each(lambda value: value >= least, f"must be at least {least}")


def above(bound: float) -> Check:
    """Return a check that an option's number, or each of its numbers, is > `bound`."""
    words = "must be positive" if bound == 0 else f"must be more than {bound}"
    return _each(lambda value: value > bound, words)


def within(low: float, high: float, *, ends: str = "[]") -> Check:
    """Return a check that the number, or each number, of an option is in an interval.

    By default, the interval includes `low` and `high`. If `ends` begins with "(", `low`
    is excluded; if `ends` ends with ")", `high` is excluded.

    Example:
      >>> within(0, 1, ends="[)")("dropout", 1.0)
      Traceback (most recent call last):
      ValueError: dropout must be in [0, 1), got 1.0.
    """
    above_low = np.greater_equal if ends[0] == "[" else np.greater
    below_high = np.less_equal if ends[1] == "]" else np.less
    inside = lambda value: bool(above_low(value, low) and below_high(value, high))
    return _each(inside, f"must be in {ends[0]}{low}, {high}{ends[1]}")


def known(names: Collection[str]) -> Check:
    """Return a check that an option's value, or each of its values, is in `names`."""
    return lambda option, given: check_known(option, given, names)


def all_of(*checks: Check) -> Check:
    """Combine several checks into a single check, which runs them in order."""

    def check(name, value):
        for each in checks:
            each(name, value)

    return check


def given(name: str, value: Any) -> None:
    """Check that an option that takes a list of values has at least one value."""
    if not np.size(value):
        raise ValueError(f"{name} must have one value at least.")


def _each(holds: Callable[[Any], bool], words: str) -> Check:
    """Return a check that `holds` is True for each number of an option; None passes."""

    def check(name, value):
        values = value if isinstance(value, tuple | list) else (value,)
        if not all(each is None or holds(each) for each in np.ravel(values)):
            raise ValueError(f"{name} {words}, got {value}.")

    return check


def check_at_least_one(config: Any, *names: str) -> None:
    """Check that each named option is None or at least 1."""
    for name in names:
        at_least(1)(name, getattr(config, name))


def check_known(
    option: str, given: str | Iterable[str], known: Collection[str]
) -> None:
    """Check that the value of an option is a known name, or several known names.

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
    """Return " Did you mean …?" with the most similar known name, or else ""."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return names with commas between them; names with a comma are quoted.

    Example:
      >>> listed(["Date, time", "load"])
      "'Date, time', load"
    """
    return ", ".join(repr(name) if "," in name else name for name in names)


def at_quick_size(config: Config, **sizes: Any) -> Config:
    """Return the options of a study, with small sizes if `quick` is set.

    An option that differs from its default is not changed, because the user has set it.
    The function :func:`~experiments.harness.study.run_study` calls this function with
    sizes from the study's attribute `QUICK`, with which the study takes less than a
    minute on two cores.

    Args:
      config: options of a study, a dataclass with a field `quick`.
      sizes: {option: small value}, which replaces the default value of the option.

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
        raise ValueError(f"sizes must name options, got {', '.join(sorted(unknown))}.")
    if not study.quick:
        return config
    left = {
        name: size
        for name, size in sizes.items()
        if getattr(config, name) == defaults[name]
    }
    return dataclasses.replace(study, **left)
