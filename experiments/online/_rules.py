"""The online rules that the studies of online learning compare."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from bpvariants.types import OnlineRule
from experiments.choices import make_online
from experiments.harness.options import check_known

# {name: function (step, loss) -> online rule}. To compare another rule, add it here.
RULES: dict[str, Callable[..., OnlineRule]] = {
    name: partial(make_online, name)
    for name in ("rtrl", "snap_1", "rflo", "kf_rtrl", "uoro")
}
# e-prop needs a carry (c, h), such as an LSTM's, of which units read the part h of
# other units, but not the part c.
EPROP = {"eprop": partial(make_online, "eprop", visible=lambda carry: carry[1])}


def of_cells(
    cells: Iterable[str], rules: dict[str, Callable[..., OnlineRule]] = RULES
) -> dict[str, Callable[..., OnlineRule]]:
    """Return the online rules that work with all given cells; e-prop needs LSTMs."""
    return rules | (EPROP if set(cells) == {"lstm"} else {})


def check_rules(rules: Iterable[str], known: Collection[str] = tuple(RULES)) -> None:
    """Check that the name of each requested rule is in `known`."""
    check_known("rules", rules, known)
