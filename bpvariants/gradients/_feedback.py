"""Learning signals: the derivative of a loss in the carry, or a substitute for it.

Notation, for one example: ℓ_t is the loss, y_t [m] the output, e_t = ∂ℓ_t/∂y_t the
error, h_t [n] the carry, and c_t [n] the learning signal.

    symmetric   c_t = ∂ℓ_t/∂h_t                                      the derivative
    fixed       c_t = e_t B,      B [m, n] random and constant
    adaptive    c_t = e_t B_t,    B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

B and B_t are feedback weights. Adaptive feedback weights are updated like the weights
W [n, m] of a readout y = h W under gradient descent with learning rate η and weight
decay λ. If W is trained with the same η and λ, the difference B − Wᵀ shrinks by the
factor 1 − λ at each step.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._checks import check_arrays, check_single_key
from bpvariants._dtypes import is_floating, widen
from bpvariants.types import PyTree


class AdaptiveFeedback(NamedTuple):
    """Feedback weights B that are trained like the weights W of a readout y = h W.

        B_{t+1} = (1 − λ) B_t − η e_tᵀ h_t

    Here h_t is the carry, y_t the output, ℓ_t the loss, and e_t = ∂ℓ_t/∂y_t the error.
    The products e_tᵀ h_t are averaged over the batch in the same way as the loss. B
    approaches Wᵀ if W is trained with the same learning rate η and decay λ. λ is the
    fraction of B that decays at each step; optax's `sgd` with `add_decayed_weights(d)`
    has λ = η d. B is part of the online rule's state, so the rule's `update` trains B
    at every step. With :func:`over_sequence`, each call starts again from the initial
    `weights`, unless keep_state is True.

    Attributes:
      weights: the initial feedback weights B, for instance from
        :func:`random_feedback`.
      learning_rate: η, the learning rate of B.
      decay: λ, the fraction of B that decays at each step.

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


# How to compute learning signals: "symmetric" for the exact derivative of the loss, or
# constant feedback weights from `random_feedback`, or trained feedback weights.
Feedback: TypeAlias = Literal["symmetric"] | PyTree | AdaptiveFeedback


def random_feedback(key: jax.Array, y: PyTree, carry: PyTree) -> PyTree:
    """Draw feedback weights from a normal distribution of mean 0 and variance 1/n.

    n is the number of elements of the carry's leaf to which B sends a learning signal.
    The initial weights of a readout [n, m] usually have this variance, too.

    Args:
      key: a `jax.random.key`.
      y: output of one example, as arrays or `jax.ShapeDtypeStruct`s, leaves [*m].
      carry: carry of one example, as arrays or `jax.ShapeDtypeStruct`s, leaves [*n].
        For `eprop`, give only the visible part of the carry.

    Returns:
      The feedback weights B, with the structure of `jax.jacobian` of y in the carry:
      for each leaf of y, a pytree like carry, of arrays [*m, *n]. B has None for leaves
      that are not floating. To send no learning signal to a leaf of the carry, replace
      its array in B by None.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> B = gradients.random_feedback(jax.random.key(0), jnp.zeros(2), jnp.zeros(3))
      >>> B.shape
      (2, 3)
    """
    check_single_key(key)
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
    """Return the initial feedback weights, float32 or wider; None for "symmetric"."""
    if isinstance(feedback, str):
        if feedback != "symmetric":
            raise ValueError(
                "feedback must be 'symmetric', weights as returned by gradients."
                f"random_feedback, or a gradients.AdaptiveFeedback; got {feedback!r}."
            )
        return None
    check_arrays("feedback", feedback, "draw it with gradients.random_feedback.")
    adaptive = isinstance(feedback, AdaptiveFeedback)
    return widen(feedback.weights if adaptive else feedback)


def fed_back(
    weights: PyTree, errors: Sequence[jax.Array], y: PyTree, carry: PyTree
) -> list[jax.Array | None]:
    """Return the learning signal c = e B for each leaf of a carry, [*batch, *n].

    B are the feedback `weights`. e are the `errors`, the derivatives of the loss in
    each leaf of y, [*batch, *m]. y and carry are arrays of one example, or shapes. The
    signal of a leaf without feedback weights is None.
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
    """Return the feedback weights after one update by the rule of `feedback`.

    `new_leaves` are the leaves [*batch, *n] of the new carry. `weights`, `errors`, `y`
    and `carry` are the arguments that :func:`fed_back` takes.
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
    """Return, for each array of feedback weights, the leaves that the array connects.

    The leaves are given as (index of a leaf of y, index of a leaf of carry).
    """
    wanted = "as gradients.random_feedback(key, y, carry) returns for one example"
    outputs, leaves = jax.tree.leaves(y), jax.tree.leaves(carry)
    try:
        rows = [
            jax.tree.structure(carry).flatten_up_to(row)
            for row in jax.tree.structure(y).flatten_up_to(weights)
        ]
    except ValueError as error:
        raise ValueError(
            "feedback must have, for each leaf of y, a tree of arrays or None like the "
            f"carry (or its visible part), {wanted}; got {weights!r}: {error}"
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
                    f"of shape {jnp.shape(leaves[j])}, or None. It must be None if one "
                    f"of them has no derivative, {wanted}; got {got}."
                )
            links.append((i, j))
    return links
