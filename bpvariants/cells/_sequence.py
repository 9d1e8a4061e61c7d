"""A cell along time, with its weights' gradients deferred to blocks of steps.

    (δ_{t−1}, z̄_t) from δ_t and ȳ_t, through the cell        step by step
    dL/dθ += Σ_t z̄_t ∂z_t/∂θ                                 all t of a block at once

The derivatives are those of a scan. For the way back a step keeps its gates, its carry,
and what of this it projects.
"""

import jax
import jax.numpy as jnp

from bpvariants._checks import check_lengths, check_like, first_step, step_shapes
from bpvariants._dtypes import cast_like, NARROW, widen
from bpvariants.cells._cell import Cell, lean, lean_step
from bpvariants.gradients._masking import blank, guarded, keep, restart
from bpvariants.gradients._residuals import (
    cotangent,
    floating,
    linearised,
    plan_residuals,
)
from bpvariants.gradients._two_phase import (
    at,
    block_length,
    by_blocks,
    tangents,
    without_float0,
)
from bpvariants.types import PyTree


def run_cell(
    cell: Cell,
    params: PyTree,
    carry: PyTree,
    xs: jax.Array,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree | None,
) -> tuple[PyTree, jax.Array]:
    """Run a cell along time, for reverse mode in two phases."""
    mask, reset = (None if a is None else jnp.asarray(a) for a in (mask, reset))
    length = check_lengths(xs, mask=mask, reset=reset)
    step_shapes(lean_step(cell), params, carry, first_step(xs))
    initial = carry if initial is None else initial
    check_like("initial", initial, "carry", carry)
    narrow = any(jnp.result_type(leaf) in NARROW for leaf in jax.tree.leaves(params))
    narrowed = lambda wide_params: cast_like(wide_params, params)
    scan = _two_phase_cell(cell, narrowed, block_length(length, carry, narrow))
    return scan(widen(params), initial, carry, (xs, mask, reset))


def _two_phase_cell(cell, narrowed, block):
    activate = lean(cell.activate)

    def advance(params, initial, h, x_and_tap):
        """Take a step, in which a tap is added to z: its cotangent is that of z."""
        (x, mask, reset), tap = x_and_tap
        start = restart(h, initial, mask, reset)
        hidden = cell.hidden(start)
        z = cell.project(narrowed(params), hidden, blank(x, h, mask))
        new, y = activate(jax.tree.map(jnp.add, z, tap), start)
        return (keep(new, h, mask), y), hidden

    def linearise(fixed, h, x):
        params, initial = fixed
        z = jax.eval_shape(cell.project, narrowed(params), cell.hidden(h), x[0])
        tap = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), z)
        untapped = lambda tap: (x, tap)
        step = lambda initial, h, tap: advance(params, initial, h, untapped(tap))[0]
        results, linear = linearised(step, initial, h, tap)
        hidden = cell.hidden(restart(h, initial, *x[1:]))
        return (*results, hidden), linear

    @jax.custom_vjp
    def run(params, initial, carry, inputs):
        def body(h, inputs):
            x, mask, reset = inputs
            step = guarded(lean_step(cell), initial, mask, reset)
            return step(narrowed(params), h, x)

        return jax.lax.scan(body, carry, inputs)

    def forward(params, initial, carry, inputs):
        fixed, first = (params, initial), at(inputs, 0)
        plan = plan_residuals(linearise, fixed, carry, first)

        def body(h, x):
            (h, y, hidden), linear = linearise(fixed, h, x)
            return h, (y, (plan.to_stack(linear), hidden))

        last, (ys, kept) = jax.lax.scan(body, carry, inputs)
        constants = jax.jit(lambda *args: plan.constants(linearise(*args)[1]))
        constants = constants(fixed, carry, first)
        return (last, ys), (plan, kept, constants, params, initial, carry, inputs)

    def backward(saved, cotangents):
        plan, (stacked, hidden), constants, params, initial, carry, inputs = saved
        z = jax.eval_shape(cell.project, narrowed(params), *at((hidden, inputs[0]), 0))
        like = [tangents(tree) for tree in (initial, carry, z)]
        project_all = lambda params, hidden, xs, mask: cell.project(
            narrowed(params), hidden, blank(xs, hidden, mask)
        )

        def back(delta, part):
            stacked, hidden, inputs, ys_bar = part

            def step_back(delta_and_sum, at_time):
                delta, initial_sum = delta_and_sum
                stacked, inputs, y_bar = at_time
                linear = plan.linear(stacked, inputs, constants)
                pull = jax.linear_transpose(linear, *like)
                initial_bar, delta, z_bar = pull((delta, y_bar))
                if inputs[2] is not None:
                    add = lambda *pair: jnp.add(*pair)
                    initial_sum = jax.tree.map(add, initial_sum, initial_bar)
                return (delta, initial_sum), z_bar

            nothing = [jnp.zeros(a.shape, a.dtype) for a in like[0]]
            (delta, initial_sum), z_bars = jax.lax.scan(
                step_back, (delta, nothing), (stacked, inputs, ys_bar), reverse=True
            )
            of = lambda params, xs: project_all(params, hidden, xs, inputs[1])
            _, pull = jax.vjp(of, params, inputs[0])
            params_bar, xs_bar = pull(jax.tree.unflatten(jax.tree.structure(z), z_bars))
            return delta, ((params_bar, initial_sum), xs_bar)

        last_bar, ys_bar = map(without_float0, cotangents)
        zeros = jax.tree.map(jnp.zeros_like, (params, floating(initial)))
        along_time = stacked, hidden, inputs, ys_bar
        (params_bar, initial_bar), carry_bar, xs_bar = by_blocks(
            back, along_time, last_bar, zeros, block
        )
        inputs_bar = cotangent(inputs, [xs_bar])
        initial_bar = cotangent(initial, initial_bar)
        return params_bar, initial_bar, cotangent(carry, carry_bar), inputs_bar

    run.defvjp(forward, backward)
    return run
