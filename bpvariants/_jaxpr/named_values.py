"""Find the arrays that a function names; run the function with shifts added to them.

A function names an intermediate array by `jax.ad_checkpoint.checkpoint_name`. An array
that is named inside a scan has one value for each step of the scan.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.maxima import run_stored
from bpvariants._jaxpr.program import called, evaluate, PLAIN_CALLS


class NamedProgram(NamedTuple):
    """Jaxpr of a function, and the names and shapes of its named floating arrays."""

    program: Any
    names: list[str]  # names of the arrays, in the jaxpr's order; may repeat
    places: list[jax.ShapeDtypeStruct]  # shapes of the arrays, [T, ...] in a scan

    @property
    def outputs(self) -> list[Any]:
        return list(self.program.out_avals)

    def run(
        self, arguments: Sequence[Any], shifts: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Run the function with a shift added to each named array.

        Return the function's results, and each named array without its own shift. A
        named array may depend on the shifts of arrays that are named earlier.
        """
        values: list[jax.Array] = []
        run = _shifting(iter(shifts), values)
        jaxpr, consts = self.program.jaxpr, self.program.consts
        return evaluate(jaxpr, consts, arguments, run), values


def named_program(function: Callable, *arguments: Any) -> NamedProgram:
    program = jax.make_jaxpr(function)(*arguments)
    named = _named(program.jaxpr)
    return NamedProgram(program, [name for name, _ in named], [at for _, at in named])


def _shifting(shifts: Iterator[jax.Array], values: list[jax.Array]) -> Callable:
    """Return a function that runs one equation, and adds a shift to a named array.

    If the equation names an array, the next array of `shifts` is added to the named
    array. The named array without this shift is appended to `values`.
    """

    def run(equation, operands):
        if _is_named(equation):
            values.append(operands[0])
            return [operands[0] + next(shifts)]
        if equation.primitive.name == "scan":
            return _scan(equation, operands, shifts, values)
        inner = called(equation, PLAIN_CALLS)
        if inner is not None:
            return evaluate(*inner, operands, run)
        return run_stored(equation, operands)

    return run


def _scan(equation, operands, shifts, values):
    """Run a scan; at each step, add the shifts of this step to the named arrays."""
    body, parameters = equation.params["jaxpr"], equation.params
    names = _named(body.jaxpr)
    if not names:
        return run_stored(equation, operands)
    given, kept = _scan_sizes(equation)
    count = given - kept
    consts, carry = operands[:count], operands[count:given]
    own = [next(shifts) for _ in names]

    def step(carry, inputs):
        xs, own = inputs
        inner: list[jax.Array] = []
        run = _shifting(iter(own), inner)
        new = evaluate(body.jaxpr, body.consts, [*consts, *carry, *xs], run)
        return new[:kept], (new[kept:], inner)

    xs = operands[given:], own
    length, reverse = parameters["length"], parameters["reverse"]
    carry, (ys, stacked) = jax.lax.scan(step, carry, xs, length, reverse)
    values.extend(stacked)
    return [*carry, *ys]


def _scan_sizes(equation: Any) -> tuple[int, int]:
    """Count the operands of a scan that are not sequences, and the arrays of its carry.

    A sequence has one axis more outside of the scan than inside of the scan's body.
    All other arrays have equally many axes outside and inside. The parameters of the
    primitive also contain both counts, but depend on JAX's version.
    """
    body = equation.params["jaxpr"].jaxpr
    same_ndim = lambda outside, inside: sum(
        a.aval.ndim == b.aval.ndim for a, b in zip(outside, inside, strict=True)
    )
    return (
        same_ndim(equation.invars, body.invars),
        same_ndim(equation.outvars, body.outvars),
    )


def _is_named(equation: Any) -> bool:
    return equation.primitive.name == "name" and is_floating(equation.invars[0].aval)


def _named(jaxpr: Any) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    found = []
    for equation in jaxpr.eqns:
        if _is_named(equation):
            aval = equation.invars[0].aval
            place = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
            found.append((equation.params["name"], place))
        elif equation.primitive.name == "scan":
            length = equation.params["length"]
            for name, place in _named(equation.params["jaxpr"].jaxpr):
                shape = (length, *place.shape)
                found.append((name, jax.ShapeDtypeStruct(shape, place.dtype)))
        elif (inner := called(equation, PLAIN_CALLS)) is not None:
            found.extend(_named(inner[0]))
    return found
