"""Run a GRU or an LSTM over a whole sequence, for `backward="two_phase"`.

Notation as in `_recurrence.py`: gate g adds x_g = x_t W_g + b_g and p_g = h_{t−1} U_g +
b′_g; δx_g and δp_g are the derivatives of the loss with respect to them.

    x_g  for all t:      one matrix product before the scan
    δh_{t−1} += Σ_g δp_g U_gᵀ,  step by step, backwards in time
    dW_g = Σ_t x_tᵀ δx_g,    dU_g = Σ_t h_{t−1}ᵀ δp_g,    one product for all t and g

The general algorithm in `gradients/through_time/_two_phase.py` computes the same
derivatives for any step. Its forward pass multiplies by W at each step, and reads W
again each time, which takes long if the weights do not fit into a cache.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants.cells._recurrence import Recurrence
from bpvariants.types import PyTree

DTYPES = (jnp.float32, jnp.float64)


def unroll_dense(
    recurrence: Recurrence, params: dict[str, jax.Array], carry: PyTree, xs: jax.Array
) -> tuple[PyTree, jax.Array] | None:
    """Return the last carry and the outputs [T, *batch, n], without forward mode.

    Return None if the arrays do not have one common dtype of 32 or 64 bits.
    """
    states, structure = jax.tree.flatten(carry)
    names = ("inputs", "recurrent", "bias")
    matrices = [params[name] for name in names]
    if "candidate_bias" in params and recurrence.name == "gru":
        matrices.append(params["candidate_bias"])
    dtypes = {jnp.result_type(leaf) for leaf in (*matrices, *states, xs)}
    if len(dtypes) > 1 or dtypes.pop() not in DTYPES:
        return None
    batch, units = jnp.shape(xs)[1:-1], jnp.shape(states[-1])[-1]
    flat = lambda leaf, *first: jnp.reshape(
        leaf, (*first, math.prod(batch), jnp.shape(leaf)[-1])
    )
    last, ys = _run(  # pyright: ignore[reportGeneralTypeIssues]
        recurrence, matrices, [flat(h) for h in states], flat(xs, len(xs))
    )
    last = [h.reshape(*batch, units) for h in last]
    return structure.unflatten(last), ys.reshape(len(xs), *batch, units)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(recurrence, weights, start, xs):
    return _forward(recurrence, weights, start, xs)[0]


def _forward(recurrence: Recurrence, weights, start, xs):
    inputs, matrix, bias, *of_candidate = weights
    gates = partial(jnp.split, indices_or_sections=recurrence.gates, axis=-1)
    terms = _rows(xs) @ inputs + bias[None]
    terms = terms.reshape(*xs.shape[:2], terms.shape[-1])

    def body(states, x):
        products = gates(states[-1] @ matrix)
        if of_candidate:
            products[-1] = products[-1] + of_candidate[0][None]
        new, kept = recurrence.forward(gates(x), products, states)
        return new, (kept, new)

    last, (kept, new) = jax.lax.scan(body, list(start), terms)
    return (last, new[-1]), (weights, start, xs, kept, new)


def _backward(recurrence: Recurrence, residuals, cotangents):
    weights, start, xs, kept, new = residuals
    inputs, matrix, *biases = weights
    of_last, of_ys = cotangents
    join = partial(jnp.concatenate, axis=-1)
    old = [
        jnp.concatenate([first[None], states[:-1]])
        for first, states in zip(start, new, strict=True)
    ]

    def body(given, at_time):
        kept, old, of_y = at_time
        given = [*given[:-1], given[-1] + of_y]
        dx, dold = recurrence.backward(kept, old, given)
        dold[-1] = dold[-1] + join(recurrence.hidden(dx, kept)) @ matrix.T
        return dold, join(dx)

    dstart, dx = jax.lax.scan(body, of_last, (kept, old, of_ys), reverse=True)
    dp = dx
    if biases[1:]:  # the terms and the products of a GRU's candidate differ
        dp = jnp.split(dx, recurrence.gates, axis=-1)
        dp = join(recurrence.hidden(dp, kept))
    of_weights = [_rows(xs).T @ _rows(dx), _rows(old[-1]).T @ _rows(dp)]
    of_weights += [jnp.sum(dx, (0, 1))]
    if biases[1:]:
        of_weights += [jnp.sum(dp, (0, 1))[-matrix.shape[0] :]]
    return of_weights, dstart, (_rows(dx) @ inputs.T).reshape(xs.shape)


def _rows(array: jax.Array) -> jax.Array:
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


_run.defvjp(_forward, _backward)
