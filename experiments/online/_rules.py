"""The online rules that the studies compare."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from bpvariants.types import OnlineRule
from experiments.choices import make_online
from experiments.options import check_known

# name: (step, loss) -> rule. Another rule is another name here.
RULES: dict[str, Callable[..., OnlineRule]] = {
    name: partial(make_online, name)
    for name in ("rtrl", "snap_1", "rflo", "kf_rtrl", "uoro")
}


def check_rules(rules: Iterable[str], known: Collection[str] = tuple(RULES)) -> None:
    """Check the names of rules that were asked for."""
    check_known("rules", rules, known)
