"""Factorised derivatives of a step in which each parameter matrix multiplies a vector.

Notation, for one example: h_t is the new carry as a vector [n]. A block Θ [k, m] is a
matrix of parameters that the step uses only in a product u = â Θ with a vector â [k].
The derivative of h_t with respect to a block therefore factorises: ∂h_t/∂Θ = D ⊗ â,
where D is the derivative ∂h_t/∂u.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import (
    as_vectors,
    carry_dtype,
    example_shapes,
    floating_leaves,
)
from bpvariants._jaxpr.maxima import storing
from bpvariants._jaxpr.parameter_products import Block, Terms
from bpvariants._jaxpr.program import (
    environment,
    flat_program,
    has_refs,
    interpret,
    needed_equations,
    PLAIN_CALLS,
    run_equation,
)
from bpvariants._jaxpr.uses import constant_equations, find_uses
from bpvariants.types import PyTree, Step


class FactorisedStep(NamedTuple):
    """Jaxpr of a step from (params, carry, inputs) to the new carry, and its blocks.

    A block is a matrix of parameters that the step multiplies by one vector.

    Attributes:
      closed: closed jaxpr of the step.
      equations: equations of the jaxpr that the new carry depends on.
      blocks: blocks through which the new carry depends on params.
      scales: for each equation that multiplies params by constants: (equation, index of
        its operand that consists of params, flat positions in params of this operand's
        elements).
    """

    closed: Any
    equations: list[Any]
    blocks: list[Block]
    scales: list[tuple[Any, int, np.ndarray]]

    @property
    def variables(self) -> list[Any]:
        return list(dict.fromkeys(block.variable for block in self.blocks))

    def run(
        self, leaves: Sequence[jax.Array], changes: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[list[jax.Array]]]:
        """Return the new carry's floating leaves, and the parts of each block's â.

        The step multiplies the vector â by the block. `changes` has one array for each
        variable of `variables`; the array is added to the variable's value.
        """
        jaxpr = self.closed.jaxpr
        added = dict(zip(self.variables, changes, strict=True))
        change = lambda variable, value: (
            value + added[variable].astype(value.dtype) if variable in added else value
        )
        env = environment(jaxpr, self.closed.consts, leaves)
        env = {variable: change(variable, value) for variable, value in env.items()}
        read = interpret(self.equations, env, storing(jaxpr), change)

        def as_vector(factor):
            if factor is None:
                return jnp.ones(1)
            operand, axes = factor
            return jnp.transpose(read(operand), axes).reshape(-1)

        inputs = [[as_vector(part) for part in block.inputs] for block in self.blocks]
        return [read(atom) for atom in jaxpr.outvars], inputs

    def scaled(self, block: Block, values: jax.Array) -> jax.Array:
        """Return the gradient of a block's params, given the gradient of the matrix Θ.

        If the step computes Θ as params times constants, the gradient of the params is
        the gradient `values` of Θ times these constants.
        """
        jaxpr = self.closed.jaxpr
        if not self.scales or block.variable in jaxpr.invars:
            return values  # the step multiplies the block by no constants
        env = dict(zip(jaxpr.constvars, self.closed.consts, strict=True))
        read = interpret(constant_equations(jaxpr, self.equations), env)
        factors = jnp.ones(sum(variable.aval.size for variable in jaxpr.invars))
        for equation, place, positions in self.scales:
            factor = _factor(equation, place, read).astype(factors.dtype)
            factors = factors.at[positions].multiply(factor)
        return values * factors[block.parameters].astype(values.dtype)


def _factor(equation: Any, place: int, read: Callable[[Any], Any]) -> jax.Array:
    """Return the derivative of an element-wise equation with respect to one operand."""
    theta = equation.invars[place].aval
    ones = jnp.ones(theta.shape, theta.dtype)

    def scale(theta):
        others = enumerate(equation.invars)
        return run_equation(
            equation, [theta if i == place else read(atom) for i, atom in others]
        )[0]

    return jax.jvp(scale, (ones,), (ones,))[1]


def factorise(
    step_of_example: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    batch_rank: int = 0,
) -> FactorisedStep:
    """Find the blocks through which one example's new carry depends on params.

    A block is a matrix of parameters that the step multiplies by one vector. `carry`
    and `inputs` are arrays of the whole batch, or their shapes.

    Raises:
      ValueError: if the step's jaxpr uses refs. Also if the new carry depends on an
        array of params that is neither a bias nor used only in a product with a vector.
    """
    new_leaves = lambda *arguments: floating_leaves(step_of_example(*arguments)[0])
    shapes = example_shapes((carry, inputs), batch_rank)
    closed, _ = flat_program(new_leaves, params, *shapes, calls=PLAIN_CALLS)
    if has_refs(closed.jaxpr):
        raise ValueError(
            "step must not compute the new carry through refs, because its factors "
            "cannot be seen there; return arrays instead, or use gradients.rtrl."
        )
    equations = needed_equations(closed.jaxpr)
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    thetas = closed.jaxpr.invars[: len(paths)]
    uses = find_uses(closed.jaxpr, equations, thetas)
    terms = Terms(thetas, [jax.tree_util.keystr(path) for path in paths], uses)
    for equation in equations:
        if not uses.depends.isdisjoint(equation.outvars):
            terms.read(equation)
    return FactorisedStep(closed, equations, terms.blocks(), terms.scales)


def linearise_factors(
    program: FactorisedStep,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    columns: Sequence[jax.Array],
) -> tuple[list[jax.Array], list[tuple[jax.Array, jax.Array]]]:
    """Return products with the step's Jacobian J, and the factors of each block.

    J = ∂h_t/∂h_{t−1} is [n, n], where h_t are the n floating elements of one example's
    carry. The products are J Ω for each matrix Ω [n, m] in `columns`. A block Θ [k, m]
    is a matrix of parameters that the step multiplies by a vector â [k]. D [n, m] is
    the derivative of h_t with respect to this product. The factors are (â, D). The cost
    is at most n backward passes through the step, and the products.
    """
    dtype = carry_dtype(carry)
    h, as_carry = as_vectors(carry, (), dtype)

    def new_carry(h, changes):
        arguments = [*map(jnp.asarray, jax.tree.leaves(params))]
        arguments += jax.tree.leaves((as_carry(h), inputs))
        new, factors = program.run(arguments, changes)
        as_vector = lambda parts: as_vectors(parts, (), dtype)[0]
        return as_vector(new), list(map(as_vector, factors))

    zeros = [jnp.zeros(variable.aval.shape, dtype) for variable in program.variables]
    _, pull, factors = jax.vjp(new_carry, h, zeros, has_aux=True)
    jacobian, slopes = jax.vmap(pull)(jnp.eye(h.size, dtype=dtype))
    of_variable = dict(zip(program.variables, slopes, strict=True))
    of_blocks = [
        of_variable[block.variable].reshape(h.size, -1)[:, _as_slice(block.positions)]
        for block in program.blocks
    ]
    ends = np.cumsum([part.shape[1] for part in columns])
    if len(ends) and ends[-1] <= h.size:
        # One forward-mode derivative for each column takes no more time than the
        # backward passes for J, and makes J itself unnecessary.
        push = jax.linearize(lambda h: new_carry(h, zeros)[0], h)[1]
        whole = jnp.concatenate(columns, axis=1)
        pushed = jax.vmap(push)(whole.T).T
        products = jnp.split(pushed, ends[:-1], axis=1)
    else:
        products = [jacobian @ part for part in columns]
    return products, list(zip(factors, of_blocks, strict=True))


def add_block(
    grads: Sequence[jax.Array], block: Block, values: jax.Array
) -> list[jax.Array]:
    """Add the gradient `values` of a block to `grads`, the gradients of the params."""
    grads, end = list(grads), 0
    for i, grad in enumerate(grads):
        start, end = end, end + grad.size
        inside = (start <= block.parameters) & (block.parameters < end)
        rows = np.flatnonzero(inside.any(axis=1))
        columns = np.flatnonzero(inside.any(axis=0))
        if rows.size:
            part = values[_as_slice(rows)][:, _as_slice(columns)].astype(grad.dtype)
            places = block.parameters[np.ix_(rows, columns)] - start
            inside = inside[np.ix_(rows, columns)]
            grads[i] = _add_at(grad, np.where(inside, places, grad.size), part)
    return grads


def _add_at(grad: jax.Array, places: np.ndarray, part: jax.Array) -> jax.Array:
    """Add `part` to `grad` at those flat positions `places` that exist in `grad`."""
    width = grad.shape[-1] if grad.ndim else 1
    row, column = divmod(int(places[0, 0]), width)
    for at, values in ((places, part), (places.T, part.T)):
        rows, columns = row + np.arange(at.shape[0]), column + np.arange(at.shape[1])
        grid = rows[:, None] * width + columns
        if columns[-1] < width and np.array_equal(at, grid):
            # `part` covers consecutive rows and columns of `grad`, so use slices.
            window = grad.reshape(-1, width).at[_as_slice(rows), _as_slice(columns)]
            return window.add(values).reshape(grad.shape)
    flat = grad.reshape(-1).at[places.reshape(-1)]
    return flat.add(part.reshape(-1), mode="drop").reshape(grad.shape)


def _as_slice(positions: np.ndarray) -> Any:
    first, size = int(positions[0]), len(positions)
    together = np.array_equal(positions, np.arange(first, first + size))
    return slice(first, first + size) if together else positions
