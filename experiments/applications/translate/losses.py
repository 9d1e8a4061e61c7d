"""Losses and gradient rule of `translate`, and greedy translation.

At each step, the decoder reads the previous word of the translation: either the word of
the reference, or the word that the decoder itself predicted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments.applications.translate.network import (
    cuts,
    encode,
    END,
    How,
    logits,
    make_step,
    remat,
    UNKNOWN,
)


class Batch(NamedTuple):
    """Word indices of sentences [S, B] and translations [T, B]; both end with END."""

    source: Any
    source_mask: Any
    target: Any
    target_mask: Any


def losses(
    params: PyTree,
    encoded: tuple[PyTree, jax.Array],
    batch: Batch,
    how: How,
    *,
    forced: jax.Array | None = None,
    kept: Any = None,
) -> jax.Array:
    """Return the loss of each target word, [T, B]; values in padding have no meaning.

    The loss of the word y_t is −ln p(y_t | y_1 … y_{t−1}, x) for the source x.

    Args:
      params: parameters of the network.
      encoded: the encoded source, from :func:`encode`.
      batch: source sentences and reference translations.
      how: settings of the network.
      forced: [T, B] bool; True where the decoder reads the reference's word, False
        where it reads its own prediction. By default True everywhere.
      kept: dropout masks of the embeddings of read words, and of the decoder's output
        f; None for no dropout.
    """
    target = jnp.asarray(batch.target)
    seen, g = encoded
    given = jnp.concatenate([jnp.full_like(target[:1], END), target[:-1]])
    flags = jnp.ones(target.shape, bool) if forced is None else forced
    _, (f, _, _) = gradients.unroll(
        make_step(how.attention, forced is not None),
        (params["decoder"], seen),
        (g, jnp.full_like(target[0], END)),
        (given, flags, kept, cuts(target, how)),
        mask=batch.target_mask, remat=remat(how),
    )  # fmt: skip
    f = jnp.where(batch.target_mask[..., None], f, 0)
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(params["decoder"], f), target
    )


def make_rule(
    how: How, *, forcing: float = 1.0, dropout: float = 0.0
) -> Callable[..., tuple]:
    """Return a rule (params, *batch, key=) -> ((mean loss, None), grads).

    The mean is over target words that are neither padding nor unknown. `how.rule` must
    be a gradient rule that differentiates encoder and decoder together.

    Args:
      how: settings of the network and of the rule.
      forcing: probability that the decoder reads the reference's word instead of its
        own.
      dropout: dropout rate; masks are drawn for each word.
    """

    def value(params, batch, key):
        of_source, of_target, of_words = jax.random.split(key, 3)
        kept: Any = None
        read: Any = None
        if dropout:
            e = params["decoder"]["mix_bias"].shape[-1]
            read = _keep(of_source, (*batch.source.shape, e), dropout)
            kept = tuple(_keep(of_target, (2, *batch.target.shape, e), dropout))
        forced = None
        if forcing < 1:
            forced = jax.random.bernoulli(of_words, forcing, batch.target.shape)
            forced = forced.at[0].set(True)
        encoded = encode(params, batch.source, batch.source_mask, read, how)
        weights = counted(batch)
        each = losses(params, encoded, batch, how, forced=forced, kept=kept)
        total = jnp.sum(jnp.where(weights, each, 0))
        return total / jnp.maximum(jnp.sum(weights), 1), None

    def rule(params, *batch, key):
        return jax.value_and_grad(value, has_aux=True)(params, Batch(*batch), key)

    return rule


def counted(batch: Batch) -> jax.Array:
    """Return a mask [T, B] of the scored target words: known words and END."""
    return jnp.asarray(batch.target_mask) & (jnp.asarray(batch.target) != UNKNOWN)


def greedy(
    params: PyTree, encoded: tuple[PyTree, jax.Array], how: How, length: int
) -> tuple[jax.Array, jax.Array]:
    """Translate greedily: write the most probable word, and read it at the next step.

    Args:
      params: parameters of the network.
      encoded: the encoded source, from :func:`encode`.
      how: settings of the network.
      length: number of words to write.

    Returns:
      Words [length, B], to be ignored after END; and attention a [length, S, B].
    """
    seen, g = encoded
    given = jnp.full((length, len(g)), END, jnp.int32)
    forced = jnp.arange(length)[:, None] == jnp.zeros_like(given)
    _, (_, said, shares) = gradients.unroll(
        make_step(how.attention, True), (params["decoder"], seen), (g, given[0]),
        (given, forced, None, cuts(given, how)),
    )  # fmt: skip
    return said, shares


def _keep(key: jax.Array, shape: tuple[int, ...], dropout: float) -> jax.Array:
    return jax.random.bernoulli(key, 1 - dropout, shape) / (1 - dropout)
