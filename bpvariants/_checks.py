"""Checks of arguments, made while tracing, before anything is computed.

Each check raises a ValueError. The message gives the name of the argument, what is
wrong with its value, and what to do instead.
"""

import reprlib
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants._settings import (
    called as called,
    check_no_text,
    described as described,
    module_remedy,
    UsageError as UsageError,
)
from bpvariants.types import PyTree, Step

STEP = "step(params, carry, x)"

ONLY_ARRAYS = (
    "let the function close over activations, names and other settings. Of an Equinox "
    "module, take the params that adapters.from_equinox(module) returns, or "
    "eqx.filter(module, eqx.is_inexact_array)."
)

TIME_MAJOR = (
    "Sequences are time-major, [T, *batch, ...]; make batch-major ones so with "
    "jnp.swapaxes(xs, 0, 1)."
)


def are_numbers(*values: object) -> bool:
    """Return whether all values are Python or NumPy numbers, which `if` can compare.

    Under optax.inject_hyperparams or vmap, hyperparameters are traced arrays instead,
    whose values `if` cannot compare.
    """
    return all(isinstance(value, Real) for value in values)


def is_count(value: Any, minimum: int = 1, maximum: int | None = None) -> bool:
    """Return whether a value is an integer, not a bool, from `minimum` to `maximum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return minimum <= int(value) and (maximum is None or int(value) <= maximum)


def check_count(name: str, value: object, minimum: int = 1, remedy: str = "") -> None:
    """Check that a value is an integer, known while tracing, of at least `minimum`."""
    if not is_count(value, minimum):
        bound = f"an integer of at least {minimum}"
        end = f"; {remedy}." if remedy else "."
        raise ValueError(f"{name} must be {bound}, got {value!r}{end}")


def check_arrays(name: str, tree: PyTree, remedy: str = "") -> None:
    """Check that all leaves of a tree are numbers, or arrays that JAX can represent."""
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
    if isinstance(leaf, type) or not hasattr(leaf, "shape"):
        return hasattr(leaf, "__jax_array__")
    dtype = getattr(leaf, "dtype", np.dtype(object))
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    return dtype.kind not in "OSUMm"  # kinds of dtype for objects, text and times


def check_function(name: str, value: object, form: str) -> None:
    """Check that a value can be called, and is neither a class nor a Linen module."""
    remedy = module_remedy(value)
    if not callable(value) or isinstance(value, type) or "Linen" in remedy:
        got = f"{described(value)}; {remedy}." if remedy else f"{value!r}."
        raise ValueError(f"{name} must be a function {form}, got {got}")


def check_step_function(step: object) -> None:
    check_function("step", step, "(params, carry, x) -> (carry, y)")


def as_pair(result: Any) -> tuple[PyTree, PyTree]:
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[0], result[1]
    raise UsageError(
        f"step must return the pair (carry, y), got {described(result)}. If the output "
        "is the carry, return it twice: (carry, carry)."
    )


def check_single_key(key: Any) -> None:
    """Check that a value is one JAX random key: a typed key, or a raw uint32 array."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    old = dtype == jnp.uint32 and len(shape or ()) == 1
    if not (old or (typed and shape == ())):
        got = described(key) if shape is None else f"an array {dtype}{list(shape)}"
        raise ValueError(
            f"key must be one key of jax.random, such as jax.random.key(0); got {got}."
        )


class KeyNotTaken(UsageError):
    """Error of a rule that got a key, although it uses no random numbers."""


def check_no_key(rule: str, key: object) -> None:
    """Check that no key was given to a rule that uses no random numbers."""
    if key is not None:
        raise KeyNotTaken(
            f"key must be left out: {rule} draws nothing at random, unlike "
            "gradients.artbp."
        )


def check_carry(carry: Any) -> None:
    """Check that a carry is the network's state, and not the state of a gradient rule.

    The function `gradients.stream` and the `init` of each online rule return states of
    gradient rules.
    """
    ours = type(carry).__module__.startswith("bpvariants.")
    if ours and hasattr(carry, "carry"):
        raise ValueError(
            "carry must be the state of the network, got a "
            f"{type(carry).__name__}; pass its field, carry.carry. A stream is for "
            "gradients.truncated_bptt alone, the state of an online rule for "
            "gradients.over_sequence with keep_state=True."
        )


def check_floating(name: str, tree: PyTree) -> None:
    """Check that a pytree has at least one array, and only floating arrays."""
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
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be real, got "
                f"{jnp.result_type(leaf)}; "
                + (remedy or "hold its real and imaginary parts in two arrays.")
            )


def check_lengths(xs: PyTree, **others: PyTree) -> int:
    """Check that all sequences have the same length T, and return T."""
    for name, sequence in {"xs": xs, **others}.items():
        check_arrays(name, sequence)
    lengths = [jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(xs)]
    if not lengths or lengths[0] in [(), (0,)]:
        shapes = reprlib.repr([jnp.shape(leaf) for leaf in jax.tree.leaves(xs)])
        raise ValueError(
            f"xs must have arrays whose first axis is time, T > 0; got shapes {shapes}."
            " Of a list of numbers, give jnp.asarray(xs). If the network needs no "
            "input, give jnp.zeros((T, *batch, 0))."
        )
    for name, sequence in {"xs": xs, **others}.items():
        for leaf in jax.tree.leaves(sequence):
            if jnp.shape(leaf)[:1] != lengths[0]:
                raise ValueError(
                    f"{name} must have {lengths[0][0]} time steps on its first axis, "
                    f"as xs has; got shape {jnp.shape(leaf)}. {TIME_MAJOR}"
                )
    return lengths[0][0]


def check_batch(name: str, tree: PyTree, shape: tuple[int, ...], axes: str) -> None:
    """Check that the shape of every leaf begins with `shape`, the shape of losses."""
    for leaf in jax.tree.leaves(tree):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise ValueError(
                f"{name} must begin with {axes} = {shape}, the shape of the losses, "
                f"but has a leaf of shape {jnp.shape(leaf)}. Either the batch axes of "
                f"{name} are wrong, or those of the losses: loss must give one number "
                "for each example; sum or average it over the features. " + TIME_MAJOR
            )


def check_flags(name: str, flags: jax.Array, carry: PyTree) -> None:
    """Check that a step's mask or reset is bool, with the batch shape of the carry."""
    if flags.dtype != bool:
        raise ValueError(f"{name} must be bool, got {flags.dtype}; use `{name} != 0`.")
    for leaf in jax.tree.leaves(carry):
        if jnp.shape(leaf)[: flags.ndim] != flags.shape:
            raise ValueError(
                f"{name} must have one entry for each example at each time step; got "
                f"shape {flags.shape} at a step, but carry has a leaf of shape "
                f"{jnp.shape(leaf)}."
            )


def check_like(
    name: str, tree: PyTree, like_name: str, like: PyTree, remedy: str = ""
) -> None:
    """Check that two pytrees have equal structures, shapes and dtypes."""
    spec = lambda tree: jax.tree.map(
        lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree
    )
    got, want = spec(tree), spec(like)
    if jax.tree.structure(tree) != jax.tree.structure(like) or got != want:
        raise UsageError(
            f"{name} must have the structure, shapes and dtypes of {like_name}, "
            f"{want}; got {got}." + (f" {remedy}" if remedy else "")
        )


def check_new_carry(new: PyTree, carry: PyTree) -> None:
    names = "the carry that step returns", "the carry it is given"
    remedy = f"A step returns the pair (carry, y). {TIME_MAJOR}"
    check_like(names[0], new, names[1], carry, remedy)


def step_shapes(step: Step, params: PyTree, carry: PyTree, inputs: PyTree) -> PyTree:
    """Check the carry that a step returns; return the shapes of the step's outputs."""
    check_step_function(step)
    check_carry(carry)
    check_arrays("params", params, ONLY_ARRAYS)
    check_arrays("carry", carry)
    run = lambda *arguments: as_pair(called(STEP, step, *arguments))
    try:
        new_carry, outputs = jax.eval_shape(run, params, carry, inputs)
    except UsageError:
        raise
    except Exception as error:
        shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        leading = {shape[:1] for shape in shapes(carry) + shapes(inputs)}
        error.add_note(
            "The network or the loss raised this error at the first time step: carry "
            f"has leaves of shapes {shapes(carry)}, inputs (and targets) of "
            f"{shapes(inputs)}, params of {reprlib.repr(shapes(params))}."
        )
        if len(leading) > 1:
            raise ValueError(
                "carry, inputs and targets do not fit together: at each time step they "
                "must begin with the same batch shape, but carry has leaves of shapes "
                f"{shapes(carry)}, and inputs (and targets) of {shapes(inputs)}. The "
                f"network or the loss says: {error} {TIME_MAJOR}"
            ) from error
        raise
    check_new_carry(new_carry, carry)
    return outputs


def first_step(sequences: PyTree) -> PyTree:
    """Return the shapes and dtypes of one time step of sequences [T, ...]."""
    cut = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf))
    return jax.tree.map(cut, sequences)


def check_batch_ndim(name: str, batch_ndim: int, tree: PyTree) -> None:
    """Check that the first `batch_ndim` axes of all leaves have equal lengths."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    if not is_count(batch_ndim, 0, min(map(len, shapes))):
        raise ValueError(
            f"batch_ndim must be the number of leading axes of every leaf of {name} "
            f"that are examples; got {batch_ndim!r} for leaves of shapes {shapes}."
        )
    if len({shape[:batch_ndim] for shape in shapes}) > 1:
        raise ValueError(
            f"the leaves of {name} must share their first batch_ndim={batch_ndim} "
            f"axes, which are examples; got shapes {shapes}."
        )


def check_limits(tol: Any, max_steps: Any, atol: Any = None) -> None:
    """Check a solver's tolerances and step limit, if they are Python numbers."""
    check_no_text(tol=tol, max_steps=max_steps, atol=atol)
    if are_numbers(tol) and not tol > 0:
        raise ValueError(f"tol must be positive, such as 1e-5, got {tol}.")
    if are_numbers(max_steps):
        check_count("max_steps", max_steps)
    if are_numbers(atol) and not atol >= 0:
        raise ValueError(f"atol must be at least 0, got {atol}.")
