"""Count how often each array element is used; rearranging it is not a use."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.program import is_variable, reached
from bpvariants._jaxpr.rearrangements import moved, rearranges

ADDITIONS = ("add", "add_any", "sub")


def dependent(equations: list[Any], thetas: list[Any]) -> set[Any]:
    """Return the variables that have a derivative in params."""

    def results(equation):
        stops = equation.primitive.name == "stop_gradient"
        return [] if stops else [v for v in equation.outvars if is_floating(v.aval)]

    return reached(equations, thetas, results)


def rearranged(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rearrange arrays in the same way as the elements of an equation's operands."""
    return moved(equation, operands, [None] * len(operands)) or []


def passes_on(equation: Any, depends: set[Any]) -> int | None:
    """Return the index of an addition's only operand that depends on params, or None.

    The result is None, too, if the addition negates or broadcasts its operand.
    """
    if equation.primitive.name not in ADDITIONS:
        return None
    found = [
        i
        for i, atom in enumerate(equation.invars)
        if is_variable(atom) and atom in depends
    ]
    if len(found) != 1 or (equation.primitive.name == "sub" and found[0] == 1):
        return None
    same = equation.invars[found[0]].aval.shape == equation.outvars[0].aval.shape
    return found[0] if same else None


def count_uses(
    equations: list[Any], outputs: list[Any], depends: set[Any]
) -> dict[Any, np.ndarray]:
    """Count for each variable how often each of its elements is used."""
    uses: dict[Any, np.ndarray] = {}

    def count(atom, how_often):
        if is_variable(atom) and atom in depends:
            shape = atom.aval.shape
            uses[atom] = uses.get(atom, 0) + np.broadcast_to(how_often, shape)

    for atom in outputs:
        count(atom, 1)
    for equation in reversed(equations):
        if depends.isdisjoint(equation.outvars):
            continue
        operands, passed_on = equation.invars, passes_on(equation, depends)
        if passed_on is not None:
            count(operands[passed_on], uses.get(equation.outvars[0], 0))
        elif rearranges(equation):
            sizes = [atom.aval.size for atom in operands]
            numbers = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
            numbers = [
                n.reshape(atom.aval.shape)
                for n, atom in zip(numbers, operands, strict=True)
            ]
            results = rearranged(equation, numbers)
            total = np.zeros(sum(sizes), int)
            for result, places in zip(equation.outvars, results, strict=True):
                np.add.at(total, places, uses.get(result, 0))
            for atom, places in zip(operands, numbers, strict=True):
                count(atom, total[places])
        else:
            for atom in operands:
                count(atom, 1)
    return uses
