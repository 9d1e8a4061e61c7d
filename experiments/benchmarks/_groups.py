"""Type of a benchmark: groups of timings of one computation in several libraries."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from experiments.harness.timing import Measured

Groups: TypeAlias = dict[str, Callable[[int], Iterable[Measured]]]
"""{name of a group: function from the number of repeats to rows of the table}."""
