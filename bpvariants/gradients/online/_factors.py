"""Parts that are shared by online rules which store factors of the influence."""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, one_example, replace_floating
from bpvariants._dtypes import widen
from bpvariants._jaxpr.factorised_step import factorise, FactorisedStep
from bpvariants.gradients.online._online_step import OnlineStep
from bpvariants.types import PyTree, Step


def factorised(
    advance: Step, params: PyTree, now: OnlineStep, rank: int
) -> FactorisedStep:
    """Factorise the step of one example; say if the loss hides the batch axes."""
    try:
        return factorise(
            one_example(advance, rank), params, now.start, now.inputs, rank
        )
    except ValueError as error:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(now.start)]
        if rank > 0 or all(len(shape) < 2 for shape in shapes):
            raise
        raise ValueError(
            "loss must give one loss for each example. It gives one number for a carry "
            f"with leaves of shapes {shapes}, so the batch counts as one example, "
            "for which params do not factorise. Let loss sum over the features alone."
        ) from error


def check_factors(influence: list[Any], zeros: list[Any]) -> None:
    """Raise ValueError unless the factors have the shapes of those before a step."""
    shapes = lambda pairs: [tuple(map(jnp.shape, pair)) for pair in pairs]
    got, want = shapes(influence), shapes(zeros)
    if got != want:
        raise ValueError(
            f"state must have factors of this network's shapes, {want}; got {got}. "
            "Use rule.init(params, carry, (x, target)) with the arguments of update."
        )


def direct_gradient(
    now: OnlineStep, params: PyTree
) -> tuple[jax.Array, PyTree, PyTree, list[jax.Array]]:
    """Return (mean loss, new carry, gradient at fixed h_{t−1}, errors).

    The errors are the derivatives of the mean loss with respect to the floating leaves
    of the old carry h_{t−1}.
    """

    def mean_loss(params, leaves):
        start = replace_floating(now.start, leaves)
        new, losses = now.examples(params, start, now.inputs)
        return jnp.sum(now.shares * losses), new

    (value, new), (direct, errors) = jax.value_and_grad(
        mean_loss, argnums=(0, 1), has_aux=True
    )(params, widen(floating_leaves(now.start)))
    return value, new, direct, errors
