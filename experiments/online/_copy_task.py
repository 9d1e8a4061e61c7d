"""The copy task: read a string of random bits, then output it."""

import math

import jax
import jax.numpy as jnp
import optax

GUESS = math.log(2)  # loss in nats of a network that remembers nothing


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the cross-entropy in nats; y [*batch, 1] is the logit of target 1."""
    return optax.sigmoid_binary_cross_entropy(y[..., 0], target)


def draw_sequence(
    key: jax.Array, length: jax.Array | int, batch: int, longest: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draw a batch of copy sequences; return inputs, targets, loss weights and mask.

    A string of `length` bits takes 2·length steps; the other steps, up to 2·longest,
    are padding. An input x is one-hot: bit 0, bit 1, or the request to output a bit.
    Inputs are [2·longest, B, 3]; targets, loss weights and mask are [2·longest, B].
    """
    bits = jax.random.bernoulli(key, 0.5, (longest, batch)).astype(int)
    t = jnp.arange(2 * longest)
    asked, mask = t >= length, t < 2 * length
    shown = jnp.where(asked[:, None], 2, bits[jnp.minimum(t, longest - 1)])
    targets = bits[jnp.clip(t - length, 0, longest - 1)].astype(float)
    both = lambda flags: jnp.broadcast_to(flags[:, None], targets.shape)
    weights = (asked & mask).astype(float)
    return jax.nn.one_hot(shown, 3), targets, both(weights), both(mask)
