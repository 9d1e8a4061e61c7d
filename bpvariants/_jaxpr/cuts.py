"""Cut a step's program at its new carry, to hold or move what its outputs read.

A step computes h_t = f(θ, h_{t−1}, x_t) and, in most networks, y_t = g(θ, h_t) of it;
seen from outside, both merely depend on h_{t−1}. The step's program tells them apart:
y_t reads h_t where the variable that leaves as h_t is an operand on the way to y_t. To
move h_t, the program is run once for h_t, and again with that variable put in its
place; the compiler makes one run of the two.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.program import (
    environment,
    flat_program,
    interpret,
    is_variable,
    PLAIN_CALLS,
    reached,
    run_equation,
    run_plainly,
)
from bpvariants._jaxpr.rearrangements import reorders
from bpvariants.types import PyTree, Step


class CutStep(NamedTuple):
    """The program of one example's step with its loss, cut at the new carry.

    Attributes:
      program: from (params, carry, inputs) to (carry, loss), a closed jaxpr.
      structure: of its outputs.
      cuts: variable -> (which floating leaf of the carry it is, the equations that
        rearrange it to that leaf).
      skips: whether the loss depends on the old carry other than through the new one.
    """

    program: Any
    structure: Any
    cuts: dict[Any, tuple[int, list[Any]]]
    skips: bool

    def at_cuts(self, params: PyTree, carry: PyTree, inputs: PyTree) -> list[jax.Array]:
        """Return what is computed where the program is cut."""
        read = _run(self.program, (params, carry, inputs))
        return [read(variable) for variable in self.cuts]

    def run(
        self,
        params: PyTree,
        carry: PyTree,
        inputs: PyTree,
        held: Sequence[jax.Array],
        nudges: Sequence[jax.Array],
    ) -> tuple[PyTree, jax.Array]:
        """Run it with the values `held` at the cuts, and nudges added to the new carry.

        Leaves that are passed on unchanged are not cut: their uses are those of the old
        carry.
        """
        values = dict(zip(self.cuts, held, strict=True))

        def cut(variable, value):
            if variable not in self.cuts:
                return value
            place, chain = self.cuts[variable]
            value = values[variable]
            back = jax.vjp(lambda a: _rearrange(a, chain), value)[1]
            return value + back(nudges[place])[0]

        read = _run(self.program, (params, carry, inputs), cut)
        outputs = [read(atom) for atom in self.program.jaxpr.outvars]
        return self.structure.unflatten(outputs)


def cut_step(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    first: Sequence[int] = (),
) -> CutStep:
    """Trace the step of one example, and find where to cut it.

    The carry may be a mere rearrangement of what the output is computed from, as it is
    where batch axes are taken away from it: cut where its elements are computed. Two
    leaves of the carry may be one and the same: it is the one that stands in `first`,
    their places among the floating leaves, or else the earlier.
    """
    arguments = params, carry, inputs
    program, structure = flat_program(step_with_loss, *arguments, calls=PLAIN_CALLS)
    new_carry, loss = structure.unflatten(program.jaxpr.outvars)
    cuts = _cuts(program.jaxpr, jax.tree.leaves(new_carry), first)
    sizes = [len(jax.tree.leaves(tree)) for tree in arguments]
    old_carry = program.jaxpr.invars[sizes[0] : sizes[0] + sizes[1]]
    skips = is_variable(loss) and loss in _around(program.jaxpr, old_carry, cuts)
    return CutStep(program, structure, cuts, skips)


def _cuts(jaxpr: Any, new_carry: list[Any], first: Sequence[int]) -> dict:
    outvars = [atom for atom in new_carry if is_floating(atom.aval)]
    made_by = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    cuts = {}
    for place in (*first, *(i for i in range(len(outvars)) if i not in first)):
        variable, chain = outvars[place], []
        while is_variable(variable) and variable in made_by:
            equation = made_by[variable]
            if not reorders(equation):
                cuts.setdefault(variable, (place, chain))
                break
            chain.insert(0, equation)
            variable = equation.invars[0]
    return cuts


def _around(jaxpr: Any, old_carry: list[Any], cuts: dict) -> set[Any]:
    """Return what depends on the old carry, or on effects, other than through cuts."""
    results = lambda equation: [v for v in equation.outvars if v not in cuts]
    unseen = [v for e in jaxpr.eqns if e.effects for v in results(e)]
    return reached(jaxpr.eqns, [*old_carry, *unseen], results)


def _rearrange(value, chain):
    for equation in chain:
        (value,) = run_equation(equation, [value])
    return value


def reading_new_carry(step: Step, change: Callable[[PyTree], PyTree]) -> Step:
    """Return the step whose new carry is changed before its outputs read it."""

    def changed_step(params, carry, x):
        arguments = params, carry, x
        program, structure = flat_program(step, *arguments, calls=PLAIN_CALLS)
        outputs = program.jaxpr.outvars
        read = _run(program, arguments)
        new, _ = structure.unflatten([read(atom) for atom in outputs])
        new = change(new)
        given = set(program.jaxpr.invars) | set(program.jaxpr.constvars)
        known = {
            variable: leaf
            for variable, leaf in zip(outputs, jax.tree.leaves(new), strict=False)
            if is_variable(variable) and variable not in given
        }
        put = lambda variable, value: known.get(variable, value)
        read = _run(program, arguments, put)
        _, y = structure.unflatten([read(atom) for atom in outputs])
        return new, y

    return changed_step


def _run(
    program: Any,
    arguments: PyTree,
    change: Callable[[Any, Any], Any] = lambda variable, value: value,
) -> Callable[[Any], Any]:
    """Run a program with results changed on the way; return how to read an operand."""
    leaves = jax.tree.leaves(arguments)
    env = environment(program.jaxpr, program.consts, leaves)
    return interpret(program.jaxpr.eqns, env, run_plainly, change)
