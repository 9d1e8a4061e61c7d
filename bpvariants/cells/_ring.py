"""Random eigenvalues of a linear recurrence, drawn uniformly from a ring."""

import math

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers
from bpvariants._settings import check_scalar


def draw_ring(
    keys: tuple[jax.Array, jax.Array],
    units: int,
    min_radius: float,
    max_radius: float,
    max_angle: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw n eigenvalues λ uniformly from a ring; return ν, φ and |λ|², each [n].

    ν and φ are the cell's parameters, from which the eigenvalues are computed as
    λ = exp(−exp(ν) + i exp(φ)).

    Raises:
      ValueError: unless 0 ≤ min_radius < max_radius < 1 and max_angle > 0.
    """
    radii = {"min_radius": min_radius, "max_radius": max_radius}
    for name, number in {**radii, "max_angle": max_angle}.items():
        check_scalar(name, number)
    if are_numbers(min_radius, max_radius) and not 0 <= min_radius < max_radius < 1:
        raise ValueError(
            "radii must satisfy 0 ≤ min_radius < max_radius < 1, as a state with |λ| = "
            f"1 never decays; got {min_radius} and {max_radius}."
        )
    if are_numbers(max_angle) and not max_angle > 0:
        raise ValueError(f"max_angle must be positive, got {max_angle}.")
    tiny = 1e-4  # lower limit of the random numbers, because log 0 is infinite
    radius, angle = (jax.random.uniform(key, (units,), minval=tiny) for key in keys)
    squared = min_radius**2 + radius * (max_radius**2 - min_radius**2)
    return jnp.log(-0.5 * jnp.log(squared)), jnp.log(max_angle * angle), squared


def input_scale(inputs: int) -> float:
    """Return 1/√(2d), the standard deviation of a weight's real and imaginary parts.

    d is the number of inputs of each unit.
    """
    return 1 / math.sqrt(2 * max(inputs, 1))
