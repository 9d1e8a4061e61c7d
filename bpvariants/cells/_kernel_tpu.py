"""Pallas kernels for TPUs: all time steps of a dense cell in one kernel.

The grid is [blocks of examples, time steps]. A TPU runs the time steps one after
another. The matrices U stay in the chip's vector memory, and so do the states, in the
block of an output that all time steps share.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bpvariants.cells._recurrence import Recurrence

LANES = 128  # number of units is padded to a multiple of this
MOST_EXAMPLES = 128  # examples in a block
# The compiler's own limit of vector memory is 16 MiB, which a larger U exceeds.
USUAL_LIMIT = 16 * 2**20


def padded_sizes(batch: int, units: int, dtype: jnp.dtype) -> tuple[int, int]:
    rows = 32 // dtype.itemsize  # rows of a tile in vector memory
    block = min(-(-batch // rows) * rows, MOST_EXAMPLES)
    return -(-batch // block) * block, -(-units // LANES) * LANES


def forward(recurrence: Recurrence, interpret, weights, terms, start, initial, flags):
    """Run the recurrence; return ys, the old states, kept arrays, and last states.

    See `_sequence.recur` for the arguments and results.
    """
    matrices, bias = weights
    steps, batch, units = terms.shape[1:]
    block = _block(batch)
    each = partial(_each_step, block, units)
    whole = partial(_every_step, block, units)
    specs = [each(recurrence.gates), _constant(matrices), _constant(bias)]
    specs += [whole(recurrence.states), whole(recurrence.states)]
    operands = [terms, matrices, bias, start, initial]
    if flags is not None:
        specs.append(pl.BlockSpec((None, block, 1), lambda b, t: (t, b, 0)))
        operands.append(flags)
    shape = lambda *sizes: jax.ShapeDtypeStruct((*sizes, batch, units), terms.dtype)
    return _call(
        partial(_forward_kernel, recurrence, flags is not None),
        (batch // block, steps),
        (specs, operands),
        (
            [
                pl.BlockSpec((None, block, units), lambda b, t: (t, b, 0)),
                each(recurrence.states),
                each(recurrence.kept),
                whole(recurrence.states),
            ],
            [
                shape(steps),
                shape(recurrence.states, steps),
                shape(recurrence.kept, steps),
                shape(recurrence.states),
            ],
        ),
        interpret,
    )


def _forward_kernel(recurrence, flagged, *refs):
    x_ref, u_ref, bias_ref, start_ref, initial_ref, *refs = refs
    flag_ref = refs.pop(0) if flagged else None
    y_ref, old_ref, kept_ref, last_ref = refs

    @pl.when(pl.program_id(1) == 0)
    def _():
        last_ref[...] = start_ref[...]

    indices = range(recurrence.states)
    wide = partial(_wide, x_ref.dtype)
    carry = [last_ref[i] for i in indices]
    old = carry
    if flag_ref is not None:
        flag = _flags(flag_ref, carry[0])
        old = [jnp.where(flag == 2, initial_ref[i], carry[i]) for i in indices]
    for i in indices:
        old_ref[i] = old[i]
    products = [
        _dot(old[-1], u_ref[gate]) + wide(bias_ref[gate])
        for gate in range(recurrence.gates)
    ]
    terms = [wide(x_ref[gate]) for gate in range(recurrence.gates)]
    new, kept = recurrence.forward(terms, products, [wide(h) for h in old])
    y_ref[...] = new[-1].astype(y_ref.dtype)
    for i, value in enumerate(kept):
        kept_ref[i] = value.astype(kept_ref.dtype)
    for i in indices:
        value = new[i].astype(last_ref.dtype)
        if flag_ref is not None:
            value = jnp.where(_flags(flag_ref, value) == 0, carry[i], value)
        last_ref[i] = value


def backward(
    recurrence: Recurrence, interpret, weights, kept, old, of_ys, of_last, flags
):
    """Run the recurrence's derivative; return the cotangents of terms and states."""
    (transposed,) = weights
    steps, batch, units = kept.shape[1:]
    block = _block(batch)
    each = partial(_each_step, block, units, last=steps - 1)
    whole = partial(_every_step, block, units)
    specs = [each(recurrence.kept), each(recurrence.states), _constant(transposed)]
    time = lambda b, t: (steps - 1 - t, b, 0)
    specs += [pl.BlockSpec((None, block, units), time), whole(recurrence.states)]
    operands = [kept, old, transposed, of_ys, of_last]
    if flags is not None:
        specs.append(pl.BlockSpec((None, block, 1), time))
        operands.append(flags)
    dx = jax.ShapeDtypeStruct((recurrence.gates, *kept.shape[1:]), kept.dtype)
    state = jax.ShapeDtypeStruct(of_last.shape, of_last.dtype)
    return _call(
        partial(_backward_kernel, recurrence, flags is not None),
        (batch // block, steps),
        (specs, operands),
        (
            [each(recurrence.gates), *[whole(recurrence.states)] * 2],
            [dx, state, state],
        ),
        interpret,
    )


def _backward_kernel(recurrence, flagged, *refs):
    kept_ref, old_ref, u_ref, dy_ref, dlast_ref, *refs = refs
    flag_ref = refs.pop(0) if flagged else None
    dx_ref, dstart_ref, dinitial_ref = refs

    @pl.when(pl.program_id(1) == 0)
    def _():
        dstart_ref[...] = dlast_ref[...]
        dinitial_ref[...] = jnp.zeros_like(dinitial_ref)

    indices = range(recurrence.states)
    wide = partial(_wide, kept_ref.dtype)
    given = [dstart_ref[i] for i in indices]
    new = list(given)
    if flag_ref is not None:
        flag = _flags(flag_ref, given[0])
        new = [jnp.where(flag == 0, jnp.zeros_like(a), a) for a in new]
    new[-1] += wide(dy_ref[...])
    kept = [wide(kept_ref[i]) for i in range(recurrence.kept)]
    dx, dold = recurrence.backward(kept, [wide(old_ref[i]) for i in indices], new)
    for gate, value in enumerate(dx):
        dx_ref[gate] = value.astype(dx_ref.dtype)
    for gate, value in enumerate(recurrence.hidden(dx, kept)):
        dold[-1] += _dot(value.astype(u_ref.dtype), u_ref[gate])
    for i in indices:
        value = dold[i]
        if flag_ref is not None:
            flag = _flags(flag_ref, value)
            value = jnp.where(flag == 0, value + given[i], value)
            dinitial_ref[i] += jnp.where(flag == 2, value, jnp.zeros_like(value))
            value = jnp.where(flag == 2, jnp.zeros_like(value), value)
        dstart_ref[i] = value


def _flags(ref, like):
    # Spread integers over the lanes, and then compare: masks cannot be spread.
    return jnp.broadcast_to(ref[...], like.shape)


def _call(kernel, grid, inputs, outputs, interpret):
    in_specs, operands = inputs
    out_specs, shapes = outputs
    sizes = [
        _bytes(spec.block_shape, array.dtype)
        for spec, array in zip(
            [*in_specs, *out_specs], [*operands, *shapes], strict=True
        )
    ]
    need = 2 * sum(sizes) + 2**20  # each block is stored twice, to overlap its copy
    limit = need if need > USUAL_LIMIT else None
    params = pltpu.CompilerParams(
        dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=limit
    )
    run = pl.pallas_call(
        kernel, grid=grid, in_specs=in_specs, out_specs=out_specs, out_shape=shapes,
        interpret=interpret, compiler_params=None if interpret else params,
    )  # fmt: skip
    return run(*operands)


def _bytes(block, dtype):
    size = jnp.dtype(dtype).itemsize
    for length in block:
        size *= length if isinstance(length, int) else 1
    return size


def _each_step(block, units, number, last=None):
    """Return the block of one time step; from `last` backwards if it is given."""
    time = (lambda t: t) if last is None else (lambda t: last - t)
    return pl.BlockSpec((number, None, block, units), lambda b, t: (0, time(t), b, 0))


def _every_step(block, units, number):
    return pl.BlockSpec((number, block, units), lambda b, t: (0, b, 0))


def _constant(array):
    return pl.BlockSpec(array.shape, lambda b, t: (0,) * array.ndim)


def _block(batch):
    block = min(batch, MOST_EXAMPLES)
    while batch % block:
        block -= 1
    return block


def _wide(dtype, tile):
    return tile.astype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else tile


def _dot(a, b):
    wide = jnp.float32 if a.dtype.itemsize < 4 else a.dtype
    return jnp.dot(a, b, preferred_element_type=wide)
