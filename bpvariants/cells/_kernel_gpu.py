"""Pallas kernels for NVIDIA GPUs: all time steps of a dense cell in one kernel.

Each program of the grid runs all time steps of a block of examples. Within a time step
it loops over tiles of units. The states pass from step to step through the GPU's
memory, because every tile of new states depends on all tiles of old states. A barrier
separates writing and reading, so only the threads of one program share states.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from bpvariants.cells._recurrence import Recurrence

EXAMPLES = 16  # examples in a block, the fewest that a matrix product takes
MOST_UNITS = 64  # units in a tile


def padded_sizes(batch: int, units: int, dtype: jnp.dtype) -> tuple[int, int]:
    del dtype
    tile = _tile(units)
    return -(-batch // EXAMPLES) * EXAMPLES, -(-units // tile) * tile


def forward(recurrence: Recurrence, interpret, weights, terms, start, initial, flags):
    """Run the recurrence; return ys, the old states, kept arrays, and last states.

    See `_sequence.recur` for the arguments and results.
    """
    matrices, bias = weights
    steps, batch, units = terms.shape[1:]
    shape = lambda *sizes: jax.ShapeDtypeStruct((*sizes, batch, units), terms.dtype)
    operands = [terms, matrices, bias, start, initial]
    return _call(
        partial(_forward_kernel, recurrence, flags is not None, not interpret),
        operands + ([] if flags is None else [flags]),
        [
            shape(steps),
            shape(recurrence.states, steps),
            shape(recurrence.kept, steps),
            shape(recurrence.states),
        ],
        batch,
        interpret,
    )


def _forward_kernel(recurrence, flagged, barriers, *refs):
    x_ref, u_ref, bias_ref, start_ref, initial_ref, *refs = refs
    flag_ref = refs.pop(0) if flagged else None
    y_ref, old_ref, kept_ref, last_ref = refs
    steps, _, units = y_ref.shape
    rows, each_tile, indices = _loops(recurrence, units)
    wide = partial(_wide, x_ref.dtype)

    def put_state(t, columns, carry):
        """Store the states before step t, after a reset."""
        if flag_ref is not None:
            begins = flag_ref[t, rows, :] == 2
            first = [initial_ref[i, rows, columns] for i in indices]
            carry = [jnp.where(begins, a, b) for a, b in zip(first, carry, strict=True)]
        for i in indices:
            old_ref[i, t, rows, columns] = carry[i]

    def advance(t, columns):
        products = _products(
            lambda inner: old_ref[recurrence.states - 1, t, rows, inner],
            lambda gate, inner: u_ref[gate, inner, columns],
            recurrence.gates, units,
        )  # fmt: skip
        gates = range(recurrence.gates)
        products = [products[gate] + wide(bias_ref[gate, :, columns]) for gate in gates]
        terms = [wide(x_ref[gate, t, rows, columns]) for gate in gates]
        old = [old_ref[i, t, rows, columns] for i in indices]
        new, kept = recurrence.forward(terms, products, [wide(h) for h in old])
        y_ref[t, rows, columns] = new[-1].astype(y_ref.dtype)
        for i, value in enumerate(kept):
            kept_ref[i, t, rows, columns] = value.astype(kept_ref.dtype)
        new = [value.astype(last_ref.dtype) for value in new]
        if flag_ref is not None:
            pads = flag_ref[t, rows, :] == 0
            new = [jnp.where(pads, a, b) for a, b in zip(old, new, strict=True)]
        for i in indices:
            last_ref[i, rows, columns] = new[i]
        pl.when(t + 1 < steps)(lambda: put_state(t + 1, columns, new))

    def begin(columns):
        put_state(0, columns, [start_ref[i, rows, columns] for i in indices])

    def step(t, _):
        each_tile(lambda columns: advance(t, columns))
        _wait(barriers)
        return _

    each_tile(begin)
    _wait(barriers)
    _loop(steps, step)


def backward(
    recurrence: Recurrence, interpret, weights, kept, old, of_ys, of_last, flags
):
    """Run the recurrence's derivative; return the cotangents of terms and states."""
    (transposed,) = weights
    operands = [kept, old, transposed, of_ys, of_last]
    dx = jax.ShapeDtypeStruct((recurrence.gates, *kept.shape[1:]), kept.dtype)
    state = jax.ShapeDtypeStruct(of_last.shape, of_last.dtype)
    return _call(
        partial(_backward_kernel, recurrence, flags is not None, not interpret),
        operands + ([] if flags is None else [flags]),
        [dx, state, state],
        of_ys.shape[1],
        interpret,
    )


def _backward_kernel(recurrence, flagged, barriers, *refs):
    kept_ref, old_ref, u_ref, dy_ref, dlast_ref, *refs = refs
    flag_ref = refs.pop(0) if flagged else None
    dx_ref, dstart_ref, dinitial_ref = refs
    steps, _, units = dy_ref.shape
    rows, each_tile, indices = _loops(recurrence, units)
    gates = range(recurrence.gates)
    wide = partial(_wide, kept_ref.dtype)
    kept_tiles = lambda t, columns: [
        wide(kept_ref[i, t, rows, columns]) for i in range(recurrence.kept)
    ]

    def elementwise(t, columns):
        """Store the cotangents of x, and those of the states except through p."""
        given = [dstart_ref[i, rows, columns] for i in indices]
        new = list(given)
        if flag_ref is not None:
            pads = flag_ref[t, rows, :] == 0
            new = [jnp.where(pads, jnp.zeros_like(a), a) for a in new]
        new[-1] += wide(dy_ref[t, rows, columns])
        old = [wide(old_ref[i, t, rows, columns]) for i in indices]
        dx, dold = recurrence.backward(kept_tiles(t, columns), old, new)
        for gate in gates:
            dx_ref[gate, t, rows, columns] = dx[gate].astype(dx_ref.dtype)
        for i in indices:
            value = dold[i]
            if flag_ref is not None:
                pads = flag_ref[t, rows, :] == 0
                value = jnp.where(pads, value + given[i], value)
            dstart_ref[i, rows, columns] = value

    def through_products(t, columns):
        def hidden(inner):
            dx = [wide(dx_ref[gate, t, rows, inner]) for gate in gates]
            return recurrence.hidden(dx, kept_tiles(t, inner))

        products = _sum_of_products(
            hidden, lambda gate, inner: u_ref[gate, inner, columns], units
        )
        for i in indices:
            value = dstart_ref[i, rows, columns]
            value = value + products if i == recurrence.states - 1 else value
            if flag_ref is not None:
                begins = flag_ref[t, rows, :] == 2
                zeros = jnp.zeros_like(value)
                dinitial_ref[i, rows, columns] += jnp.where(begins, value, zeros)
                value = jnp.where(begins, zeros, value)
            dstart_ref[i, rows, columns] = value

    def step(index, _):
        t = steps - 1 - index
        each_tile(lambda columns: elementwise(t, columns))
        _wait(barriers)
        each_tile(lambda columns: through_products(t, columns))
        _wait(barriers)
        return _

    each_tile(partial(_begin_backward, rows, indices, *refs, dlast_ref))
    _wait(barriers)
    _loop(steps, step)


def _begin_backward(rows, indices, _, dstart_ref, dinitial_ref, dlast_ref, columns):
    for i in indices:
        value = dlast_ref[i, rows, columns]
        dstart_ref[i, rows, columns] = value
        dinitial_ref[i, rows, columns] = jnp.zeros_like(value)


def _call(kernel, operands, shapes, batch, interpret):
    params = triton.CompilerParams(num_warps=4, num_stages=1)
    run = pl.pallas_call(
        kernel, grid=(batch // EXAMPLES,), out_shape=shapes, interpret=interpret,
        compiler_params=None if interpret else params,
    )  # fmt: skip
    return run(*operands)


def _loops(recurrence, units):
    """Return a block's rows, a loop over tiles of columns, and the states' indices."""
    rows = pl.ds(pl.program_id(0) * EXAMPLES, EXAMPLES)
    tile = _tile(units)

    def each_tile(function):
        def body(j, _):
            function(pl.ds(j * tile, tile))
            return _

        _loop(units // tile, body)

    return rows, each_tile, range(recurrence.states)


def _loop(number, body):
    jax.lax.fori_loop(np.int32(0), np.int32(number), body, np.int32(0))


def _products(left, right, number, units):
    """Return the products left · right(gate) of a number of gates, tile by tile."""
    tile = _tile(units)

    def body(k, sums):
        inner = pl.ds(k * tile, tile)
        a = left(inner)
        return [sums[gate] + _dot(a, right(gate, inner)) for gate in range(number)]

    zeros = jnp.zeros((EXAMPLES, tile), _sum_dtype(left(pl.ds(0, tile)).dtype))
    return jax.lax.fori_loop(
        np.int32(0), np.int32(units // tile), body, [zeros] * number
    )


def _sum_of_products(left, right, units):
    """Return the sum over gates of left(gate) · right(gate), tile by tile."""
    tile = _tile(units)

    def body(k, total):
        inner = pl.ds(k * tile, tile)
        for gate, value in enumerate(left(inner)):
            matrix = right(gate, inner)
            total = total + _dot(value.astype(matrix.dtype), matrix)
        return total

    dtype = _sum_dtype(right(0, pl.ds(0, tile)).dtype)
    zeros = jnp.zeros((EXAMPLES, tile), dtype)
    return jax.lax.fori_loop(np.int32(0), np.int32(units // tile), body, zeros)


def _tile(units):
    tile = 16
    while tile < min(units, MOST_UNITS):
        tile *= 2
    return tile


def _wait(barriers):
    if barriers:  # interpret mode runs one thread
        triton.debug_barrier()


def _wide(dtype, tile):
    return tile.astype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else tile


def _sum_dtype(dtype):
    return jnp.float32 if dtype.itemsize < 4 else dtype


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=_sum_dtype(a.dtype))
