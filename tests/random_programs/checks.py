"""Checks that compare each gradient rule with a reference on a random program.

A check raises AssertionError if the result of the gradient rule is wrong. It raises
`Refused` if the rule raises the documented error for unsupported programs, and `Unfit`
if there is no reference result for the program.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants._jaxpr.maxima import with_stored_operands
from tests.random_programs import estimates, oracle
from tests.random_programs.build import flat, Problem
from tests.random_programs.compare import assert_close, call, refusals, Unfit
from tests.random_programs.grammar import operations_of
from tests.random_programs.operations import OPERATIONS


def is_exact(make: Callable, refuses: str | None = None) -> Callable:
    """Return a check that a gradient rule is exact.

    make(step, loss) returns the gradient rule. The rule may raise an error whose
    message matches the pattern `refuses`.
    """

    def check(problem):
        with refusals(refuses):
            got = call(make(problem.step, problem.loss), problem)
        assert_close(got, oracle.exact(problem))

    return check


def online(make: Callable, **settings: Any) -> Callable:
    """Return a function (step, loss) that applies an online rule to whole sequences."""
    return lambda step, loss: gradients.over_sequence(make(step, loss, **settings))


def parallel(method: Any) -> Callable:
    """Return a function (step, loss) that makes a rule from `parallel_unroll`."""

    def make(step, loss):
        def rule(params, carry, xs, targets, weights, mask, reset, initial):
            counts = jnp.ones_like(xs["x"][..., 0]) if weights is None else weights
            counts = counts if mask is None else jnp.where(mask, counts, 0)

            def mean_loss(params):
                (last, ys), _ = gradients.parallel_unroll(
                    step, params, carry, xs, method=method, mask=mask, reset=reset,
                    initial=initial, batch_ndim=counts.ndim - 1,
                )  # fmt: skip
                # As gradient rules do, correct the derivatives of maxima in the loss;
                # without this, XLA may compare a value with a differently rounded copy.
                stored = with_stored_operands(loss, ys, targets)
                losses = jnp.where(counts > 0, stored(ys, targets), 0)
                total = jnp.sum(counts)
                return jnp.sum(counts * losses) / jnp.where(total > 0, total, 1), last

            return jax.value_and_grad(mean_loss, has_aux=True)(params)

        return rule

    return make


def is_ready_for_rflo(problem: Problem) -> bool:
    """Return whether a reference gradient of RFLO is available for a program."""
    program = problem.program
    parts = [program.hidden, *(expression for _, expression in program.leaves)]
    used = set().union(*map(operations_of, parts))
    return all(OPERATIONS[name].for_rflo for name in used)


def is_traced(make: Callable, direct_only: bool) -> Callable:
    """Return a check that compares RFLO or e-prop with a recursion of their traces."""

    def check(problem):
        if direct_only and not is_ready_for_rflo(problem):
            raise Unfit("branches or loops")
        h, _ = oracle.floats(next(oracle.examples_of(problem))[0])
        kept, options = np.ones(h.size), {}
        if not direct_only:
            kept, options = inner_part(problem), {"visible": visible(problem)}
        rule = gradients.over_sequence(make(problem.step, problem.loss, **options))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*keeps no trace of the past")
            got = call(rule, problem)
        value_and_carry, _ = oracle.exact(problem)
        want = oracle.traced(problem, kept, direct_only)
        assert_close(got, (value_and_carry, want))

    return check


def visible(problem: Problem) -> Callable:
    """Return a function that selects a leaf of the carry as visible for e-prop."""
    names = [name for name, _ in problem.program.leaves]
    name = next(each for each in ("h1", "h0", "line", "memory") if each in names)
    return lambda carry: {"visible": flat(carry)[name]}


def inner_part(problem: Problem) -> np.ndarray:
    """Return 0 for visible floating elements of the carry, and 1 for all others."""
    carry = next(oracle.examples_of(problem))[0]
    (seen,) = visible(problem)(carry).values()
    number = lambda leaf: jnp.full_like(leaf, float(leaf is not seen))
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    marked = jax.tree.map(lambda leaf: number(leaf) if is_float(leaf) else leaf, carry)
    return np.asarray(oracle.floats(marked)[0])


REMAT = gradients.remat
AFFINE = "method='linear' needs|carry.* must be floating"
MIXED = "step must be element-wise in its carry"

CHECKS: dict[str, Callable[[Problem], None]] = {
    "bptt": is_exact(gradients.bptt),
    "bptt_step": is_exact(partial(gradients.bptt, remat="step")),
    "bptt_every": is_exact(partial(gradients.bptt, remat=REMAT.every(2))),
    "bptt_slots": is_exact(partial(gradients.bptt, remat=REMAT.slots(2))),
    "bptt_two_phase": is_exact(
        partial(gradients.bptt, backward="two_phase"),
        "cannot go back through this step",
    ),
    "truncated_bptt": is_exact(partial(gradients.truncated_bptt, every=2, lookback=4)),
    "newton": is_exact(parallel(gradients.newton(tol=1e-13)), "must be floating"),
    "newton_diagonal": is_exact(
        parallel(gradients.newton("diagonal", tol=1e-13)), "must be floating"
    ),
    "linear": is_exact(parallel("linear"), AFFINE),
    "rtrl": is_exact(online(gradients.rtrl)),
    "snap": is_exact(online(gradients.snap, order=20)),
    "diagonal_rtrl": is_exact(online(gradients.diagonal_rtrl), MIXED),
    "rflo": is_traced(gradients.rflo, direct_only=True),
    "eprop": is_traced(gradients.eprop, direct_only=False),
    "artbp": estimates.artbp,
    "uoro": estimates.uoro,
    "kf_rtrl": estimates.kf_rtrl,
    "forward_gradient": estimates.forward_gradient,
    "pes": estimates.pes,
}
