"""Learning signals: what a rule takes for the derivative of the loss in the carry.

Notation, for one example: e_t = ∂ℓ_t/∂y_t of m numbers, h_t the carry of n numbers.

    symmetric   c_t = ∂ℓ_t/∂h_t                                      the derivative
    fixed       c_t = e_t B,      B [m, n], drawn once
    adaptive    c_t = e_t B_t,    B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

where the last learns as a readout y = h W with W [n, m] does by gradient descent at the
rate η with weight decay λ, so that B − Wᵀ shrinks by 1 − λ a step.
"""

import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import floating_parts, is_floating, widen
from bpvariants.types import PyTree


class AdaptiveFeedback(NamedTuple):
    """Feedback weights that learn as a readout y = h W does, by gradient descent.

        B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

    averaged over the batch as the loss is. B approaches Wᵀ if W is trained with the
    same η and λ, which here is the share that is lost at a step (in optax's `sgd` with
    `add_decayed_weights(d)` it is η d). B is in the state of the rule, so it learns
    along a stream, while `over_sequence` begins anew at every call.

    Attributes:
      weights: B at the start, as :func:`random_feedback` draws it.
      learning_rate: η.
      decay: λ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> B = gradients.random_feedback(jax.random.key(0), jnp.zeros(2), jnp.zeros(3))
      >>> feedback = gradients.AdaptiveFeedback(B, learning_rate=0.1, decay=0.01)

    References:
      Bellec et al., "A solution to the learning dilemma for recurrent networks of
      spiking neurons", Nature Communications 11, 2020,
      doi:10.1038/s41467-020-17236-y.
    """

    weights: PyTree
    learning_rate: jax.typing.ArrayLike
    decay: jax.typing.ArrayLike = 0.0


# "symmetric", weights as `random_feedback` draws them, or weights that learn.
Feedback: TypeAlias = Literal["symmetric"] | PyTree | AdaptiveFeedback


def random_feedback(key: jax.Array, y: PyTree, carry: PyTree) -> PyTree:
    """Draw feedback weights: normal, of variance 1/n, as a readout [n, m] is drawn.

    Args:
      key: of `jax.random`.
      y: an output of one example, leaves [*m], arrays or `jax.ShapeDtypeStruct`s.
      carry: of one example, leaves [*n], likewise; of `eprop` the visible part.

    Returns:
      B as `jax.jacobian` would give the derivative of y in the carry: for each leaf of
      y a tree like carry of arrays [*m, *n], None at leaves that have no derivatives.
      To send a leaf nothing, put None in its place.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> B = gradients.random_feedback(jax.random.key(0), jnp.zeros(2), jnp.zeros(3))
      >>> B.shape
      (2, 3)
    """
    outputs, rebuild = floating_parts(y)
    leaves, structure = jax.tree.flatten(carry)
    keys = iter(jax.random.split(key, (len(outputs), len(leaves))).reshape(-1))

    def draw(key, output, leaf):
        if not is_floating(leaf):
            return None
        draws = jax.random.normal(key, output.shape + leaf.shape, widen_dtype(leaf))
        return draws / math.sqrt(max(leaf.size, 1))

    return rebuild(
        [structure.unflatten([draw(next(keys), a, b) for b in leaves]) for a in outputs]
    )
