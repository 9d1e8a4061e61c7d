"""Learning signals: what a rule takes for the derivative of the loss in the carry.

Notation, for one example: e_t = ∂ℓ_t/∂y_t of m numbers, h_t the carry of n numbers.

    symmetric   c_t = ∂ℓ_t/∂h_t                                      the derivative
    fixed       c_t = e_t B,      B [m, n], drawn once
    adaptive    c_t = e_t B_t,    B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

where the last learns as a readout y = h W with W [n, m] does by gradient descent at the
rate η with weight decay λ, so that B − Wᵀ shrinks by 1 − λ a step.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import is_floating, widen
from bpvariants.types import PyTree


class AdaptiveFeedback(NamedTuple):
    """Feedback weights that learn as a readout y = h W does, by gradient descent.

        B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

    averaged over the batch as the loss is. B approaches Wᵀ if W is trained with the
    same η and λ, which here is the share that is lost at a step (in optax's `sgd` with
    `add_decayed_weights(d)` it is η d). B is in the state of the rule, so it learns
    along a stream; calls of :func:`over_sequence` each begin with `weights` again,
    unless they `keep_state`.

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
    leaves, structure = jax.tree.flatten(carry)
    outputs, outputs_structure = jax.tree.flatten(y)
    keys = iter(jax.random.split(key, len(outputs) * len(leaves)))

    def draw(output, leaf):
        subkey = next(keys)
        if not (is_floating(output) and is_floating(leaf)):
            return None
        shape = jnp.shape(output) + jnp.shape(leaf)
        dtype = widen(jnp.zeros((), jnp.result_type(leaf))).dtype
        draws = jax.random.normal(subkey, shape, dtype)
        return draws / math.sqrt(max(math.prod(jnp.shape(leaf)), 1))

    trees = [structure.unflatten([draw(a, b) for b in leaves]) for a in outputs]
    return outputs_structure.unflatten(trees)


def starting_weights(feedback: Feedback) -> PyTree:
    """Return B to begin with, float32 or wider; None if feedback is symmetric."""
    if isinstance(feedback, str):
        if feedback != "symmetric":
            raise ValueError(
                "feedback must be 'symmetric', weights as gradients.random_feedback "
                f"draws them, or a gradients.AdaptiveFeedback; got {feedback!r}."
            )
        return None
    adaptive = isinstance(feedback, AdaptiveFeedback)
    return widen(feedback.weights if adaptive else feedback)


def fed_back(
    weights: PyTree, errors: Sequence[jax.Array], y: PyTree, carry: PyTree
) -> list[jax.Array | None]:
    """Return c = e B, [*batch, *n], for each leaf of a carry; None where it gets none.

    Args:
      weights: B.
      errors: e, [*batch, *m] for each leaf of y.
      y: an output of one example, or its shape.
      carry: the carry of one example, or its shape.
    """
    signals: list[jax.Array | None] = [None] * len(jax.tree.leaves(carry))
    links = _links(weights, y, carry)
    for (i, j), matrix in zip(links, jax.tree.leaves(weights), strict=True):
        axes = jnp.ndim(jax.tree.leaves(y)[i])
        part = jnp.tensordot(errors[i], matrix.astype(errors[i].dtype), axes)
        before = signals[j]
        signals[j] = part if before is None else before + part
    return signals


def adapted(
    feedback: AdaptiveFeedback,
    weights: PyTree,
    errors: Sequence[jax.Array],
    y: PyTree,
    carry: PyTree,
    new_leaves: Sequence[jax.Array],
) -> PyTree:
    """Return (1 − λ) B − η Σ_batch eᵀ h, where h are the leaves [*batch, *n].

    Other arguments are those of :func:`fed_back`.
    """
    arrays, structure = jax.tree.flatten(weights)
    adapt = lambda matrix, change: (
        (1 - jnp.asarray(feedback.decay, matrix.dtype)) * matrix
        - jnp.asarray(feedback.learning_rate, matrix.dtype)
        * change.astype(matrix.dtype)
    )
    for place, (i, j) in enumerate(_links(weights, y, carry)):
        error = errors[i]
        batch = tuple(range(error.ndim - jnp.ndim(jax.tree.leaves(y)[i])))
        h = new_leaves[j].astype(error.dtype)
        change = jnp.tensordot(error, h, (batch, batch))
        arrays[place] = adapt(arrays[place], change)
    return structure.unflatten(arrays)


def _links(weights, y, carry):
    """Return for each array of B which leaf of y it reads and which of the carry."""
    wanted = "as gradients.random_feedback(key, y, carry) draws them for one example"
    outputs, leaves = jax.tree.leaves(y), jax.tree.leaves(carry)
    try:
        rows = [
            jax.tree.structure(carry).flatten_up_to(row)
            for row in jax.tree.structure(y).flatten_up_to(weights)
        ]
    except ValueError as error:
        raise ValueError(
            "feedback must be for each leaf of y a tree like the carry, or its visible "
            f"part, of arrays or None, {wanted}; got {weights!r}: {error}"
        ) from error
    links = []
    for i, row in enumerate(rows):
        for j, matrix in enumerate(row):
            if matrix is None:
                continue
            shape = jnp.shape(outputs[i]) + jnp.shape(leaves[j])
            floating = is_floating(outputs[i]) and is_floating(leaves[j])
            got = getattr(matrix, "shape", type(matrix).__name__)
            if got != shape or not floating:
                raise ValueError(
                    f"feedback must have an array of shape [*m, *n] = {shape} for an "
                    f"output of shape {jnp.shape(outputs[i])} and a leaf of the carry "
                    f"of shape {jnp.shape(leaves[j])}, and None where one of them has "
                    f"no derivative, {wanted}; got {got}."
                )
            links.append((i, j))
    return links
