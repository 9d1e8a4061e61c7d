"""Adapters that turn a Flax NNX or Equinox module into a pure step and its params.

A Flax Linen module needs no adapter: its `apply` is a step. Flax and Equinox are
imported only when an adapter is called.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants import _checks, _settings
from bpvariants.types import PyTree, Step


def from_nnx(module: Any) -> tuple[Step, PyTree]:
    """Return the step and the params of a Flax NNX module `(carry, x) -> (carry, y)`.

    Only the `nnx.Param`s become params. All other variables, such as batch statistics
    and the counters of random number generators, keep the values that they have when
    `from_nnx` is called: a step's changes to these variables are discarded. Dropout,
    for example, drops the same units at every step. To write params back into the
    module, use `nnx.update(module, params)`.

    Args:
      module: an NNX module for inputs [*batch, features], such as `nnx.GRUCell`.

    Returns:
      A :obj:`~bpvariants.types.Step`; and params, an `nnx.State` of `nnx.Param`s.

    Raises:
      ValueError: if module is not an NNX module.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from bpvariants import adapters
      >>> step, params = adapters.from_nnx(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
      >>> carry, y = step(params, jnp.zeros((5, 3)), jnp.ones((5, 2)))
      >>> carry.shape, y.shape
      ((5, 3), (5, 3))
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        remedy = _settings.module_remedy(module)
        if not remedy or isinstance(module, type):
            remedy = "make one, such as nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))"
        raise ValueError(
            "module must be a flax.nnx.Module, got "
            f"{_settings.described(module)}; {remedy}."
        )
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def step(params, carry, x):
        fresh = jax.tree.map(lambda leaf: leaf, rest)  # a copy that the step may change
        return nnx.merge(graphdef, params, fresh)(carry, x)

    return step, params


def from_equinox(
    module: Any,
    call: Callable[[Any, PyTree, jax.Array], tuple[PyTree, PyTree]] | None = None,
) -> tuple[Step, PyTree]:
    """Return the step and the params of an Equinox module that takes one example.

    The step takes any batch shape: `jax.vmap` applies the module along all axes of x
    except the last one, which must be the axis of the features.

    Args:
      module: an Equinox module, such as `eqx.nn.GRUCell`.
      call: a function (module, carry, x) -> (carry, y) that runs one time step of one
        example. Default: the new carry is module(x, carry), as for an Equinox cell, and
        y is the first array of the new carry.

    Returns:
      A :obj:`~bpvariants.types.Step`; and params, the module with only its floating
      arrays. `eqx.combine` joins these params with the rest of the module again.

    Raises:
      ValueError: if module is not an Equinox module, or call is not a function.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp
      >>> from bpvariants import adapters
      >>> cell = eqx.nn.LSTMCell(2, 3, key=jax.random.key(0))
      >>> step, params = adapters.from_equinox(cell)
      >>> carry = jnp.zeros((5, 3)), jnp.zeros((5, 3))
      >>> carry, y = step(params, carry, jnp.ones((5, 2)))
      >>> y.shape
      (5, 3)
    """
    import equinox as eqx

    if not isinstance(module, eqx.Module):
        remedy = _settings.module_remedy(module)
        if not remedy or isinstance(module, type):
            remedy = "make one, such as eqx.nn.GRUCell(2, 3, key=jax.random.key(0))"
        raise ValueError(
            "module must be an equinox.Module, got "
            f"{_settings.described(module)}; {remedy}."
        )
    if call is not None:
        _checks.check_function("call", call, "(module, carry, x) -> (carry, y)")
    params, static = eqx.partition(module, eqx.is_inexact_array)
    call = _call_cell if call is None else call

    def step(params, carry, x):
        take = lambda carry, x: call(eqx.combine(params, static), carry, x)
        for _ in range(jnp.ndim(x) - 1):
            take = jax.vmap(take)
        return take(carry, x)

    return step, params


def _call_cell(module, carry, x):
    carry = module(x, carry)
    return carry, jax.tree.leaves(carry)[0]
