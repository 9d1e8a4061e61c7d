"""Updates by name. To add an update, add a line to the table `UPDATES`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from bpvariants import updates
from experiments.harness.options import check_known


class _Choice(NamedTuple):
    learning_rate: float  # default learning rate, or initial step size
    make: Callable[[Any, float], Any]  # (learning rate or schedule, decay) -> update
    of_gradients: bool = True  # False: no gradient clipping, no learning rate schedule


_resilient = lambda name: _Choice(
    0.01, lambda rate, _: getattr(updates, name)(rate), of_gradients=False
)
UPDATES = {
    "sgd": _Choice(0.1, lambda rate, _: optax.sgd(rate)),
    "momentum": _Choice(0.01, lambda rate, decay: optax.sgd(rate, momentum=decay)),
    "adam": _Choice(1e-3, lambda rate, _: optax.adam(rate)),
    "adamw": _Choice(1e-3, lambda rate, _: optax.adamw(rate)),
    "rmsprop": _Choice(1e-3, lambda rate, decay: optax.rmsprop(rate, decay=decay)),
    "forgetting": _Choice(0.01, lambda rate, decay: updates.forgetting(rate, decay)),
    "forgetting_normalised": _Choice(
        0.1, lambda rate, decay: updates.forgetting(rate, decay, normalise=True)
    ),
    "manhattan": _Choice(1e-3, lambda rate, _: updates.manhattan(rate)),
    "rprop": _resilient("rprop"),
    "irprop_minus": _resilient("irprop_minus"),
    "irprop_plus": _resilient("irprop_plus"),
    "rprop_minus": _resilient("rprop_minus"),
    "rprop_plus": _resilient("rprop_plus"),
    "half_back": _resilient("half_back"),
    "probabilistic_rprop": _Choice(
        1e-3,
        lambda rate, _: updates.probabilistic_rprop(rate),
        of_gradients=False,
    ),
}


def make_update(
    name: str,
    learning_rate: float | jax.Array | None = None,
    *,
    steps: int | None = None,
    clip: float | None = 1.0,
    decay: float = 0.9,
) -> optax.GradientTransformation:
    """Return the update rule (an optax transformation) of a given name.

    By default, gradients are clipped by their global norm. If `steps` is given, the
    learning rate falls to zero along half a cosine. The Rprop family adapts its own
    step sizes, so it has no learning rate schedule. The Rprop family and "manhattan"
    use only the signs of gradients, so their gradients are not clipped. All of the
    Rprop family except "probabilistic_rprop" need full batches.

    Args:
      name: a name in the table :data:`UPDATES`. The names "rprop" and "irprop_minus"
        mean the same update rule.
      learning_rate: for the Rprop family, the initial step size; for all other update
        rules, the learning rate. The table :data:`UPDATES` has the default values.
      steps: total number of updates; None for a constant learning rate.
      clip: global norm to which larger gradients are scaled down; None for no clipping.
      decay: factor that "momentum" and "forgetting" multiply past gradients by at each
        update; "rmsprop" multiplies past squared gradients by it.

    Raises:
      ValueError: if no update has this name, or if a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> update = make_update("sgd", 0.5)
      >>> update.update(jnp.array(4.0), update.init(jnp.array(0.0)))[0].item()
      -0.5
    """
    check_known("update", name, UPDATES)
    choice = UPDATES[name]
    rate = choice.learning_rate if learning_rate is None else learning_rate
    positive = {"learning_rate": rate, "steps": steps, "clip": clip}
    for option, value in positive.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{option} must be positive, got {value}.")
    if not choice.of_gradients:
        return choice.make(rate, decay)
    schedule = rate if steps is None else optax.cosine_decay_schedule(rate, steps)
    made = choice.make(schedule, decay)
    if clip is None or name == "manhattan":
        return made
    return optax.chain(optax.clip_by_global_norm(clip), made)
