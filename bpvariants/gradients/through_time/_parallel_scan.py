"""Linear recurrences along time in parallel: h_t = A_t h_{t−1} + u_t, h_0 = 0.

Composition ∘ of pairs (A, u) is associative, so an associative scan computes all h_t:

    (A₂, u₂) ∘ (A₁, u₁) = (A₂ A₁, A₂ u₁ + u₂)

The order matters, because matrices do not commute. The adjoint of this recurrence is
z_t = A_{t+1}ᵀ z_{t+1} + u_t. A reverse scan computes the adjoint, with the matrices
transposed and shifted by one step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree


def carried(slopes: Callable[[PyTree], PyTree], v: PyTree) -> PyTree:
    """Return the derivative J_t v_{t−1} of each new carry in the direction v, [T, ...].

    J_t is the Jacobian of step t, and slopes(v)_t is J_t v_{t−1} − v_t. The sum
    slopes(v) + v would lose digits where J_t is small. Therefore, `slopes` is called
    twice: with v set to 0 at odd times, and with v set to 0 at even times. The result
    at time t is taken from the call with v_t = 0. This method also works in reverse,
    where slopes(v)_t is J_{t+1}ᵀ v_{t+1} − v_t.
    """

    def at(odd, tree):
        def part(leaf):
            times = jnp.arange(leaf.shape[0]).reshape(-1, *[1] * (leaf.ndim - 1))
            return jnp.where(times % 2 == odd, leaf, jnp.zeros_like(leaf))

        return jax.tree.map(part, tree)

    of_even, of_odd = (slopes(at(odd, v)) for odd in (0, 1))
    return jax.tree.map(jnp.add, at(1, of_even), at(0, of_odd))


def elementwise_scan(factors: PyTree, u: PyTree, reverse: bool = False) -> PyTree:
    """Solve the recurrence h_t = A_t ⊙ h_{t−1} + u_t for all h_t in parallel.

    `factors` contains A_t for all steps t. A_t, u_t and h_t are pytrees of equal
    shapes. For T steps and n elements, the number of multiplications is of order T·n,
    and memory is a few times T·n. The scan has log₂ T sequential levels.
    """

    def compose(first, second):
        (a1, u1), (a2, u2) = first, second
        a = jax.tree.map(jnp.multiply, a2, a1)
        return a, jax.tree.map(lambda a2, u1, u2: a2 * u1 + u2, a2, u1, u2)

    return jax.lax.associative_scan(compose, (factors, u), reverse=reverse)[1]


def dense_scan(matrices: jax.Array, u: jax.Array, reverse: bool = False) -> jax.Array:
    """Solve the recurrence h_t = A_t h_{t−1} + u_t for all h_t in parallel.

    `matrices` contains A_t for all steps t, [T, *batch, n, n]; u and h are [T, *batch,
    n]. The number of multiplications is of order T·n³, and memory is a few times T·n².
    The scan has log₂ T sequential levels.
    """

    def compose(first, second):
        (a1, u1), (a2, u2) = first, second
        return _times(a2, a1), _apply(a2, u1) + u2

    return jax.lax.associative_scan(compose, (matrices, u), reverse=reverse)[1]


def dense_scan_in_order(
    matrices: jax.Array, u: jax.Array, reverse: bool = False
) -> jax.Array:
    """Compute the result of :func:`dense_scan` step by step.

    Matrices are only multiplied by vectors, because products of matrices may overflow.
    """

    def body(h, inputs):
        a, u = inputs
        h = _apply(a, h) + u
        return h, h

    start = jnp.zeros_like(u[0])
    return jax.lax.scan(body, start, (matrices, u), reverse=reverse)[1]


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    # Matrix products of lower precision are faster, but their errors add up along time.
    return jnp.matmul(a, b, precision="highest")


def _apply(a: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.matmul(a, v[..., None], precision="highest")[..., 0]
