"""Tests that errors about solvers and adjoints use the names that a user types."""

from types import SimpleNamespace

import pytest

from bpvariants import gradients

solvers, adjoints = gradients.solvers, gradients.adjoints
linear = lambda w, h, x: w * h + x
SOLVES_FOR_H = r"gradients\.solvers\.relaxation\(…\), which solves for h; give it as"


def test_anderson_and_broyden_are_both():
    assert adjoints.anderson is solvers.anderson
    assert adjoints.broyden is solvers.broyden
    assert adjoints.relaxation is not solvers.relaxation


@pytest.mark.parametrize("name", ["cg", "jfb", "linear_solver", "neumann", "unrolled"])
def test_an_adjoint_is_no_solver(name):
    settings = {"linear_solver": (None,), "neumann": (1,), "unrolled": (1,)}
    value = getattr(adjoints, name)(*settings.get(name, ()))
    public = "neumann" if name == "jfb" else name
    told = rf"got gradients\.adjoints\.{public}\(…\), .* give it as adjoint="
    with pytest.raises(ValueError, match=told):
        gradients.fixed_point(linear, 0.5, 0.0, 1.0, solver=value)
    with pytest.raises(ValueError, match=told):
        gradients.recurrent_backprop(linear, lambda h, t: h, solver=value)


@pytest.mark.parametrize("given", [solvers.relaxation, solvers.relaxation()], ids=str)
def test_the_relaxation_of_h_is_not_that_of_the_adjoint(given):
    told = rf"such as gradients\.adjoints\.relaxation\(…\), got {SOLVES_FOR_H} solver="
    with pytest.raises(ValueError, match=told):
        gradients.fixed_point(linear, 0.5, 0.0, 1.0, adjoint=given)


def test_what_is_neither_is_shown():
    for name in ("solver", "adjoint"):
        told = rf"{name} must be a value such as gradients\.{name}s\.relaxation\(…\)"
        with pytest.raises(ValueError, match=rf"{told}, .*got 'cg'"):
            gradients.fixed_point(linear, 0.5, 0.0, 1.0, **{name: "cg"})


def test_a_solver_of_ones_own_needs_an_adjoint():
    own = SimpleNamespace(tol=1e-9, solve=solvers.relaxation(tol=1e-9).solve)
    with pytest.raises(ValueError, match=r"given with solver=SimpleNamespace\(…\)"):
        gradients.fixed_point(linear, 0.5, 0.0, 1.0, solver=own)
    options = {"solver": own, "adjoint": adjoints.relaxation()}
    h, info = gradients.fixed_point(linear, 0.5, 0.0, 1.0, **options)
    assert info.converged
    assert abs(h - 2) < 1e-8
