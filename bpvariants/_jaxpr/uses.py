"""Count how often a jaxpr uses each array element; a rearrangement is not a use."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.program import is_variable, reached
from bpvariants._jaxpr.rearrangements import moved, rearranges

ADDITIONS = ("add", "add_any", "sub")
SCALINGS = ("div", "mul", "neg", "select_n")


class Uses(NamedTuple):
    """Description of how a jaxpr uses params.

    Attributes:
      depends: the floating variables that depend on params.
      scaled: id(equation) -> index of the operand that consists of elements of params.
        The dict contains each equation that only multiplies this operand by constants.
      counts: variable -> how often each of its elements is used.
    """

    depends: set[Any]
    scaled: dict[int, int]
    counts: dict[Any, np.ndarray]


def find_uses(jaxpr: Any, equations: list[Any], thetas: list[Any]) -> Uses:
    """Find out how the equations of a jaxpr use params.

    `thetas` are the jaxpr's variables for the leaves of params.
    """
    depends = dependent(equations, thetas)
    scaled = scalings(jaxpr, equations, thetas)
    counts = count_uses(equations, jaxpr.outvars, depends, scaled)
    return Uses(depends, scaled, counts)


def constant_equations(jaxpr: Any, equations: list[Any]) -> list[Any]:
    """Return the equations whose results do not depend on the jaxpr's arguments."""
    varying = reached(equations, jaxpr.invars)
    varying |= {v for e in equations if e.effects for v in e.outvars}
    varying = reached(equations, varying)
    return [e for e in equations if varying.isdisjoint(e.outvars)]


def scalings(jaxpr: Any, equations: list[Any], thetas: list[Any]) -> dict[int, int]:
    """Find the equations that multiply params by constants; return `Uses.scaled`.

    A constant is a value that does not depend on the jaxpr's arguments.
    """
    constant = {v for e in constant_equations(jaxpr, equations) for v in e.outvars}
    constant |= set(jaxpr.constvars)
    is_constant = lambda atom: not is_variable(atom) or atom in constant
    # `params` are the variables that hold only elements of params, moved or scaled.
    params, found = set(thetas), {}
    for equation in equations:
        name, operands = equation.primitive.name, equation.invars
        of_params = [is_variable(atom) and atom in params for atom in operands]
        if rearranges(equation) and all(of_params):
            params.update(equation.outvars)
        if name not in SCALINGS or sum(of_params) != 1:
            continue
        i = of_params.index(True)
        others = [atom for k, atom in enumerate(operands) if k != i]
        same = operands[i].aval.shape == equation.outvars[0].aval.shape
        where = {"div": i == 0, "select_n": i > 0}.get(name, True)
        if same and where and all(map(is_constant, others)):
            found[id(equation)] = i
            params.update(equation.outvars)
    return found


def dependent(equations: list[Any], thetas: list[Any]) -> set[Any]:
    """Return the floating variables that depend on params, not via `stop_gradient`."""

    def results(equation):
        stops = equation.primitive.name == "stop_gradient"
        return [] if stops else [v for v in equation.outvars if is_floating(v.aval)]

    return reached(equations, thetas, results)


def rearranged(equation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    return moved(equation, operands, [None] * len(operands)) or []


def passes_on(equation: Any, depends: set[Any]) -> int | None:
    """Return the index of an addition's only operand that depends on params.

    Return None if the equation is no addition, or if none or several of its operands
    depend on params. Also return None if the equation negates or broadcasts the operand
    that depends on params.
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
    equations: list[Any], outputs: list[Any], depends: set[Any], scaled: dict[int, int]
) -> dict[Any, np.ndarray]:
    """Count, for each variable in `depends`, how often each of its elements is used."""
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
        passed_on = scaled.get(id(equation), passed_on)
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
