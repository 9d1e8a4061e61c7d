"""Choice of the solver and the adjoint solver from the arguments of a caller."""

from types import ModuleType
from typing import Any, Literal

import jax

from bpvariants._settings import check_number
from bpvariants.gradients.equilibrium import adjoints, solvers
from bpvariants.gradients.equilibrium._protocols import Adjoint, Solver
from bpvariants.gradients.equilibrium._with_krylov import with_krylov

OURS = solvers.relaxation, solvers.anderson, solvers.broyden, solvers.auto


def choose_solver(
    solver: Solver | Literal["auto"] | None,
    damping: float | jax.Array | None,
    tol: float | jax.Array | None,
    max_steps: int | jax.Array | None,
    atol: float | jax.Array | None,
) -> Solver:
    """Return `solver`; for None or "auto", a solver with the given settings."""
    settings = {"damping": damping, "tol": tol, "max_steps": max_steps, "atol": atol}
    given = {name: value for name, value in settings.items() if value is not None}
    if solver is None:
        return solvers.relaxation(**given)
    if isinstance(solver, str) and solver == "auto":
        if damping is not None:
            raise ValueError(
                f'damping must be left out with solver="auto", got {damping}, because '
                "this solver is not damped; gradients.solvers.relaxation(…) is."
            )
        return solvers.auto(**given)
    if isinstance(solver, type) or not hasattr(solver, "solve"):
        raise ValueError(
            "solver must be a value such as gradients.solvers.relaxation(…), "
            'gradients.solvers.anderson(…) or gradients.solvers.broyden(…), or "auto", '
            "got "
            f"{_described(solver, solvers)}."
        )
    if isinstance(solver, OURS):
        for name in ("tol", "max_steps"):
            remedy = f"leave {name} out for the default"
            check_number(name, getattr(solver, name), remedy=remedy)
    if given:
        raise ValueError(
            f"{', '.join(given)} must be left out where solver is given, because this "
            f"is short for gradients.solvers.relaxation(…); got {given} beside "
            f"{type(solver).__name__}(…). Set it there, if that solver has it."
        )
    return solver


def choose_adjoint(adjoint: Adjoint | None, solver: Solver, on_failure: str) -> Adjoint:
    """Return `adjoint`; if it is None, an adjoint solver with the method of `solver`.

    With on_failure="nan", conjugate gradients solve the examples for which the method
    of `solver` fails. With "truncate" or "ignore", conjugate gradients are not used. An
    adjoint that did not converge must still be linear in the cotangent, and that of
    conjugate gradients is not.
    """
    if adjoint is None and isinstance(solver, OURS):
        first: Any = solver
        if isinstance(solver, solvers.relaxation):
            damping = 1.0 if solver.damping is None else solver.damping
            first = adjoints.relaxation(damping, solver.tol, solver.max_steps)
        if on_failure != "nan":
            return first
        return with_krylov(first)
    chosen: Any = solver if adjoint is None else adjoint
    if isinstance(chosen, type) or not hasattr(chosen, "approximate"):
        if adjoint is None:
            raise ValueError(
                f"adjoint must be given with solver={type(solver).__name__}(…), which "
                "cannot solve for the adjoint; gradients.adjoints.relaxation(…) can."
            )
        hint = _name_in(adjoints, chosen)
        if hint is None and hasattr(adjoints, _kind(chosen).__name__):
            hint = _kind(chosen).__name__  # an adjoint solver has the same name
        raise ValueError(
            "adjoint must be a value such as gradients.adjoints."
            f"{hint or 'relaxation'}(…), got {_described(chosen, adjoints)}."
        )
    return chosen


def _described(given: Any, wanted: ModuleType) -> str:
    """Describe, for an error message, a wrong solver or adjoint, and give a remedy."""
    name, other = _name_in(wanted, given), solvers if wanted is adjoints else adjoints
    if name is not None:
        return f"{name}, which must be called with its settings"
    name = _name_in(other, given)
    if name is None:
        return repr(given)
    if other is solvers:
        return f"gradients.solvers.{name}(…), which solves for h; give it as solver="
    return (
        f"gradients.adjoints.{name}(…), which solves for the adjoint; give it as "
        "adjoint="
    )


def _name_in(room: ModuleType, given: Any) -> str | None:
    """Return the name of a solver or adjoint of the module `room`; else return None."""
    kind = _kind(given)
    return kind.__name__ if getattr(room, kind.__name__, None) is kind else None


def _kind(given: Any) -> Any:
    """Return a class or function as it is, and the class of any other value."""
    return given if hasattr(given, "__name__") else type(given)
