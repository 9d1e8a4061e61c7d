"""Checks made while tracing, before anything is computed.

Each raises a ValueError. Its message names the argument as the user typed it, says what
is wrong with its value, and what to do instead.
"""

import reprlib
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants.types import PyTree, Step

ONLY_ARRAYS = (
    "let the function close over activations, names and other settings. Of an Equinox "
    "module, take the params that adapters.from_equinox(module) returns, or "
    "eqx.filter(module, eqx.is_inexact_array)."
)


def are_numbers(*values: object) -> bool:
    """Return whether all values are Python or NumPy numbers, so that `if` works.

    Under optax.inject_hyperparams or vmap, hyperparameters are traced arrays, whose
    values an `if` cannot compare.
    """
    return all(isinstance(value, Real) for value in values)


def is_count(value: Any, minimum: int = 1, maximum: int | None = None) -> bool:
    """Return whether a value is a Python or NumPy integer in range, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return minimum <= int(value) and (maximum is None or int(value) <= maximum)


def check_count(name: str, value: object, minimum: int = 1, remedy: str = "") -> None:
    """Check that a value is an integer, known while tracing, of at least `minimum`."""
    if not is_count(value, minimum):
        raise ValueError(
            f"{name} must be an integer of at least {minimum}, got {value!r}"
            + (f"; {remedy}." if remedy else ".")
        )


def check_arrays(name: str, tree: PyTree, remedy: str = "") -> None:
    """Check that all leaves of a tree are arrays or numbers that JAX can hold."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not _is_array(leaf):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be an array, got "
                f"{reprlib.repr(leaf)}, a {type(leaf).__name__}; "
                + (remedy or "leave it out of the pytree.")
            )


def _is_array(leaf: object) -> bool:
    if isinstance(leaf, (bool, int, float, complex)):
        return True
    if isinstance(leaf, type) or not hasattr(leaf, "shape"):  # jnp.float32 has a dtype
        return hasattr(leaf, "__jax_array__")
    dtype = getattr(leaf, "dtype", np.dtype(object))
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    return dtype.kind not in "OSUMm"  # objects, text, and times


def check_floating(name: str, tree: PyTree) -> None:
    """Check that a tree has arrays, and that all of them are floating."""
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name} has no arrays; give a pytree of floating arrays.")
    check_arrays(name, tree, ONLY_ARRAYS)
    for path, leaf in leaves:
        if not is_floating(leaf):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be a floating array, got "
                f"{jnp.result_type(leaf)}; cast it with .astype(jnp.float32), or let "
                "the function close over arrays that need no derivative."
            )


def check_real(name: str, tree: PyTree, remedy: str = "") -> None:
    """Check that no array of a tree is complex."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be real, got "
                f"{jnp.result_type(leaf)}; "
                + (remedy or "hold its real and imaginary parts in two arrays.")
            )


def check_lengths(xs: PyTree, **others: PyTree) -> int:
    """Return T, the length of the first axis of xs; check that the others share it."""
    for name, sequence in {"xs": xs, **others}.items():
        check_arrays(name, sequence)
    lengths = [jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(xs)]
    if not lengths or lengths[0] in [(), (0,)]:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
        raise ValueError(
            f"xs must have arrays whose first axis is time, T > 0; got shapes {shapes}."
            " If the network needs no input, give jnp.zeros((T, *batch, 0))."
        )
    for name, sequence in {"xs": xs, **others}.items():
        for leaf in jax.tree.leaves(sequence):
            if jnp.shape(leaf)[:1] != lengths[0]:
                raise ValueError(
                    f"{name} must have {lengths[0][0]} time steps on its first axis, "
                    f"as xs has; got shape {jnp.shape(leaf)}. Sequences are "
                    "time-major, [T, *batch, ...]."
                )
    return lengths[0][0]


def check_batch(name: str, tree: PyTree, shape: tuple[int, ...], axes: str) -> None:
    """Check that the shape of every leaf begins with `shape`, known from the losses."""
    for leaf in jax.tree.leaves(tree):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise ValueError(
                f"{name} must begin with {axes} = {shape}, the shape of the losses, "
                f"but has a leaf of shape {jnp.shape(leaf)}. Either the batch axes of "
                f"{name} are wrong, or those of the losses: loss must give one number "
                "for each example; sum or average it over the features."
            )


def check_flags(name: str, flags: jax.Array, carry: PyTree) -> None:
    """Check that flags [*batch] of one step are boolean and fit the carry."""
    if flags.dtype != bool:
        raise ValueError(f"{name} must be bool, got {flags.dtype}; use `{name} != 0`.")
    for leaf in jax.tree.leaves(carry):
        if jnp.shape(leaf)[: flags.ndim] != flags.shape:
            raise ValueError(
                f"{name} must have one entry for each example at each time step; got "
                f"shape {flags.shape} at a step, but carry has a leaf of shape "
                f"{jnp.shape(leaf)}."
            )


def check_like(name: str, tree: PyTree, like_name: str, like: PyTree) -> None:
    """Check that two pytrees agree in structure, shapes and dtypes."""
    spec = lambda tree: jax.tree.map(
        lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree
    )
    got, want = spec(tree), spec(like)
    if jax.tree.structure(tree) != jax.tree.structure(like) or got != want:
        raise ValueError(
            f"{name} must have the structure, shapes and dtypes of {like_name}, "
            f"{want}; got {got}."
        )


def step_shapes(step: Step, params: PyTree, carry: PyTree, inputs: PyTree) -> PyTree:
    """Check the shapes of the carry that a step returns; return its output shapes."""
    try:
        new_carry, outputs = jax.eval_shape(step, params, carry, inputs)
    except Exception as error:
        shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        leading = {shape[:1] for shape in shapes(carry) + shapes(inputs)}
        if len(leading) > 1:
            raise ValueError(
                "carry, inputs and targets do not fit together: at each time step they "
                "must begin with the same batch shape, but carry has leaves of shapes "
                f"{shapes(carry)}, and inputs (and targets) of {shapes(inputs)}. The "
                f"network or the loss says: {error}"
            ) from error
        raise
    check_like("the carry that step returns", new_carry, "the carry it is given", carry)
    return outputs


def first_step(sequences: PyTree) -> PyTree:
    """Return the shapes and dtypes of one time step of sequences [T, ...]."""
    cut = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf))
    return jax.tree.map(cut, sequences)


def check_batch_ndim(name: str, batch_ndim: int, tree: PyTree) -> None:
    """Check that the first `batch_ndim` axes of all leaves can be batch axes."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    if not 0 <= batch_ndim <= min(map(len, shapes)):
        raise ValueError(
            f"batch_ndim must be the number of leading axes of every leaf of {name} "
            f"that are examples; got {batch_ndim} for leaves of shapes {shapes}."
        )
    if len({shape[:batch_ndim] for shape in shapes}) > 1:
        raise ValueError(
            f"the leaves of {name} must share their first batch_ndim={batch_ndim} "
            f"axes, which are examples; got shapes {shapes}."
        )


def check_limits(tol: Any, max_steps: Any) -> None:
    """Check a solver's tolerance and step limit, if they are Python numbers."""
    if are_numbers(tol) and not tol > 0:
        raise ValueError(f"tol must be positive, such as 1e-5, got {tol}.")
    if are_numbers(max_steps) and not max_steps >= 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
