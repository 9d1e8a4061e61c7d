"""Function that builds an optimiser from `scale_by_rprop`, by negating its steps."""

import optax

from bpvariants.updates._params import chain
from bpvariants.updates.resilient._rprop import scale_by_rprop
from bpvariants.updates.resilient._rprop_checks import check_settings
from bpvariants.updates.resilient._rprop_layouts import RpropLayout
from bpvariants.updates.resilient._rprop_restore import restoring


def descend(name, variant, numbers, weight_decay, state, after=None):
    """Return the optimiser of a variant of Rprop; error messages call it `name`."""
    check_settings(name, *numbers)
    rule = scale_by_rprop(
        *numbers, weight_decay=weight_decay, variant=variant, state=state
    )
    if after is not None:
        return restoring(rule, RpropLayout(state, variant), after)
    return chain(name, rule, optax.scale(-1.0))
