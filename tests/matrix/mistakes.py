"""Mistakes in the arguments of gradient rules, and the error messages they cause."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.matrix import cases, selection
from tests.matrix.networks import networks
from tests.matrix.programs import RULES

LAYOUT = cases.Layout()
_swapped = lambda name: lambda given: {name: jnp.swapaxes(given[name], 0, 1)}
_with_param = lambda leaf: lambda given: {"params": given["params"] | {"bias": leaf}}

# Format: {name: (function that makes the mistake, pattern of the error message)}.
MISTAKES = {
    "params_of_integers": (
        _with_param(jnp.ones(3, int)),
        r"params\['bias'\] must be a floating array",
    ),
    "params_with_text": (_with_param("tanh"), r"params\['bias'\] must be an array"),
    "params_with_function": (_with_param(jnp.tanh), r"params\['bias'\] must be an ar"),
    "params_empty": (lambda given: {"params": {}}, "params has no arrays"),
    "carry_of_other_batch": (
        lambda given: {"carry": given["carry"][:2], "initial": given["initial"][:2]},
        "do not fit together|carry must begin with",
    ),
    "initial_of_other_shape": (
        lambda given: {"initial": given["initial"][:2]},
        "initial must have the structure",
    ),
    "initial_of_other_structure": (
        lambda given: {"initial": (given["initial"],)},
        "initial must have the structure",
    ),
    "initial_of_other_dtype": (
        lambda given: {"initial": given["initial"].astype(np.float32)},
        "initial must have the structure",
    ),
    "xs_of_no_steps": (
        lambda given: {"xs": given["xs"][:0]},
        "xs must have arrays whose first axis is time",
    ),
    "xs_with_text": (lambda given: {"xs": ["x"]}, r"xs\[0\] must be an array"),
    "xs_batch_major": (_swapped("xs"), "time-major"),
    "targets_batch_major": (_swapped("targets"), "time-major"),
    "targets_of_fewer_steps": (
        lambda given: {"targets": given["targets"][:4]},
        "targets must have 5 time steps",
    ),
    "weights_of_fewer_steps": (
        lambda given: {"weights": given["weights"][:4]},
        "weights must have 5 time steps",
    ),
    "weights_of_steps_alone": (
        lambda given: {"weights": given["weights"][:, 0]},
        r"weights must have one entry for each loss",
    ),
    "weights_in_words": (
        lambda given: {"weights": "last"},
        "weights must be an array with one entry for each loss",
    ),
    "weights_complex": (
        lambda given: {"weights": given["weights"].astype(complex)},
        "weights must be real",
    ),
    "mask_of_integers": (
        lambda given: {"mask": given["mask"].astype(int)},
        "mask must be bool, got int64",
    ),
    "mask_of_fewer_examples": (
        lambda given: {"mask": given["mask"][:, :2]},
        "mask must have one entry for each",
    ),
    "mask_of_fewer_steps": (
        lambda given: {"mask": given["mask"][:4]},
        "mask must have 5 time steps",
    ),
    "reset_of_floats": (
        lambda given: {"reset": given["reset"].astype(float)},
        "reset must be bool, got float64",
    ),
    "reset_of_features": (
        lambda given: {"reset": given["reset"][..., None]},
        "reset must have one entry for each",
    ),
    "reset_of_fewer_steps": (
        lambda given: {"reset": given["reset"][:4]},
        "reset must have 5 time steps",
    ),
    "key_is_a_seed": (lambda given: {"key": 3}, "key must be"),
    "key_is_a_batch": (
        lambda given: {"key": jax.random.split(jax.random.key(0), 3)},
        "key must be",
    ),
}
# Format: {name: (function that changes (step, loss), pattern of the error message)}.
FUNCTIONS = {
    "step_is_none": (lambda step, loss: (None, loss), "step must be a function"),
    "loss_is_none": (lambda step, loss: (step, None), "loss must be a function"),
    "step_returns_the_carry_alone": (
        lambda step, loss: ((lambda p, h, x: step(p, h, x)[0]), loss),
        r"step must return the pair \(carry, y\)",
    ),
    "step_changes_the_dtype_of_the_carry": (
        lambda step, loss: (
            (lambda p, h, x: (step(p, h, x)[0].astype("float32"), h)),
            loss,
        ),
        "the carry that step returns must have the structure, shapes and dtypes",
    ),
    "loss_of_features": (
        lambda step, loss: (step, lambda y, target: (y - target) ** 2),
        "loss must give one number for each example|one entry for each loss"
        "|must begin with",
    ),
    "loss_of_batch": (
        lambda step, loss: (step, lambda y, target: jnp.sum((y - target) ** 2)),
        "must have one entry for each loss",
    ),
    "loss_complex": (
        lambda step, loss: (step, lambda y, t: loss(y, t).astype(complex)),
        "loss must give real numbers, got complex128",
    ),
    "loss_of_integers": (
        lambda step, loss: (step, lambda y, t: loss(y, t).astype(int)),
        "loss must give floating numbers, got int64",
    ),
    "loss_is_a_tuple": (
        lambda step, loss: (step, lambda y, t: (loss(y, t),)),
        "loss must return one array of losses",
    ),
}


def rules_of(family) -> list[str]:
    """Return the rules in a family that have the optional arguments, such as `mask`.

    The table of rules wraps the params of layer-wise RTRL in a tuple, so its messages
    name other places. Its own tests have its mistakes.
    """
    return [
        rule
        for rule in selection.FAMILIES[family]
        if RULES[rule].optional and rule != "layerwise_rtrl"
    ]


def mistakes_of(rule) -> list[str]:
    """Return the names of the mistakes for which a rule must raise an error."""
    names = [*MISTAKES, *FUNCTIONS, "key_is_missing"]
    if rule in selection.FAMILIES["online"] and not RULES[rule].drawn:
        names.remove("key_is_missing")  # Online rules that are not random ignore a key.
    if rule == "pes":
        names.remove("loss_of_integers")  # PES takes no derivative of the loss.
    if rule in ("kf_rtrl", "sketched_rtrl_full"):
        # If a loss function returns one loss for a whole batch, these rules raise a
        # different error.
        names.remove("loss_of_batch")
    return names


def cells(rule) -> list[str]:
    """Return the names of all checks that `assert_named` makes."""
    return [f"{rule}/mistake/{name}" for name in mistakes_of(rule)]


class _Changed:
    """A network whose step and loss function are replaced."""

    def __init__(self, network, change):
        self.step, self.loss = change(network.step, network.loss)
        self.visible = network.visible


def assert_named(rule):
    """Check that each mistake raises a ValueError with the expected message."""
    row, wrong = RULES[rule], []
    name = "tanh" if row.accepts(networks()["tanh"]) else "separate"
    network, case = networks()[name], cases.make(name, LAYOUT, "plain")
    given = {"params": network.params} | case._asdict()
    key = {"key": jax.random.key(0)} if row.drawn else {}

    def run(name):
        if name in FUNCTIONS:
            return row.make(_Changed(network, FUNCTIONS[name][0]))(**given, **key)
        if name == "key_is_missing":
            own = {} if row.drawn else {"key": jax.random.key(0)}
            return row.make(network)(**given, **own)
        return row.make(network)(**given | key | MISTAKES[name][0](given))

    for name in mistakes_of(rule):
        message = {
            **{name: message for name, (_, message) in (MISTAKES | FUNCTIONS).items()},
            "key_is_missing": "key must be given" if row.drawn else "key must be left",
        }[name]
        try:
            with pytest.raises(ValueError, match=re.compile(message)):
                run(name)
        except (Exception, pytest.fail.Exception) as error:
            wrong.append(f"{rule}/mistake/{name}: {type(error).__name__} {error}"[:500])
    assert not wrong, "\n".join(wrong)
