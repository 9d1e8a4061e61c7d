"""Groups of a benchmark: the same work by this library and by its peers."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from experiments.harness.timing import Measured

Groups: TypeAlias = dict[str, Callable[[int], Iterable[Measured]]]
"""{name of a group: function from the number of repeats to its rows}."""
