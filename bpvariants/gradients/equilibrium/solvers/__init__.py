"""How a fixed point is reached: each solver is a value that holds its settings."""

from bpvariants.gradients.equilibrium.solvers._anderson import (
    anderson as anderson,
)
from bpvariants.gradients.equilibrium.solvers._broyden import (
    broyden as broyden,
)
from bpvariants.gradients.equilibrium.solvers._relaxation import (
    relaxation as relaxation,
)
