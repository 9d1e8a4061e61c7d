"""Decide which residuals of a linearised step a scan over time must store.

The linear map that `jax.linearize` returns is a pytree. Its leaves are arrays, which
are called residuals. Some residuals depend on parameters alone, such as the weights
themselves, and are equal at all time steps. Other residuals are inputs of the step,
which the backward pass has anyway. A scan stacks only the remaining residuals over
time, each array once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.program import called, evaluate, is_variable, PLAIN_CALLS
from bpvariants.types import PyTree


def cotangent(tree: PyTree, leaves: Sequence[jax.Array]) -> PyTree:
    """Make a cotangent of `tree` from the cotangents `leaves` of its floating leaves.

    The other leaves get zeros of dtype float0, as JAX requires.
    """
    nothing = lambda leaf: np.zeros(jnp.shape(leaf), jax.dtypes.float0)
    new = iter(leaves)
    return jax.tree.map(lambda a: next(new) if is_floating(a) else nothing(a), tree)


def linearised(advance: Callable, fixed: PyTree, h: PyTree, x: PyTree) -> tuple:
    """Return (new carry, output y) of `advance(fixed, h, x)`, and its derivative.

    The derivative is a linear map from tangents to tangents. Its arguments belong to
    the floating leaves of `fixed`, of the old carry h and of the input x. Its results
    belong to the floating leaves of the new carry and of the output y.
    """

    def of_floating(fixed_leaves, h_leaves, x_leaves):
        results = advance(
            replace_floating(fixed, fixed_leaves),
            replace_floating(h, h_leaves),
            replace_floating(x, x_leaves),
        )
        return tuple(floating_leaves(each) for each in results), results

    leaves = floating_leaves(fixed), floating_leaves(h), floating_leaves(x)
    _, linear, results = jax.linearize(of_floating, *leaves, has_aux=True)
    return results, linear


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Plan of how to rebuild a step's linear map from its stored residuals."""

    structure: Any
    # for each residual: kind ("stack", "input" or "constant"), and the residual's index
    # among the arrays of this kind
    sources: tuple[tuple[str, int], ...]

    def to_stack(self, linear: PyTree) -> list[jax.Array]:
        return self._first_of("stack", jax.tree.leaves(linear))

    def constants(self, linear: PyTree) -> list[jax.Array]:
        return self._first_of("constant", jax.tree.leaves(linear))

    def linear(self, stacked: list, inputs: PyTree, constants: list) -> PyTree:
        """Rebuild a step's linear map from stacked, input and constant residuals."""
        arrays = {
            "stack": stacked,
            "input": jax.tree.leaves(inputs),
            "constant": constants,
        }
        return self.structure.unflatten(
            [arrays[kind][index] for kind, index in self.sources]
        )

    def _first_of(self, wanted, leaves):
        found = {}
        for (kind, index), leaf in zip(self.sources, leaves, strict=True):
            if kind == wanted:
                found.setdefault(index, leaf)
        return [found[index] for index in range(len(found))]


def kept_shapes(function: Callable, *arguments: PyTree) -> list[Any]:
    """Return shape and dtype of each array that a function computes and returns.

    An argument that is returned unchanged is left out. An array that is returned
    several times is counted once.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    results = {atom for atom in jaxpr.outvars if is_variable(atom)}
    return [atom.aval for atom in results - set(jaxpr.invars)]


def plan_residuals(
    linearise: Callable, fixed: PyTree, carry: PyTree, first: PyTree
) -> Plan:
    """Plan where to find the residuals of a step's linear map.

    `linearise(fixed, h, x)` returns ((new carry, output), linear map).
    """
    structures = []

    def residuals(fixed, h, x):
        _, linear = linearise(fixed, h, x)
        leaves, structure = jax.tree.flatten(linear)
        structures.append(structure)
        return leaves

    jaxpr = jax.make_jaxpr(residuals)(fixed, carry, first).jaxpr
    sizes = [len(jax.tree.leaves(tree)) for tree in (fixed, carry, first)]
    varies = [False] * sizes[0] + [True] * (sizes[1] + sizes[2])
    inputs = {var: i for i, var in enumerate(jaxpr.invars[sizes[0] + sizes[1] :])}
    sources, seen, constants = [], {}, 0
    for atom, varying in zip(jaxpr.outvars, _varying(jaxpr, varies), strict=True):
        if not varying:
            sources.append(("constant", constants))
            constants += 1
        elif atom in inputs:
            sources.append(("input", inputs[atom]))
        else:
            sources.append(("stack", seen.setdefault(atom, len(seen))))
    return Plan(structures[-1], tuple(sources))


def _varying(jaxpr: Any, inputs: Sequence[bool]) -> list[bool]:
    """Return which outputs of a jaxpr vary in time, given which inputs vary in time."""

    def follow(equation, varying):
        inner = called(equation, PLAIN_CALLS)
        if inner is not None and not equation.effects and any(varying):
            return _varying(inner[0], varying)
        # An equation with effects may read a ref, whose value may vary in time.
        return [bool(equation.effects) or any(varying)] * len(equation.outvars)

    constant = [False] * len(jaxpr.constvars)
    return evaluate(jaxpr, constant, inputs, follow, of_literal=lambda atom: False)
