"""The LSTM over a whole sequence, run on a GPU by one call of the library cuDNN.

cuDNN takes all weights of an LSTM as one vector: the matrix for x, the matrix for h,
and a bias for each of the two. In cuDNN's matrices, each row belongs to one gate of one
unit, and the gates are in the order i, f, g, o. `lstm_cudnn` sets the bias for h to
zero.
"""

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from bpvariants.types import PyTree


def lstm_cudnn(
    params: PyTree,
    carry: tuple[jax.Array, jax.Array],
    xs: jax.Array,
    *,
    lengths: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Run the cell `lstm` over a sequence with cuDNN, which needs an NVIDIA GPU.

    `lstm_cudnn` returns the same results and derivatives as `gradients.unroll(lstm, …)`
    in float32, up to the precision of cuDNN's matrix products. Only reverse-mode
    derivatives work. A test compares the layout of the weights with JAX's reference
    implementation of cuDNN's LSTM. The speed of `lstm_cudnn` has not been measured.

    Args:
      params: the parameters that `lstm.init` draws, in float32.
      carry: (c_0, h_0), each [B, n].
      xs: inputs, [T, B, d].
      lengths: [B] integers from 0 to T, the number of steps of each example. Later
        steps are padding: inputs may be NaN, outputs are 0, and the carry does not
        change. Default: T.
      precision: None allows cuDNN to use TF32 in matrix products;
        `jax.lax.Precision.HIGHEST` forbids TF32.

    Returns:
      The carry (c, h) after the last step of each example, and the outputs h_t of all
      steps, [T, B, n].

    Raises:
      ValueError: if JAX does not run on a GPU, if shapes disagree, or if an array is
        not float32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells
      >>> params = cells.lstm.init(jax.random.key(0), 3, 16)
      >>> carry = cells.lstm.carry(params, (5,))
      >>> if jax.default_backend() == "gpu":
      ...     last, ys = cells.lstm_cudnn(params, carry, jnp.ones((9, 5, 3)))
    """
    if jax.default_backend() != "gpu":
        raise ValueError(
            "lstm_cudnn needs a GPU, but JAX runs on "
            f"{jax.default_backend()!r}; use gradients.unroll(cells.lstm, …)."
        )
    return run(rnn.lstm, params, carry, xs, lengths, precision)


def run(function, params, carry, xs, lengths, precision):
    """Run a sequence through `jax.experimental.rnn.lstm`, or one with its interface."""
    inputs, units = params["inputs"].shape[0], params["recurrent"].shape[0]
    _check(params, carry, xs, inputs, units)
    length, batch = xs.shape[:2]
    given = jnp.full(batch, length) if lengths is None else jnp.asarray(lengths)
    if given.shape != (batch,):
        raise ValueError(
            f"lengths must have one entry for each of {batch} examples, got shape "
            f"{given.shape}."
        )
    steps = jnp.arange(length)[:, None]
    real = steps < given[None].astype(steps.dtype)
    xs = jnp.where(real[..., None], xs, jnp.zeros_like(xs))
    matrices = params["inputs"].T, params["recurrent"].T
    biases = params["bias"], jnp.zeros_like(params["bias"])
    weights = jnp.concatenate([leaf.reshape(-1) for leaf in (*matrices, *biases)])
    c, h = carry
    some = jnp.maximum(given, 1).astype(jnp.int32)  # cuDNN needs lengths ≥ 1
    ys, last_h, last_c = function(
        xs.swapaxes(0, 1), h[None], c[None], weights, some,
        inputs, units, 1, 0.0, False, precision,
    )  # fmt: skip
    ys = jnp.where(real[..., None], ys.swapaxes(0, 1), 0)
    began = (given > 0)[:, None]
    last = jnp.where(began, last_c[0], c), jnp.where(began, last_h[0], h)
    return last, ys


def _check(params, carry, xs, inputs, units):
    if xs.ndim != 3 or xs.shape[0] < 1 or xs.shape[2] != inputs:
        raise ValueError(
            f"xs must have shape [T, B, d] with T > 0 and d = {inputs}, the rows of "
            f"params['inputs']; got {xs.shape}."
        )
    wanted = (xs.shape[1], units)
    for leaf in carry:
        if leaf.shape != wanted:
            raise ValueError(
                f"carry must be two arrays [B, n] = {wanted}, got one of {leaf.shape}."
            )
    for name, tree in {"params": params, "carry": carry, "xs": xs}.items():
        for leaf in jax.tree.leaves(tree):
            if leaf.dtype != jnp.float32:
                raise ValueError(
                    f"{name} must be float32, the only dtype that lstm_cudnn takes; "
                    f"got {leaf.dtype}."
                )
