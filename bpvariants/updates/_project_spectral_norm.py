"""Matrices kept contractive: shrunk, after each update, to a spectral norm.

    W ← W · min(1, s / σ(W)),

where s is the limit and σ the largest singular value, the limit of the power iteration

    u = W v / ‖W v‖,  v ← Wᵀ u / ‖Wᵀ u‖,  σ ≈ ‖W v‖.

A recurrent layer h = φ(W h + …) whose φ has slopes up to 1, such as tanh, settles to a
single equilibrium where s < 1, which recurrent backpropagation relies on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants.updates._params import check_params, wide

FRESH = 0.01  # how much of the first vector is mixed in at each update


class ProjectSpectralNormState(NamedTuple):
    """State of :func:`project_spectral_norm`."""

    # Like params: for a matrix [m, n] its right singular vector v [n], float32 or
    # wider, and an empty array for what is no matrix.
    vectors: optax.Updates


def project_spectral_norm(
    limit: float | jax.Array = 0.95, *, steps: int = 30
) -> optax.GradientTransformation:
    """Shrink matrices, as they are after the update, to a largest singular value.

        optax.chain(optimizer, updates.project_spectral_norm())

    It stands last in a chain, and changes updates such that params + updates is
    W · min(1, s/σ(W)); where nothing has to be shrunk, updates pass through bit for
    bit. All arrays of two axes count as matrices; to choose among them, wrap it in
    `optax.masked`. The power iteration approaches σ from below, by 1e-4 of it after 30
    steps on a random matrix and nearer from one update to the next, as it goes on from
    where it was: hence a limit with some margin to 1. A matrix that is not finite makes
    an update of NaN, which the state does not keep. The state is n numbers for a
    matrix [m, n], time O(steps·m·n) an update.

    Args:
      limit: s > 0, the largest singular value that is allowed.
      steps: of the power iteration at each update.

    Returns:
      An optax.GradientTransformation, whose `update` needs params.

    Raises:
      ValueError: if limit or steps is out of its range, if (in `init`) params are not
        floating arrays, or (in `update`) if there are no params.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.project_spectral_norm(limit=0.5)
      >>> params = jnp.diag(jnp.array([1.0, 0.5]))
      >>> update = jnp.diag(jnp.array([1.0, 0.0]))
      >>> projected, _ = rule.update(update, rule.init(params), params)
      >>> (params + projected).round(3).tolist()  # diag(2, ½) / 4
      [[0.5, 0.0], [0.0, 0.125]]

    References:
      Miyato et al., "Spectral normalization for generative adversarial networks", ICLR
      2018, doi:10.48550/arXiv.1802.05957 (the power iteration that goes on).
      Liao et al., "Reviving and improving recurrent back-propagation", ICML 2018,
      doi:10.48550/arXiv.1803.06396 (why contraction).
    """
    if are_numbers(limit) and not limit > 0:
        raise ValueError(
            f"limit must be positive, got {limit}; below 1, a recurrent matrix with "
            "tanh units is contractive."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; 30 is usual.")

    def init(params):
        check_params(params)
        return ProjectSpectralNormState(jax.tree.map(_first_vector, wide(params)))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                "project_spectral_norm needs params, whose matrices it shrinks: call "
                "optimizer.update(grads, state, params)."
            )

        def project(u, v, p):
            if v.size == 0:
                return u, v
            matrix = wide(p) + cast_like(u, wide(p))
            v = _power_iteration(matrix, v, steps)
            scale = jnp.asarray(limit, matrix.dtype) / _norm(matrix @ v)
            shrunk = (scale * matrix - wide(p)).astype(u.dtype)
            return jnp.where(scale.real >= 1, u, shrunk), v  # NaN is shrunk

        leaves, structure = jax.tree.flatten(updates)
        both = [
            project(*leaf)
            for leaf in zip(
                map(jnp.asarray, leaves),
                jax.tree.leaves(state.vectors),
                jax.tree.leaves(params),
                strict=True,
            )
        ]
        updates, vectors = (
            structure.unflatten([pair[i] for pair in both]) for i in (0, 1)
        )
        return updates, ProjectSpectralNormState(vectors)

    return optax.GradientTransformation(init, update)


def _first_vector(matrix):
    """Return a unit vector [n] that no matrix is likely to map to zero."""
    if matrix.ndim != 2 or matrix.size == 0:
        return jnp.zeros(0, matrix.dtype)
    vector = jax.random.normal(jax.random.key(0), matrix.shape[1:], matrix.dtype)
    return vector / _norm(vector)


def _power_iteration(matrix, v, steps):
    """Return v after some steps, or as it was if the matrix is not finite."""

    def step(_, v):
        new = ((matrix @ v).conj() @ matrix).conj()
        norm = _norm(new)
        go_on = (norm != 0) & jnp.isfinite(norm)
        return jnp.where(go_on, new / jnp.where(go_on, norm, 1), v)

    # A direction that has died out, to exactly zero, could never come back.
    start = v + FRESH * _first_vector(matrix)
    moved = jax.lax.fori_loop(0, steps, step, start / _norm(start))
    return jnp.where(jnp.all(jnp.isfinite(matrix)), moved, v)


def _norm(vector):
    return jnp.linalg.norm(vector).astype(vector.dtype)  # real, of a complex one too
