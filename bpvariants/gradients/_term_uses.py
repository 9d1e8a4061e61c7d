"""How often each number of a program is used, where to be moved about is no use."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants.gradients._program import is_variable

ADDITIONS = ("add", "add_any", "sub")


def _broadcast(array: np.ndarray, params: dict) -> np.ndarray:
    shape, axes = params["shape"], params["broadcast_dimensions"]
    kept = [array.shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    return np.broadcast_to(array.reshape(kept), shape)


def _slice(array: np.ndarray, params: dict) -> np.ndarray:
    strides = params["strides"] or [1] * array.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return array[tuple(slice(*limit) for limit in limits)]


# Operations that only put numbers elsewhere: (operands, parameters) -> results.
MOVES: dict[str, Callable[[list[np.ndarray], dict], list[np.ndarray]]] = {
    "broadcast_in_dim": lambda a, p: [_broadcast(a[0], p)],
    "concatenate": lambda a, p: [np.concatenate(a, p["dimension"])],
    "convert_element_type": lambda a, p: a,
    "copy": lambda a, p: a,
    "name": lambda a, p: a,
    "reshape": lambda a, p: [a[0].reshape(p["new_sizes"])],
    "rev": lambda a, p: [np.flip(a[0], p["dimensions"])],
    "slice": lambda a, p: [_slice(a[0], p)],
    "split": lambda a, p: np.split(a[0], np.cumsum(p["sizes"])[:-1], p["axis"]),
    "squeeze": lambda a, p: [np.squeeze(a[0], p["dimensions"])],
    "transpose": lambda a, p: [a[0].transpose(p["permutation"])],
}


def needed(jaxpr: Any) -> list[Any]:
    """Return the equations that a program's outputs depend on."""
    variables, equations = set(filter(is_variable, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if not variables.isdisjoint(equation.outvars):
            variables |= set(filter(is_variable, equation.invars))
            equations.append(equation)
    return equations[::-1]


def dependent(equations: list[Any], thetas: list[Any]) -> set[Any]:
    """Return the variables that have a derivative in params."""
    depends = set(thetas)
    for equation in equations:
        if equation.primitive.name != "stop_gradient" and any(
            is_variable(atom) and atom in depends for atom in equation.invars
        ):
            depends |= {v for v in equation.outvars if is_floating(v.aval)}
    return depends


def passes_on(equation: Any, depends: set[Any]) -> int | None:
    """Return which operand something without parameters is added to, if so it is."""
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
    """Count how often each number is used, where to be moved is no use."""
    uses: dict[Any, np.ndarray] = {}

    def count(atom, how_often):
        if is_variable(atom) and atom in depends:
            shape = atom.aval.shape
            uses[atom] = uses.get(atom, 0) + np.broadcast_to(how_often, shape)

    for atom in outputs:
        count(atom, 1)
    for equation in reversed(equations):
        results = [v for v in equation.outvars if v in depends]
        if not results:
            continue
        operands, passed_on = equation.invars, passes_on(equation, depends)
        if passed_on is not None:
            count(operands[passed_on], uses[results[0]])
        elif equation.primitive.name in MOVES:
            sizes = [atom.aval.size for atom in operands]
            numbers = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
            numbers = [
                n.reshape(atom.aval.shape)
                for n, atom in zip(numbers, operands, strict=True)
            ]
            moved = MOVES[equation.primitive.name](numbers, equation.params)
            total = np.zeros(sum(sizes), int)
            for result, places in zip(equation.outvars, moved, strict=True):
                np.add.at(total, places, uses.get(result, 0))
            for atom, places in zip(operands, numbers, strict=True):
                count(atom, total[places])
        else:
            for atom in operands:
                count(atom, 1)
    return uses
