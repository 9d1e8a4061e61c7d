"""The online rules that the studies of online learning compare."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from bpvariants import gradients
from bpvariants.types import OnlineRule
from experiments.choices import make_online
from experiments.harness.options import check_known

# {name: function (step, loss) -> online rule}. To compare a further online rule, add it
# to this table.
RULES: dict[str, Callable[..., OnlineRule]] = {
    name: partial(make_online, name)
    for name in ("rtrl", "snap_1", "rflo", "kf_rtrl", "uoro")
}
# e-prop needs a carry (c, h), such as an LSTM's. A unit must read only the part h of
# all other units, not their part c.
EPROP = {"eprop": partial(make_online, "eprop", visible=lambda carry: carry[1])}


# Layer-wise RTRL needs a network that is a stack of layers.
LAYERWISE: dict[str, Callable[..., OnlineRule]] = {
    "layerwise_rtrl": gradients.layerwise_rtrl
}


def of_cells(
    cells: Iterable[str], rules: dict[str, Callable[..., OnlineRule]] = RULES
) -> dict[str, Callable[..., OnlineRule]]:
    """Return the online rules that work with all given cells; e-prop needs LSTMs."""
    return rules | (EPROP if set(cells) == {"lstm"} else {})


def of_stacks(
    rules: dict[str, Callable[..., OnlineRule]] = RULES,
) -> dict[str, Callable[..., OnlineRule]]:
    """Return the online rules for stacks of elementwise cells.

    KF-RTRL is not one of them, because it accepts no elementwise cells.
    """
    return {name: rules[name] for name in rules if name != "kf_rtrl"} | LAYERWISE


def check_rules(rules: Iterable[str], known: Collection[str] = tuple(RULES)) -> None:
    """Check that the name of each requested rule is in `known`."""
    check_known("rules", rules, known)
