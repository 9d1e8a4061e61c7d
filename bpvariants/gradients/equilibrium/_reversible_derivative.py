"""The result of a reversible relaxation as a differentiable function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._jaxpr.residuals import cotangent
from bpvariants._masking import select
from bpvariants.gradients.equilibrium._implicit_derivative import (
    nan_unless,
    OnFailure,
    zero_unless,
)
from bpvariants.gradients.equilibrium._solution import FixedPoint, FixedPointInfo
from bpvariants.gradients.equilibrium.adjoints import reversible
from bpvariants.gradients.equilibrium.adjoints._reversible_passes import (
    Cotangents,
    go_back,
    go_forward,
    report,
    Trajectory,
)
from bpvariants.types import PyTree


def check_alone(adjoint: Any, **given: Any) -> None:
    """Check that no solver and no setting of a solver is given beside `reversible`."""
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(adjoint, reversible) and given:
        raise ValueError(
            f"{', '.join(given)} must be left out with adjoint=reversible(…), which is "
            f"its own solver; got {given}. Set beta= and steps= of reversible, or use "
            "another adjoint solver."
        )


def closed_map(
    f: Callable, params: PyTree, init: PyTree, x: PyTree
) -> tuple[Callable[[PyTree, PyTree], PyTree], PyTree]:
    """Return g(θ, h) = f(params, h, x), and θ: params, x, and what f closes over."""
    f, others = jax.closure_convert(f, params, init, x)

    def g(theta, h):
        params, x, others = theta
        return f(params, h, x, *others)

    return g, (params, x, others)


def run_back(
    adjoint: reversible,
    g: Callable,
    theta: PyTree,
    init: PyTree,
    end: Trajectory,
    h_bar: PyTree,
    on_failure: OnFailure,
) -> tuple[tuple[PyTree, PyTree], Cotangents]:
    """Return the cotangents of (θ, init), and those of the pass with its report."""
    params, x, others = theta
    clean = params, zero_unless(end.found, x), others
    back = go_back(adjoint, g, clean, init, end, h_bar)
    theta_bar, init_bar = cotangent(theta, back.theta), back.init
    if on_failure == "nan":
        right = back.info.converged
        theta_bar = jax.tree.map(lambda leaf: _poisoned(right, leaf), theta_bar)
        init_bar = nan_unless(right, init_bar)
    return (theta_bar, init_bar), back


def _poisoned(right: jax.Array, leaf: Any) -> Any:
    """Return a cotangent with NaN for failed examples, or in all of a shared leaf."""
    if leaf.dtype == jax.dtypes.float0:
        return leaf
    if jnp.shape(leaf)[: right.ndim] != right.shape:
        right = jnp.all(right)
    return select(right, leaf, jnp.full_like(leaf, jnp.nan))


def reversible_fixed_point(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    init: PyTree,
    x: PyTree,
    adjoint: reversible,
    on_failure: OnFailure,
    batch_ndim: int,
) -> FixedPoint:
    """Return h after N reversible steps, and its report; see :class:`reversible`."""
    g, theta = closed_map(f, params, init, x)

    @jax.custom_vjp
    def settle(theta, init):
        return forward(theta, init)[0]

    def forward(theta, init):
        h, end = go_forward(adjoint, g, theta, init, batch_ndim)
        return (_result(h, init, end.found, on_failure), end.found), (theta, init, end)

    def backward(saved, cotangents):
        theta, init, end = saved
        h_bar, _ = cotangents
        return run_back(adjoint, g, theta, init, end, h_bar, on_failure)[0]

    settle.defvjp(forward, backward)
    h, found = settle(theta, init)
    fixed = jax.lax.stop_gradient((theta, init, h, found))
    return FixedPoint(h, report(adjoint, g, *fixed))


def reversible_equilibrium(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    init: PyTree,
    x: PyTree,
    adjoint: reversible,
    batch_ndim: int,
    on_failure: OnFailure,
) -> tuple[PyTree, FixedPointInfo, Callable]:
    """Return h, its report, and the backward pass for :func:`recurrent_backprop`."""
    f = with_stored_operands(f, params, init, x)
    g, theta = closed_map(f, params, init, x)
    h, end = go_forward(adjoint, g, theta, init, batch_ndim)

    def backward(b, unweighted, start):
        del start
        b = select(unweighted, jax.tree.map(jnp.zeros_like, b), b)
        (theta_bar, _), back = run_back(adjoint, g, theta, init, end, b, on_failure)
        return back.signal, back.info, theta_bar[0]

    info = report(adjoint, g, theta, init, h, end.found)
    return _result(h, init, end.found, on_failure), info, backward


def _result(h: PyTree, init: PyTree, found: jax.Array, on_failure: OnFailure) -> PyTree:
    """Return h; where a state is not finite or too large, NaN, or init if truncated."""
    return select(found, h, init) if on_failure == "truncate" else nan_unless(found, h)
