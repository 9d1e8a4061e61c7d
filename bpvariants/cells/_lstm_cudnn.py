"""Function that runs an LSTM over a whole sequence; on an NVIDIA GPU, it calls cuDNN.

cuDNN takes all weights of an LSTM as one vector. The vector contains the matrix for the
input x, the matrix for the state h, a bias for x and a bias for h. Each row of these
matrices belongs to one gate of one unit; the order of the gates is i, f, g, o.
`lstm_cudnn` sets the bias for h to zero.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from bpvariants._masking import checked_lengths
from bpvariants._settings import described
from bpvariants.cells._cell import params_of
from bpvariants.cells._lstm import lstm
from bpvariants.types import PyTree


def lstm_cudnn(
    params: PyTree,
    carry: tuple[jax.Array, jax.Array],
    xs: jax.Array,
    *,
    lengths: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Run `lstm` over a sequence; on an NVIDIA GPU, call cuDNN. Reverse mode only.

    In float32, `lstm_cudnn` returns the same results and derivatives as
    `gradients.unroll(lstm, …)`, up to the precision of cuDNN's matrix products. Only
    reverse-mode derivatives work, not `jax.jvp`. A test checks the order of the weights
    against JAX's reference implementation of cuDNN's LSTM. The speed of `lstm_cudnn`
    has not been measured.

    On all platforms without an NVIDIA GPU, the sequence is run by a scan, with the same
    results. Whether cuDNN or the scan is used depends on the platform for which the
    function is compiled or exported. There is one exception: a function that is
    exported for GPUs on a machine without a GPU contains the scan, because JAX cannot
    find cuDNN on that machine.

    Args:
      params: the parameters that `lstm.init` draws, in float32.
      carry: the state before the first step, a pair (c_0, h_0) of arrays [B, n].
      xs: inputs, [T, B, d].
      lengths: [B] integers from 0 to T; the number of time steps of each example. Steps
        after the length of an example are padding: their inputs may be NaN, their
        outputs are 0, and the carry does not change. Default: all T steps.
      precision: None allows cuDNN to use TF32 in matrix products;
        `jax.lax.Precision.HIGHEST` forbids TF32.

    Returns:
      The carry (c, h) after the last step of each example, and the outputs h_t of all
      time steps, [T, B, n].

    Raises:
      ValueError: if shapes or dtypes do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells
      >>> params = cells.lstm.init(jax.random.key(0), 3, 16)
      >>> carry = cells.lstm.carry(params, (5,))
      >>> last, ys = cells.lstm_cudnn(params, carry, jnp.ones((9, 5, 3)))
      >>> ys.shape
      (9, 5, 16)
    """
    _check(params, carry, xs)
    length, batch = xs.shape[:2]
    given = jnp.full(batch, length)
    if lengths is not None:
        given = checked_lengths(lengths, "len(xs)", length)
    if given.shape != (batch,):
        raise ValueError(
            f"lengths must have one entry for each of {batch} examples, got shape "
            f"{given.shape}."
        )
    arguments = params, carry, xs, given
    by_cudnn = partial(run, rnn.lstm, precision)
    if not _can_trace(by_cudnn, arguments):
        return _scan(*arguments)
    return jax.lax.platform_dependent(*arguments, cuda=by_cudnn, default=_scan)


def _can_trace(by_cudnn, arguments) -> bool:
    """Return whether JAX can ask cuDNN for its buffer sizes, as tracing requires."""
    try:
        jax.eval_shape(by_cudnn, *arguments)
    except (AttributeError, NameError, RuntimeError):  # no CUDA plugin, or no GPU
        return False
    return True


def _scan(params, carry, xs, lengths):
    def step(carry, inputs):
        x, real = inputs
        new, y = lstm(params, carry, x)
        choose = lambda new, old: jnp.where(real[:, None], new, old)
        return jax.tree.map(choose, new, carry), choose(y, jnp.zeros_like(y))

    xs, real = _without_padding(xs, lengths)
    return jax.lax.scan(step, carry, (xs, real))


def _without_padding(xs, lengths):
    """Return inputs with zeros in padding, and a mask [T, B] of unpadded steps."""
    steps = jnp.arange(xs.shape[0])[:, None]
    real = steps < lengths[None].astype(steps.dtype)
    return jnp.where(real[..., None], xs, jnp.zeros_like(xs)), real


def run(function, precision, params, carry, xs, lengths):
    """Convert arrays to cuDNN's layout, run an LSTM by `function`, and convert back.

    `function` is `jax.experimental.rnn.lstm` or takes the same arguments.
    """
    inputs, units = params["inputs"].shape[0], params["recurrent"].shape[0]
    xs, real = _without_padding(xs, lengths)
    matrices = params["inputs"].T, params["recurrent"].T
    biases = params["bias"], jnp.zeros_like(params["bias"])
    weights = jnp.concatenate([leaf.reshape(-1) for leaf in (*matrices, *biases)])
    c, h = carry
    some = jnp.maximum(lengths, 1).astype(jnp.int32)  # cuDNN rejects length 0
    ys, last_h, last_c = function(
        xs.swapaxes(0, 1), h[None], c[None], weights, some,
        inputs, units, 1, 0.0, False, precision,
    )  # fmt: skip
    ys = jnp.where(real[..., None], ys.swapaxes(0, 1), 0)
    began = (lengths > 0)[:, None]
    last = jnp.where(began, last_c[0], c), jnp.where(began, last_h[0], h)
    return last, ys


def _check(params, carry, xs):
    matrix, recurrent, _ = params_of("lstm", params, ("inputs", "recurrent", "bias"))
    inputs, units = matrix.shape[0], recurrent.shape[0]
    if recurrent.shape != (units, 4 * units):
        raise ValueError(
            f"params must be what cells.lstm.init returns, with params['recurrent'] of "
            f"shape [n, 4n]; got shape {recurrent.shape}, as of another cell."
        )
    if xs.ndim != 3 or xs.shape[0] < 1 or xs.shape[2] != inputs:
        raise ValueError(
            f"xs must have shape [T, B, d] with T > 0 and d = {inputs}, the rows of "
            f"params['inputs']; got {xs.shape}."
        )
    wanted = (xs.shape[1], units)
    is_pair = isinstance(carry, tuple | list) and len(carry) == 2
    if not is_pair or any(jnp.shape(leaf) != wanted for leaf in carry):
        got = ", ".join(map(described, carry)) if is_pair else described(carry)
        raise ValueError(
            f"carry must be (c, h), two arrays [B, n] = {wanted}, as "
            f"cells.lstm.carry(params, (B,)) returns; got {got}."
        )
    for name, tree in {"params": params, "carry": carry, "xs": xs}.items():
        for leaf in jax.tree.leaves(tree):
            if leaf.dtype != jnp.float32:
                raise ValueError(
                    f"{name} must be float32, the only dtype that lstm_cudnn takes; "
                    f"got {leaf.dtype}."
                )
