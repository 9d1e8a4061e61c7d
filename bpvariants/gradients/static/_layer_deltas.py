"""Deltas of a plain function: derivatives in its named intermediate values.

Notation: a function E(θ, x) computes z_1, z_2, … on its way to a number. With a zero
perturbation ε_i added to each z_i, the function is the same, and the delta of z_i is

    δ_i = ∂E/∂z_i = ∂E/∂ε_i    at ε = 0,

the derivative through all that is computed of z_i. The ε_i are added to the program of
the function, as JAX traces it, at the places that have a name.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import is_floating
from bpvariants.gradients.static._tagging import tagged_program
from bpvariants.types import PyTree


class LayerDelta(NamedTuple):
    """An intermediate value z of a function, and δ = ∂E/∂z, which has its shape."""

    value: jax.Array
    delta: jax.Array


def layer_deltas(function: Callable, *arguments: PyTree) -> dict[str, LayerDelta]:
    """Look into a function: intermediates by name, and the loss's derivatives in them.

        δ_i = ∂E/∂z_i = ∂E/∂ε_i,    z_i + ε_i in the place of z_i,    at ε = 0

    The function stays as it is. What has a name is what it, or what it calls, tags by
    `jax.ad_checkpoint.checkpoint_name(z, "name")`; the output of every call of a Flax
    Linen module, by the module's path ("encoder/Dense_0", and the root's class); and
    that of every NNX module within one that is among the arguments, likewise. If a name
    occurs several times, as of a pytree or of a layer that is called twice, "[0]",
    "[1]", … follow it, in the order of the program. Within `lax.scan`, values and
    deltas have an axis of time first, [T, ...].

    Works under `jit`. It takes as much as `jax.grad`, and the memory of what is named.

    Args:
      function: (*arguments) -> E, one number, such as a mean loss.
      arguments: params and inputs, say: pytrees of arrays, or NNX modules, of which
        updates made by the function are dropped.

    Returns:
      For each name a :class:`LayerDelta`, (value, delta), in the order of the program,
      or of the alphabet if it comes out of a `jit`, which sorts all dicts.
      Integers have no derivatives, and are left out. So is what is named within a
      branch of `lax.cond`, a `lax.while_loop`, or a function with a derivative of its
      own (`jax.custom_vjp`, `jax.custom_jvp`).

    Raises:
      ValueError: if function does not return one floating number, or nothing in it has
        a name.

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
    program, leaves = tagged_program(function, arguments)
    outputs = program.outputs
    if len(outputs) != 1 or outputs[0].shape or not is_floating(outputs[0]):
        got = ", ".join(str(output) for output in outputs) or "nothing"
        raise ValueError(
            "function must return one floating number, the loss of which derivatives "
            f"are taken; got {got}. Take the mean or the sum of losses, and leave "
            "other results out."
        )
    if not program.names:
        raise ValueError(
            "function has no named intermediates: tag them with "
            "jax.ad_checkpoint.checkpoint_name(z, 'name'), call Linen modules in it, "
            "or give an NNX module itself as an argument. What a lax.cond, a "
            "lax.while_loop or a function with a derivative of its own does within is "
            "not found."
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
    """Number the names that occur several times."""
    total, seen, names = Counter(given), Counter(), []
    for name in given:
        names.append(name if total[name] == 1 else f"{name}[{seen[name]}]")
        seen[name] += 1
    return names
