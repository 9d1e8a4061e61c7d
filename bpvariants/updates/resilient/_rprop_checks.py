"""Checks of the settings of updates in the Rprop family."""

from typing import Any

import jax
import numpy as np

from bpvariants._checks import are_numbers
from bpvariants.updates._params import check_number


def check_choice(name, value, known):
    if value not in known:
        raise ValueError(f"{name} must be one of {[*known]}, got {value!r}.")


def check_weight_decay(weight_decay: Any) -> None:
    """Check that the factor of weight decay is at least 0; arrays are not checked."""
    if callable(weight_decay) or isinstance(weight_decay, dict | list | tuple):
        raise ValueError(
            f"weight_decay must be a number for all params, got {weight_decay!r}; for "
            "a schedule use optax.inject_hyperparams, for some params optax.masked."
        )
    if weight_decay is None:
        return
    check_number("weight_decay", weight_decay)
    if are_numbers(weight_decay) and not weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}.")


def _value_of(number):
    """Return the value of a number or array as NumPy, or None if it is a tracer."""
    try:
        return np.asarray(number)
    except jax.errors.TracerArrayConversionError:
        return None


def check_settings(
    name, learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, usual=50.0
):
    """Check all settings of Rprop except tracers, whose values are unknown."""
    for rate in jax.tree.leaves(learning_rate):
        if callable(rate):
            raise ValueError(
                f"learning_rate must be a number, got the schedule {rate}; pass the "
                f"first step size, because {name} adapts step sizes itself."
            )
    check_number("learning_rate", learning_rate, per_leaf=True)
    check_number("eta_minus", eta_minus)
    check_number("eta_plus", eta_plus)
    check_number("min_step_size", min_step_size, per_leaf=True)
    check_number("max_step_size", max_step_size, per_leaf=True)
    for rate in map(_value_of, jax.tree.leaves(learning_rate)):
        if rate is not None and not np.all(rate > 0):
            raise ValueError(
                f"{name} needs learning_rate > 0, got {rate}; it is the first step "
                "size, and 0.01 is usual."
            )
    is_array = lambda eta: isinstance(
        eta, jax.Array
    )  # in an array, 1 is allowed, as the Manhattan rule needs
    shrinks = is_array(eta_minus) or np.all((eta_minus > 0) & (eta_minus < 1))
    grows = is_array(eta_plus) or np.all(eta_plus > 1)
    if not (shrinks and grows):
        raise ValueError(
            f"{name} needs 0 < eta_minus < 1 < eta_plus, got "
            f"eta_minus={eta_minus} and eta_plus={eta_plus}; 0.5 and 1.2 are usual."
        )
    least, greatest = map(jax.tree.leaves, (min_step_size, max_step_size))
    alike = len(least) == len(greatest)
    pairs = (
        zip(least, greatest, strict=True)
        if alike
        else [(low, high) for low in least for high in greatest]
    )
    for low, high in pairs:
        _check_bounds(name, low, high, usual)


def _check_bounds(name, low, high, usual):
    """Check 0 ≤ Δ_min ≤ Δ_max for the bounds of step sizes, unless they are tracers."""
    least, greatest = _value_of(low), _value_of(high)
    right = least is None or np.all(least >= 0)
    if right and least is not None and greatest is not None:
        # If the shapes of the two bounds differ, `init` raises an error later.
        fit = least.shape == greatest.shape or 0 in (least.ndim, greatest.ndim)
        right = not fit or np.all(least <= greatest)
    if not right:
        raise ValueError(
            f"{name} needs 0 <= min_step_size <= max_step_size, got "
            f"min_step_size={low} and max_step_size={high}; swap them, or leave "
            f"one at its default; {usual} is usual for max_step_size."
        )
