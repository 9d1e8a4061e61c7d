"""Recurrent network of `categorise`: it reads a text, then predicts the text's class.

    x_t = Σ_k E[i_{t,k}] / √K_t,    h_t = cell(θ, h_{t−1}, x_t),    y_t = V r_t + c

The t-th symbol of a text (a word) has K_t indices i_{t,k}. E[i] is the embedding of
index i, and θ are the weights of the recurrent layer. V and c are the readout's weights
and bias. The pooled state r_t is the mean or maximum of the states h_1 … h_t, or the
last state h_t. The loss uses only the output y after the last symbol. If the symbols
are characters, the network reads a window of several characters at each step:
x_t = relu(Σ_j Σ_k E[i_{t,j,k}]), where j is the position in the window.

A network with a shortcut has a further output for the bag of inputs. It is linear, as
in logistic regression on the counts of symbols; S are its weights:

    y_t = V r_t + c + S b_t,    b_t = (x_1 + … + x_t) / √t

In training with dropout, x_t, r_t and b_t are multiplied by random masks. Each text has
its own masks, and x_t has another one at each time step.

The gradient rule does not differentiate with respect to the embeddings E. The rule
differentiates with respect to a much smaller table, which has one row for each symbol
of the mini-batch. The chain rule then turns the gradient with respect to this table
into the gradient with respect to E.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import choices
from experiments.applications.categorise.units import Encoded, NONE
from experiments.networks import pooled, recurrent
from experiments.networks.batches import all_batches, length_buckets, pad

BATCH = 128  # number of texts that are classified at once in the test
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Masks(NamedTuple):
    """Dropout masks; each element is 0 or the inverse of the probability to be kept."""

    inputs: Any  # [*batch, embedding], of x
    pooled: Any  # [*batch, units], of the pooled state
    bag: Any  # [*batch, embedding], of the shortcut's input


def init_runs(
    key: jax.Array,
    cell: str,
    *,
    indices: int,
    embedding: int,
    units: int,
    classes: int,
    runs: int,
    scale: float = 0.3,
    shortcut: bool = False,
) -> PyTree:
    """Draw the parameters of several networks; axis 0 of each leaf is the network.

    `scale` is the standard deviation of the embeddings.
    """

    def init(key):
        own, of_table = jax.random.split(key)
        table = scale * jax.random.normal(of_table, (indices, embedding))
        params = recurrent.init(own, cell, embedding, units, classes) | {"E": table}
        if shortcut:
            shape = embedding, classes
            weights = jax.random.normal(jax.random.fold_in(of_table, 1), shape)
            params["shortcut"] = weights / embedding**0.5
        return params

    keys = jax.random.split(jax.random.fold_in(key, 1), runs)
    return jax.jit(jax.vmap(init))(keys)


def of_batch(params: PyTree, symbols: jax.Array) -> PyTree:
    """Replace the table of all embeddings by a table for the mini-batch's symbols.

    Args:
      params: parameters of one network.
      symbols: [U, K]; row u holds the embedding indices of the mini-batch's u-th
        symbol.
    """
    there = (symbols != NONE)[..., None]
    count = jnp.maximum(there.sum(axis=1), 1)
    table = jnp.sum(params["E"][symbols] * there, axis=1) / jnp.sqrt(count)
    return {name: leaf for name, leaf in params.items() if name != "E"} | {
        "table": table
    }


def draw_masks(
    key: jax.Array, params: PyTree, steps: int, batch: int, dropout: float
) -> Masks:
    """Draw dropout masks, [steps, batch, …]; an element is 0 or 1 / (1 − dropout).

    Args:
      key: random key.
      params: parameters of one network.
      steps: number of time steps.
      batch: number of texts.
      dropout: probability that an element is 0.
    """
    embedding, units = params["E"].shape[-1], len(params["readout"])
    of_inputs, *of_texts = jax.random.split(key, 3)

    def draw(key, *shape):
        kept = jax.random.bernoulli(key, 1 - dropout, shape)
        return kept / jnp.float32(1 - dropout)

    repeated = lambda mask: jnp.broadcast_to(mask, (steps, *mask.shape))
    return Masks(
        draw(of_inputs, steps, batch, embedding),
        repeated(draw(of_texts[0], batch, units)),
        repeated(draw(of_texts[1], batch, embedding)),
    )


def make_rule(
    name: str, cell: str, pooling: pooled.Pooling, *, lookback: int, dropout: float
) -> Callable[..., tuple]:
    """Return a gradient rule (params, *batch, key=) -> ((loss, None), grads)."""
    of_sequence = choices.make_rule(
        name, _step(cell, pooling), cross_entropy,
        lookback=lookback, visible=lambda carry: pooled.visible(cell)(carry[0]),
    )  # fmt: skip
    draws = choices.draws(name)

    def rule(params, xs, targets, weights, mask, symbols, *, key=None):
        masks = None
        if dropout:
            assert key is not None
            key, own = jax.random.split(key)
            steps, batch = xs.shape[:2]
            masks = draw_masks(own, params, steps, batch, dropout)
        view, back = jax.vjp(lambda params: of_batch(params, symbols), params)
        carry = _zeros(params, cell, pooling, xs.shape[1])
        options = {"key": key} if draws else {}
        (value, _), grads = of_sequence(
            view, carry, (xs, masks), targets, weights, mask, **options
        )
        return (value, None), back(grads)[0]

    return rule


def say(
    params: PyTree, cell: str, pooling: pooled.Pooling, encoded: Encoded
) -> np.ndarray:
    """Return each network's class probabilities for N texts, [networks, N, C]."""
    return read(params, cell, pooling, encoded)[0]


def read(
    params: PyTree, cell: str, pooling: pooled.Pooling, encoded: Encoded
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities, and the pooled states [networks, N, units]."""
    buckets = length_buckets([*map(len, encoded.texts)], 2)
    found: dict[int, list[np.ndarray]] = {}
    for bucket in all_batches(buckets, min(BATCH, len(encoded.texts))):
        xs, mask = pad(encoded.texts, bucket)
        both = _classify(cell, pooling)(
            params, xs.astype(np.int32), mask, encoded.symbols
        )
        both = [*map(np.asarray, both)]
        for i, row in enumerate(bucket.rows):
            if row >= 0:
                found[row] = [each[:, i] for each in both]
    rows = [found[row] for row in range(len(encoded.texts))]
    likely, states = (np.stack(each, axis=1) for each in zip(*rows, strict=True))
    return likely, states


@cache
def _classify(cell: str, pooling: pooled.Pooling) -> Callable:
    step = _step(cell, pooling)

    def unread(params, carry, x):
        return step(params, carry, (x, None))[0], None

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    def classify(params, xs, mask, symbols):
        params = of_batch(params, symbols)
        carry = _zeros(params, cell, pooling, xs.shape[1])
        carry, _ = gradients.unroll(unread, params, carry, xs, mask=mask)
        return jax.nn.softmax(_output(params, carry)), carry[0][1]

    return classify


def _step(cell: str, pooling: pooled.Pooling) -> Callable:
    """Return the step of a network; its inputs are pairs (symbols, dropout masks).

    Without dropout, the masks are None. The carry is (carry of the pooled network, sum
    of the inputs x), where the sum is () if the network has no shortcut.
    """
    pooled_step = pooled.make_step(cell, pooling, lambda _, x: x)

    def step(params, carry, given):
        symbols, masks = given
        network, total = carry
        x = _encode(params, symbols)
        if masks is not None:
            x = x * masks.inputs
        network, _ = pooled_step(params, network, x)
        carry = network, total + x if "shortcut" in params else ()
        return carry, _output(params, carry, masks)

    return step


def _zeros(params: PyTree, cell: str, pooling: pooled.Pooling, batch: int) -> PyTree:
    network = pooled.zeros(params["cell"], cell, pooling, batch)
    if "shortcut" not in params:
        return network, ()
    return network, jnp.zeros((batch, len(params["shortcut"])))


def _output(params: PyTree, carry: PyTree, masks: Masks | None = None) -> jax.Array:
    (state, seen, count), total = carry
    if masks is not None:
        seen = seen * masks.pooled
    output = pooled.readout(params, (state, seen, count))
    if "shortcut" not in params:
        return output
    bag = total / jnp.sqrt(jnp.maximum(count, 1))  # rows of padding have no steps
    if masks is not None:
        bag = bag * masks.bag
    return output + bag @ params["shortcut"]


def _encode(params, x):
    read = params["table"][x]  # [*batch, symbols in a window, embedding]
    return read[..., 0, :] if x.shape[-1] == 1 else jax.nn.relu(read.sum(axis=-2))
