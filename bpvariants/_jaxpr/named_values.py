"""Find the named values of a jaxpr, and run it with shifts added to these values.

A value has a name if it is tagged by `jax.ad_checkpoint.checkpoint_name`. A name inside
a scan has one value for each step of the scan.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from bpvariants._dtypes import is_floating
from bpvariants._jaxpr.maxima import run_stored
from bpvariants._jaxpr.program import called, evaluate, PLAIN_CALLS


class NamedProgram(NamedTuple):
    """Jaxpr of a function, and its named floating values."""

    program: Any  # closed jaxpr of the function
    names: list[str]  # name of each value, in the jaxpr's order; names may repeat
    places: list[jax.ShapeDtypeStruct]  # shape of each value, [T, ...] inside a scan

    @property
    def outputs(self) -> list[Any]:
        """Shapes and dtypes of the function's results."""
        return list(self.program.out_avals)

    def run(
        self, arguments: Sequence[Any], shifts: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Add shifts to the named values; return the outputs and the named values.

        A returned named value does not contain its own shift, but it may depend on the
        shifts of earlier named values.
        """
        values: list[jax.Array] = []
        run = _shifting(iter(shifts), values)
        jaxpr, consts = self.program.jaxpr, self.program.consts
        return evaluate(jaxpr, consts, arguments, run), values


def named_program(function: Callable, *arguments: Any) -> NamedProgram:
    """Trace a function, and find its named values."""
    program = jax.make_jaxpr(function)(*arguments)
    named = _named(program.jaxpr)
    return NamedProgram(program, [name for name, _ in named], [at for _, at in named])


def _shifting(shifts: Iterator[jax.Array], values: list[jax.Array]) -> Callable:
    """Return a function that runs an equation, and adds shifts to its named values.

    For each named value, in the jaxpr's order, the returned function adds the next
    shift of `shifts` to the value. It appends the value without this shift to `values`.
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
    """Run a scan in which each named value gets a different shift at each scan step."""
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
    """Return how many operands of a scan are not sequences, and how many are the carry.

    The body of a scan gets slices of sequences, and a slice has one axis less than its
    sequence. The numbers of axes therefore tell which operands are sequences. The
    parameters of the primitive would tell this, too, but depend on JAX's version.
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
    """Return the name and the shape of each named value, in the jaxpr's order."""
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
