"""The online rules that the studies compare."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from bpvariants.types import OnlineRule
from experiments.choices import make_online
from experiments.harness.options import check_known

# name: (step, loss) -> rule. Another rule is another name here.
RULES: dict[str, Callable[..., OnlineRule]] = {
    name: partial(make_online, name)
    for name in ("rtrl", "snap_1", "rflo", "kf_rtrl", "uoro")
}
# Of cells with a part that units see of each other, and one that they do not: (c, h).
EPROP = {"eprop": partial(make_online, "eprop", visible=lambda carry: carry[1])}


def of_cells(
    cells: Iterable[str], rules: dict[str, Callable[..., OnlineRule]] = RULES
) -> dict[str, Callable[..., OnlineRule]]:
    """Return the rules that suit all of some cells, e-prop if these are LSTMs."""
    return rules | (EPROP if set(cells) == {"lstm"} else {})


def check_rules(rules: Iterable[str], known: Collection[str] = tuple(RULES)) -> None:
    """Check the names of rules that were asked for."""
    check_known("rules", rules, known)
