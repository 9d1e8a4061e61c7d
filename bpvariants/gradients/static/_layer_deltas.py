"""Derivatives of a function's result in its named intermediate values, called deltas.

Notation: a function E(θ, x) computes intermediate values z_1, z_2, … and returns a
scalar. A perturbation ε_i = 0 is added to each z_i, which does not change E. The delta
of z_i is

    δ_i = ∂E/∂z_i = ∂E/∂ε_i    at ε = 0,

which is the derivative through all values that are computed from z_i. The perturbations
are added to the named values in the jaxpr of the function.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_arrays, check_function
from bpvariants._dtypes import is_floating
from bpvariants._settings import module_remedy
from bpvariants.gradients.static._tagging import tagged_program
from bpvariants.types import PyTree


class LayerDelta(NamedTuple):
    """Intermediate value z of a function E, and delta ∂E/∂z with the shape of z."""

    value: jax.Array
    delta: jax.Array


def layer_deltas(function: Callable, *arguments: PyTree) -> dict[str, LayerDelta]:
    """Return the exact derivatives of a function's result in named intermediate values.

        δ_i = ∂E/∂z_i = ∂E/∂ε_i at ε = 0,    with z_i replaced by z_i + ε_i

    Here E is the function's result, z_i a named intermediate value, and δ_i the
    derivative, which is called delta. The following values have a name:

    - a value tagged by `jax.ad_checkpoint.checkpoint_name(z, "name")`;
    - the output of every call of a Flax Linen module. Its name is the module's path,
      such as "encoder/Dense_0", or for the root module the name of its class;
    - the output of every argument that is an NNX module, and of every NNX module inside
      such an argument. Its name is a path or a class, as for Linen modules.

    A name may occur several times, because a layer is called twice or its output is a
    pytree. Then "[0]", "[1]", … are appended in the order of computation. Inside
    `lax.scan`, values and deltas have time as their first axis, [T, ...].

    `layer_deltas` works under `jit`. Time and memory are those of `jax.grad`, plus
    memory for the named values.

    Args:
      function: function (*arguments) -> E, which returns one number, such as a mean
        loss.
      arguments: for instance params and inputs: pytrees of arrays, or NNX modules. If
        the function changes the state of an NNX module, the change is discarded.

    Returns:
      A dict from each name to its :class:`LayerDelta`, in the order of computation. If
      `jit` returns the dict, the names are sorted, because `jit` sorts all dicts. Named
      integers are left out, because they have no derivatives. Names inside a branch of
      `lax.cond`, a `lax.while_loop`, or a function with its own derivative
      (`jax.custom_vjp`, `jax.custom_jvp`) are left out too.

    Raises:
      ValueError: if function does not return one floating number, or if no value in the
        function has a name.

    Example:
      >>> import jax
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from bpvariants import gradients
      >>> def expression(a, b):  # micrograd's
      ...     a, b = checkpoint_name(a, "a"), checkpoint_name(b, "b")
      ...     c, d = a + b, a * b + b**3
      ...     c += c + 1
      ...     c += 1 + c - a
      ...     d += d * 2 + jax.nn.relu(b + a)
      ...     d += 3 * d + jax.nn.relu(b - a)
      ...     f = checkpoint_name((c - d) ** 2, "f")
      ...     return checkpoint_name(f / 2 + 10 / f, "g")
      >>> deltas = gradients.layer_deltas(expression, -4.0, 2.0)
      >>> for name, (value, delta) in deltas.items():
      ...     print(f"{name} {value:8.4f} {delta:8.4f}")
      a  -4.0000 138.8338
      b   2.0000 645.5773
      f  49.0000   0.4958
      g  24.7041   1.0000

    References:
      Rumelhart, Hinton & Williams, "Learning representations by back-propagating
      errors", Nature 323, 1986, doi:10.1038/323533a0.
    """
    check_function("function", function, "(*arguments) -> loss")
    for i, argument in enumerate(arguments):
        if not module_remedy(argument):  # an NNX module has other leaves than arrays
            check_arrays(f"arguments[{i}]", argument)
    program, leaves = tagged_program(function, arguments)
    outputs = program.outputs
    if len(outputs) != 1 or outputs[0].shape or not is_floating(outputs[0]):
        got = ", ".join(str(output) for output in outputs) or "nothing"
        raise ValueError(
            "function must return one floating number, the loss to differentiate; got "
            f"{got}. Take the mean or the sum of the losses, and do not return other "
            "results."
        )
    if not program.names:
        raise ValueError(
            "function has no named intermediates: tag them with "
            "jax.ad_checkpoint.checkpoint_name(z, 'name'), call Linen modules in it, "
            "or give an NNX module itself as an argument. Values inside a lax.cond, a "
            "lax.while_loop or a function with its own derivative (custom_vjp, "
            "custom_jvp) are not found."
        )

    def perturbed(shifts):
        (loss,), values = program.run(leaves, shifts)
        return loss, values

    shifts = [jnp.zeros(place.shape, place.dtype) for place in program.places]
    deltas, values = jax.grad(perturbed, has_aux=True)(shifts)
    return {
        name: LayerDelta(value, delta)
        for name, value, delta in zip(
            _unique(program.names), values, deltas, strict=True
        )
    }


def _unique(given: Sequence[str]) -> list[str]:
    """Return the names with "[0]", "[1]", … appended to names that repeat."""
    total, seen, names = Counter(given), Counter(), []
    for name in given:
        names.append(name if total[name] == 1 else f"{name}[{seen[name]}]")
        seen[name] += 1
    return names
