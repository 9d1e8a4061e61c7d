"""Checks of the settings of the Rprop family."""

import jax
import numpy as np

from bpvariants._checks import are_numbers


def check_choice(name, value, known):
    """Check that the value of an argument is one of the known values."""
    if value not in known:
        raise ValueError(f"{name} must be one of {[*known]}, got {value!r}.")


def check_weight_decay(weight_decay):
    """Check the factor λ of weight decay; the values of arrays are not checked."""
    if callable(weight_decay) or isinstance(weight_decay, dict | list | tuple):
        raise ValueError(
            f"weight_decay must be a number for all params, got {weight_decay!r}; for "
            "a schedule use optax.inject_hyperparams, for some params optax.masked."
        )
    if are_numbers(weight_decay) and not weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}.")


def _is_known(number):
    """Whether a value can be compared now: a Python number or a NumPy array."""
    return are_numbers(number) or isinstance(number, np.ndarray)


def check_settings(
    name, learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, usual=50.0
):
    """Check all settings whose values are known; accept tracers and JAX arrays."""
    for rate in jax.tree.leaves(learning_rate):
        if callable(rate):
            raise ValueError(
                f"learning_rate must be a number, got the schedule {rate}; pass the "
                f"first step size, because {name} adapts step sizes itself."
            )
        if isinstance(rate, str):
            raise ValueError(f"learning_rate must be a number, got {rate!r}.")
        if _is_known(rate) and not np.all(rate > 0):
            raise ValueError(
                f"{name} needs learning_rate > 0, got {rate}; it is the first step "
                "size, and 0.1 is usual."
            )
    if are_numbers(eta_minus, eta_plus) and not 0 < eta_minus < 1 < eta_plus:
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
        if are_numbers(low, high) and not 0 <= low <= high:
            raise ValueError(
                f"{name} needs 0 <= min_step_size <= max_step_size, got "
                f"min_step_size={low} and max_step_size={high}; swap them, or leave "
                f"one at its default; {usual} is usual for max_step_size."
            )
