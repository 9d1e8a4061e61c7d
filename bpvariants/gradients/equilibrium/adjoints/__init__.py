"""Solvers of the adjoint equation (I − Jᵀ) z = b. Each is a frozen dataclass.

z is the adjoint, J is the Jacobian of a map at its fixed point, and b is the cotangent
of the fixed point. `anderson`, `auto` and `broyden` are the same classes as in
`gradients.solvers`. `reversible` is its own solver, and solves no adjoint equation.
"""

from bpvariants.gradients.equilibrium.adjoints._cg import cg as cg
from bpvariants.gradients.equilibrium.adjoints._linear_solver import (
    linear_solver as linear_solver,
)
from bpvariants.gradients.equilibrium.adjoints._neumann import (
    jfb as jfb,
    neumann as neumann,
)
from bpvariants.gradients.equilibrium.adjoints._relaxation import (
    relaxation as relaxation,
)
from bpvariants.gradients.equilibrium.adjoints._reversible import (
    reversible as reversible,
)
from bpvariants.gradients.equilibrium.adjoints._unrolled import unrolled as unrolled
from bpvariants.gradients.equilibrium.solvers import (
    anderson as anderson,
    auto as auto,
    broyden as broyden,
)
