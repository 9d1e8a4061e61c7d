"""Problems of the study `rprop_vs`: losses to minimise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import data
from experiments.resilient._digits_mlp import digits_mlp

TARGET = 1e-6  # value of the loss to reach in the two synthetic problems


class Problem(NamedTuple):
    """A loss E to minimise in several runs, each from its own initial point."""

    name: str
    title: str
    unit: str  # name of the loss in the picture
    loss: Callable[[jax.Array, Any], jax.Array]  # (weights [n], case) -> loss E, []
    starts: jax.Array  # [runs, n] initial weights of each run
    cases: jax.Array  # [runs, ...], data of each run's loss, such as a matrix
    steps: int
    targets: tuple[float, ...]  # values of the loss to reach, from high to low
    by_target: bool  # rank methods by iterations to the last target, else by final loss
    floor: float  # losses below this value are drawn at this value
    reference: dict[str, float]  # iterations or final losses, measured elsewhere
    accuracy: Callable[[jax.Array], jax.Array] | None = None  # weights -> percent


def quadratic(key: jax.Array, runs: int, steps: int) -> Problem:
    """Return the problem of minimising ½ wᵀA w over the weights w.

    In each run, the matrix A has another random rotation.
    """

    def matrix(key):
        rotation, _ = jnp.linalg.qr(jax.random.normal(key, (10, 10), jnp.float64))
        return (rotation * jnp.logspace(0, 3, 10)) @ rotation.T

    return Problem(
        name="quadratic",
        title=f"Quadratic, n = 10, condition 1000, rotations: {runs}",
        unit="E",
        loss=lambda w, matrix: w @ matrix @ w / 2,
        starts=jnp.ones((runs, 10), jnp.float64),
        cases=jax.vmap(matrix)(jax.random.split(key, runs)),
        steps=steps,
        targets=(TARGET,),
        by_target=True,
        floor=1e-8,
        reference={
            "rprop": 597,
            "irprop_plus": 646,
            "rprop_plus": 1272,
            "rprop_minus": 1399,
            "optax.rprop": 1038,
        },
    )


def rosenbrock(steps: int) -> Problem:
    """Return the problem of minimising Rosenbrock's function from (−1.2, 1)."""
    return Problem(
        name="rosenbrock",
        title="Rosenbrock's function from (−1.2, 1)",
        unit="E",
        loss=lambda w, _: 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2,
        starts=jnp.array([[-1.2, 1.0]], jnp.float64),
        cases=jnp.zeros(1),
        steps=steps,
        targets=(TARGET,),
        by_target=False,
        floor=1e-8,
        reference={
            "irprop_plus": 1.3e-4,
            "rprop": 1.6e-4,
            "optax.rprop": 3.1e-3,
            "rprop_minus": 7.3e-3,
            "rprop_plus": 1.1e-2,
        },
    )


def digits(
    key: jax.Array, runs: int, steps: int, targets: tuple[float, ...]
) -> Problem:
    """Return the problem of training an MLP on full batches of digits, in float32."""
    network, (train, test) = digits_mlp(), data.digits()
    train, test = jax.tree.map(jnp.asarray, (train, test))
    return Problem(
        name="digits",
        title=f"Digits, MLP 64-32-10, full batch, seeds: {runs}",
        unit="training loss (cross entropy, nats)",
        loss=lambda w, _: network.loss(w, *train),
        starts=jax.vmap(network.init)(jax.random.split(key, runs)),
        cases=jnp.zeros(runs),
        steps=steps,
        targets=tuple(sorted(targets, reverse=True)),
        by_target=False,
        floor=1e-6,
        reference={},
        accuracy=lambda w: network.accuracy(w, *test),
    )
