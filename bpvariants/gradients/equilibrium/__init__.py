"""Recurrent backpropagation: gradients of networks that settle.

A solver finds the equilibrium h* = f(θ, h*, x); an adjoint solver differentiates it.
"""

from bpvariants.gradients.equilibrium import adjoints as adjoints, solvers as solvers
from bpvariants.gradients.equilibrium._fixed_point import fixed_point as fixed_point
from bpvariants.gradients.equilibrium._jacobian_penalty import (
    jacobian_penalty as jacobian_penalty,
)
from bpvariants.gradients.equilibrium._recurrent_backprop import (
    Equilibrium as Equilibrium,
    recurrent_backprop as recurrent_backprop,
)
from bpvariants.gradients.equilibrium._solution import (
    FixedPoint as FixedPoint,
    FixedPointInfo as FixedPointInfo,
)
