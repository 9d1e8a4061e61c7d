"""Placement of a training on several devices, for studies with the option `devices`.

If several networks are trained together (one for each seed), each device trains some of
them, and devices exchange nothing. Otherwise, batches are divided over the devices, and
XLA sums the gradients of the parts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bpvariants.types import PyTree
from experiments.harness.errors import DataError

AXIS = "devices"


def local_devices(number: int | None) -> list[Any]:
    """Return the first `number` devices of this process; by default one device.

    Raises:
      DataError: if there are fewer devices.
    """
    there = jax.local_devices()
    number = 1 if number is None else number
    if number > len(there):
        remedy = (
            "more parts of the CPU need jax.config.update("
            f'"jax_num_cpu_devices", {number}) before JAX is first used, as '
            "`python -m experiments` does"
            if there[0].platform == "cpu"
            else f"ask for at most {len(there)}"
        )
        raise DataError(
            f"--devices {number} is more than the {len(there)} devices of this process "
            f"({there[0].device_kind}); {remedy}."
        )
    return there[:number]


def mesh_of(number: int | None) -> Mesh | None:
    """Return a mesh of several devices with one axis, or None for one device."""
    devices = local_devices(number)
    return None if len(devices) == 1 else Mesh(np.array(devices), (AXIS,))


def placed(
    mesh: Mesh, rule: Callable, settings: dict[str, Any], params: PyTree, over: Any
) -> tuple[Callable, dict[str, Any], PyTree]:
    """Place a training on the devices of a mesh; return (rule, settings, params).

    Args:
      mesh: a mesh with one axis.
      rule: argument of :func:`bpvariants.training.fit`.
      settings: keyword arguments of `fit`.
      params: initial params.
      over: the batch axis of each entry of a batch, such as (0, 1, 1); None for entries
        without a batch axis. None instead of a sequence if a batch has no such axis.

    Raises:
      DataError: if neither the networks nor the batches can be divided.
    """
    runs = settings.get("runs")
    if runs is not None and runs % mesh.size == 0:
        put = NamedSharding(mesh, PartitionSpec(AXIS))
    elif over is not None:
        put = NamedSharding(mesh, PartitionSpec())
        rule = _divided(mesh, rule, over, settings.get("carry") is not None)
    else:
        many = f"the {runs} networks that train together" if runs else "this training"
        raise DataError(
            f"--devices {mesh.size} cannot divide {many}, because batches of this "
            "study are not divided: choose --devices so that it divides the number of "
            "networks (see --seeds)."
        )
    settings = dict(settings)
    if settings.get("carry") is not None:
        settings["carry"] = jax.device_put(settings["carry"], put)
    return rule, settings, jax.device_put(params, put)


def _divided(mesh: Mesh, rule: Callable, over: Sequence, stateful: bool) -> Callable:
    """Return the rule, with the batches that it gets divided over the devices."""

    def divide(entry: PyTree, axis: int | None) -> PyTree:
        def of_leaf(leaf):
            if axis is None or leaf.ndim <= axis or leaf.shape[axis] % mesh.size:
                return leaf
            spec = PartitionSpec(*[None] * axis, AXIS)
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

        return jax.tree.map(of_leaf, entry)

    def divided_rule(params, *arguments, **options):
        carries = arguments[: int(stateful)]
        batch = zip(arguments[int(stateful) :], over, strict=True)
        return rule(params, *carries, *(divide(*pair) for pair in batch), **options)

    return divided_rule
