"""Fixed-point solvers. Each is a frozen dataclass that holds its settings."""

from bpvariants.gradients.equilibrium.solvers._anderson import anderson as anderson
from bpvariants.gradients.equilibrium.solvers._auto import auto as auto
from bpvariants.gradients.equilibrium.solvers._broyden import broyden as broyden
from bpvariants.gradients.equilibrium.solvers._relaxation import (
    relaxation as relaxation,
)
