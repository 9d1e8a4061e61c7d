"""Functions that replace the new carry from which a step computes its outputs.

A step computes a new carry h_t = f(θ, h_{t−1}, x_t) and, in most networks, an output
y_t = g(θ, h_t). The step's signature does not show that y_t depends on h_t, but the
step's jaxpr does: the variable that is returned as h_t is an operand of an equation on
the way to y_t. The variable of h_t is called a *cut*, because its value can be
replaced.

To change h_t, the step's jaxpr is evaluated twice: first to compute h_t, then with the
changed h_t at the cut. The compiler merges the operations that are equal in the two
evaluations.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.maxima import storing
from bpvariants._jaxpr.program import (
    environment,
    flat_program,
    interpret,
    is_variable,
    PLAIN_CALLS,
    reached,
    run_equation,
)
from bpvariants._jaxpr.rearrangements import reorders
from bpvariants.types import PyTree, Step


class CutStep(NamedTuple):
    """Jaxpr of one example's step with its loss, and the cuts in this jaxpr.

    A cut is a variable that holds a leaf of the new carry, and whose value can be
    replaced.

    Attributes:
      program: closed jaxpr from (params, carry, inputs) to (new carry, loss).
      cuts: variable -> (index of a floating leaf of the carry, equations that rearrange
        the variable into that leaf).
      skips: whether the jaxpr has a path from the old carry to the loss without cuts.
    """

    program: Any
    structure: Any
    cuts: dict[Any, tuple[int, list[Any]]]
    skips: bool

    def at_cuts(self, params: PyTree, carry: PyTree, inputs: PyTree) -> list[jax.Array]:
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
        """Run the step with replaced values at the cuts; return (new carry, loss).

        `held` has one array for each cut, which replaces the cut's value. `nudges` has
        one array for each floating leaf of the carry, which is added to the value at
        the leaf's cut. A leaf that the step returns unchanged has no cut; the loss
        reads this leaf from the old carry.
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
    """Trace the step of one example, and find its cuts.

    The step may rearrange the array from which it computes the output, for example
    remove batch axes, to return the array as a leaf of the new carry. The cut of the
    leaf is then the variable before the rearrangement. If several leaves rearrange one
    variable, the variable's cut belongs to only one leaf. Leaves whose indices are in
    `first` come before all other leaves.
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
    """Return the variables that depend on the old carry by a path without cuts.

    Results of equations with effects count as dependent on the old carry, because the
    jaxpr does not show what they depend on.
    """
    results = lambda equation: [v for v in equation.outvars if v not in cuts]
    unseen = [v for e in jaxpr.eqns if e.effects for v in results(e)]
    return reached(jaxpr.eqns, [*old_carry, *unseen], results)


def _rearrange(value, chain):
    for equation in chain:
        (value,) = run_equation(equation, [value])
    return value


def reading_new_carry(step: Step, change: Callable[[PyTree], PyTree]) -> Step:
    """Return a step that computes its output from `change(new carry)`."""

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
    """Run a jaxpr; replace each result of an equation by `change(variable, result)`."""
    leaves = jax.tree.leaves(arguments)
    env = environment(program.jaxpr, program.consts, leaves)
    return interpret(program.jaxpr.eqns, env, storing(program.jaxpr), change)
