"""Run a dense cell over a whole sequence, by one kernel on a TPU or a GPU.

The products x_t W of all time steps are one matrix product before the kernel. The
backward kernel computes the cotangents of all products, and matrix products over all
time steps then give the gradients of the weights. A long sequence is divided into
chunks, so that no array of a kernel has 2³¹ elements or more: kernels compute positions
in memory as 32-bit integers.
"""

import math
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import select
from bpvariants.cells import _kernel_gpu, _kernel_tpu
from bpvariants.cells._recurrence import Recurrence

Interpret: TypeAlias = Literal["tpu", "gpu"] | None
# Largest number of elements in an array that a kernel reads or writes.
MOST_ELEMENTS = 2**31 - 1
DTYPES = ("float32", "bfloat16", "float64")


def run_sequence(
    recurrence: Recurrence,
    interpret: Interpret,
    params: dict[str, jax.Array],
    carry: list[jax.Array],
    xs: jax.Array,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: list[jax.Array],
) -> tuple[list[jax.Array], jax.Array]:
    """Return the last states [*batch, n], and the outputs [T, *batch, n].

    `carry` and `initial` are lists of the states; the last of them is h.
    """
    batch_shape, dtype = xs.shape[1:-1], xs.dtype
    rows = math.prod(batch_shape)
    flat = lambda leaf: leaf.reshape(rows, leaf.shape[-1])
    start, first = (jnp.stack([flat(h) for h in tree]) for tree in (carry, initial))
    if mask is not None:
        xs = select(mask, xs, jnp.zeros_like(xs))
    flags = _flags(mask, reset, (xs.shape[0], rows, 1))
    xs = xs.reshape(xs.shape[0], rows, xs.shape[-1])
    units = start.shape[-1]
    body = partial(_run_chunk, recurrence, interpret, units)
    # Gradients of the weights are summed over chunks in float32 or wider.
    wide = widen(params)
    chunk = lambda h, inputs: body(cast_like(wide, params), first, h, *inputs)
    last, ys = _in_chunks(
        chunk, _chunk_length(recurrence, rows, units), start, (xs, flags)
    )
    unflat = lambda leaf: leaf.reshape(*batch_shape, units)
    return [unflat(h) for h in last], ys.reshape(-1, *batch_shape, units).astype(dtype)


def _flags(mask, reset, shape):
    """Return flags: 0 in padding, 2 where a real step begins with a reset, else 1."""
    if mask is None and reset is None:
        return None
    one = jnp.ones(shape, jnp.int32)
    flags = one if reset is None else one + reset.reshape(shape).astype(jnp.int32)
    return flags if mask is None else flags * mask.reshape(shape).astype(jnp.int32)


def _chunk_length(recurrence: Recurrence, rows: int, units: int) -> int:
    arrays = max(recurrence.gates, recurrence.kept, recurrence.states)
    up = lambda size, unit: -(-size // unit) * unit
    # Kernels pad the examples and the units to at most these numbers.
    step = arrays * up(rows, _kernel_tpu.MOST_EXAMPLES) * up(units, _kernel_tpu.LANES)
    if step > MOST_ELEMENTS:
        raise ValueError(
            f"kernel='pallas' takes at most {MOST_ELEMENTS} elements per time step, "
            f"but a batch of {rows} and {units} units need {step} elements for the "
            f"{arrays} gates of cells.{recurrence.name}; divide the batch."
        )
    return MOST_ELEMENTS // step


def _in_chunks(function, size, h, inputs):
    """Scan `function` over chunks of `size` steps, and over the remaining steps."""
    length = inputs[0].shape[0]
    if length <= size:
        return function(h, inputs)
    whole = length - length % size
    fold = lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:])
    h, ys = jax.lax.scan(function, h, jax.tree.map(fold, inputs))
    ys = ys.reshape(whole, *ys.shape[2:])
    if whole == length:
        return h, ys
    h, rest = function(h, jax.tree.map(lambda leaf: leaf[whole:], inputs))
    return h, jnp.concatenate([ys, rest])


def _run_chunk(recurrence, interpret, units, params, initial, start, xs, flags):
    by_gate = lambda leaf: jnp.stack(jnp.split(leaf, recurrence.gates, axis=-1))
    weights, matrices = by_gate(params["inputs"]), by_gate(params["recurrent"])
    bias = by_gate(params["bias"])[:, None, None, :]
    terms = jnp.einsum("tbd,kdn->ktbn", xs, weights) + bias
    hidden_bias = jnp.zeros_like(bias[:, 0])
    if "candidate_bias" in params:
        hidden_bias = hidden_bias.at[-1, 0].set(params["candidate_bias"])
    ys, last = recur(  # pyright: ignore[reportGeneralTypeIssues]
        recurrence, interpret, terms, matrices, hidden_bias, start, initial, flags
    )
    return last, ys


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    recurrence: Recurrence,
    interpret: Interpret,
    terms: jax.Array,
    matrices: jax.Array,
    bias: jax.Array,
    start: jax.Array,
    initial: jax.Array,
    flags: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over T steps, B examples and n units.

    Args:
      recurrence: the elementwise part of the cell, with k gates and s states.
      interpret: None to choose a kernel by the platform. "tpu" or "gpu" for the kernel
        of this platform in Pallas' interpret mode, which is slow and runs anywhere.
      terms: x_t W + b, [k, T, B, n].
      matrices: U, [k, n, n].
      bias: b′, which is added to the product with U, [k, 1, n].
      start: the states before the first step, [s, B, n].
      initial: the states after a reset, [s, B, n].
      flags: [T, B, 1] integers, 0 in padding, 2 at a reset, 1 elsewhere; or None.

    Returns:
      The outputs [T, B, n] and the last states [s, B, n].
    """
    operands = (matrices, bias), terms, start, initial, flags
    ys, _, _, last = _dispatch("forward", recurrence, interpret, operands)
    return ys, last


def _forward(recurrence, interpret, terms, matrices, bias, start, initial, flags):
    operands = (matrices, bias), terms, start, initial, flags
    ys, old, kept, last = _dispatch("forward", recurrence, interpret, operands)
    return (ys, last), (old, kept, matrices, flags)


def _backward(recurrence, interpret, residuals, cotangents):
    old, kept, matrices, flags = residuals
    of_ys, of_last = cotangents
    weights = (matrices.swapaxes(1, 2),)
    operands = weights, kept, old, of_ys, widen(of_last), flags
    dx, dstart, dinitial = _dispatch("backward", recurrence, interpret, operands)
    dtype, wide = kept.dtype, widen(of_last).dtype
    hidden = recurrence.hidden(list(widen(dx)), list(widen(kept)))
    dbias = jnp.stack([jnp.sum(d, axis=(0, 1)) for d in hidden])[:, None]
    of_matrix = lambda d: jnp.einsum(
        "tbi,tbj->ij", old[-1], d.astype(dtype), preferred_element_type=wide
    )
    dmatrices = jnp.stack([of_matrix(d) for d in hidden])
    gradients = dx, dmatrices, dbias, dstart, dinitial
    return *(gradient.astype(dtype) for gradient in gradients), None


recur.defvjp(_forward, _backward)


def _dispatch(
    direction: Literal["forward", "backward"],
    recurrence: Recurrence,
    interpret: Interpret,
    operands: tuple[Any, ...],
) -> tuple[jax.Array, ...]:
    """Run the kernel of the platform, or a scan on platforms without a kernel."""

    def kernel(module, interpreted=False):
        function = partial(getattr(module, direction), recurrence, interpreted)
        return partial(_padded, function, module.padded_sizes)

    if interpret is not None:
        module = {"tpu": _kernel_tpu, "gpu": _kernel_gpu}[interpret]
        return kernel(module, interpreted=True)(*operands)
    scan = _scan_forward if direction == "forward" else _scan_backward
    return jax.lax.platform_dependent(
        *operands,
        tpu=kernel(_kernel_tpu),
        cuda=kernel(_kernel_gpu),
        default=partial(scan, recurrence),
    )


def _padded(kernel, padded_sizes, weights, *operands):
    """Pad examples and units with zeros, run a kernel, and cut its results.

    Added units have zero weights. Their states stay 0, and so do their cotangents.
    """
    *arrays, flags = operands
    batch, units = arrays[0].shape[-2:]
    rows, columns = padded_sizes(batch, units, arrays[0].dtype)

    def pad(array, more_rows):
        more = more_rows, columns - units
        widths = [*[(0, 0)] * (array.ndim - 2), *[(0, number) for number in more]]
        return jnp.pad(array, widths) if any(more) else array

    matrices, *biases = weights
    biases = [pad(bias, 0) for bias in biases]
    weights = pad(matrices, columns - units), *biases
    arrays = [pad(array, rows - batch) for array in arrays]
    if flags is not None and rows > batch:
        flags = jnp.pad(flags, [(0, 0), (0, rows - batch), (0, 0)])
    results = kernel(weights, *arrays, flags)
    return tuple(array[..., :batch, :units] for array in results)


def _scan_forward(recurrence, weights, terms, start, initial, flags):
    matrices, bias = weights
    dtype = terms.dtype

    def body(carry, inputs):
        x, flag = inputs
        flag = flag if flag is None else flag[None]
        old = carry if flag is None else jnp.where(flag == 2, initial, carry)
        products = _product("bi,kij->kbj", old[-1], matrices) + widen(bias)
        new, kept = recurrence.forward(list(widen(x)), list(products), list(widen(old)))
        new, kept = (jnp.stack(values).astype(dtype) for values in (new, kept))
        carry = new if flag is None else jnp.where(flag == 0, carry, new)
        return carry, (new[-1], old, kept)

    inputs = terms.swapaxes(0, 1), flags
    last, (ys, old, kept) = jax.lax.scan(body, start, inputs)
    return ys, old.swapaxes(0, 1), kept.swapaxes(0, 1), last


def _scan_backward(recurrence, weights, kept, old, of_ys, of_last, flags):
    (transposed,) = weights
    dtype = kept.dtype

    def body(state, inputs):
        given, dinitial = state
        kept, old, dy, flag = inputs
        flag = flag if flag is None else flag[None]
        new = given if flag is None else jnp.where(flag == 0, 0, given)
        new = [*new[:-1], new[-1] + widen(dy)]
        kept = list(widen(kept))
        dx, dold = recurrence.backward(kept, list(widen(old)), new)
        hidden = jnp.stack(recurrence.hidden(dx, kept)).astype(dtype)
        dold[-1] += _product("kbj,kji->bi", hidden, transposed)
        dold = jnp.stack(dold)
        if flag is not None:
            dold = jnp.where(flag == 0, dold + given, dold)
            dinitial = dinitial + jnp.where(flag == 2, dold, 0)
            dold = jnp.where(flag == 2, 0, dold)
        return (dold, dinitial), jnp.stack(dx).astype(dtype)

    swap = lambda array: array.swapaxes(0, 1)
    inputs = swap(kept), swap(old), of_ys, flags
    state = of_last, jnp.zeros_like(of_last)
    (dstart, dinitial), dx = jax.lax.scan(body, state, inputs, reverse=True)
    return swap(dx), dstart, dinitial


def _product(equation, a, b):
    return jnp.einsum(equation, a, b, preferred_element_type=widen(a[:0]).dtype)
