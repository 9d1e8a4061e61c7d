"""Rules compared in `agents`, and a control without a rule for the memory."""

from collections.abc import Callable

import jax

from bpvariants import gradients
from bpvariants.types import OnlineRule
from experiments import report
from experiments.online._streaming_methods import truncated

FROZEN = "fixed memory"  # a rule: recurrent parameters stay as drawn


def make_rules(
    lookbacks: tuple[int, ...], *, frozen: bool = False
) -> dict[str, Callable[..., OnlineRule]]:
    """Return {name: (step, loss) -> online rule} of all compared rules.

    With `frozen`, the last rule keeps the recurrent parameters as they are.
    """
    windows = {
        f"truncated_bptt, {report.window(lookback, 1)}": truncated(lookback)
        for lookback in lookbacks
    }
    still = {FROZEN: with_fixed_memory(truncated(1))} if frozen else {}
    return {"diagonal_rtrl": gradients.diagonal_rtrl} | windows | still


def with_fixed_memory(
    make_rule: Callable[..., OnlineRule],
) -> Callable[..., OnlineRule]:
    """Return a rule whose gradients of the recurrent parameters are 0."""

    def make(step, loss):
        def still(params, carry, x):
            fixed = jax.lax.stop_gradient(params["cell"])
            return step(params | {"cell": fixed}, carry, x)

        return make_rule(still, loss)

    return make
