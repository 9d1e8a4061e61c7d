"""The online rules that the studies compare."""

from collections.abc import Callable

from bpvariants import gradients
from bpvariants.types import OnlineRule

# name: (step, loss) -> rule. Another rule is another line here.
RULES: dict[str, Callable[..., OnlineRule]] = {
    "rtrl": gradients.rtrl,
}


def check_rules(rules: tuple[str, ...]) -> None:
    """Check the names of rules that were asked for."""
    unknown = [name for name in rules if name not in RULES]
    if unknown:
        raise ValueError(
            f"rules must be some of {', '.join(RULES)}; got {', '.join(unknown)}."
        )
