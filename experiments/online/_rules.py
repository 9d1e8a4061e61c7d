"""The online rules that the studies compare."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

from bpvariants import gradients
from bpvariants.types import OnlineRule

# name: (step, loss) -> rule. Another rule is another line here.
RULES: dict[str, Callable[..., OnlineRule]] = {
    "rtrl": gradients.rtrl,
    "snap_1": partial(gradients.snap, order=1),
    "rflo": gradients.rflo,
    "kf_rtrl": gradients.kf_rtrl,
    "uoro": gradients.uoro,
}


def check_rules(rules: Iterable[str], known: Collection[str] = tuple(RULES)) -> None:
    """Check the names of rules that were asked for."""
    unknown = [name for name in rules if name not in known]
    if unknown:
        raise ValueError(
            f"rules must be some of {', '.join(known)}; got {', '.join(unknown)}."
        )
