"""Recurrent backpropagation: gradients of networks that settle at a fixed point.

A solver finds the fixed point h* = f(θ, h*, x) of a network f. An adjoint solver solves
the linear equation from which the derivatives of h* follow.
"""

from bpvariants.gradients.equilibrium import adjoints as adjoints, solvers as solvers
from bpvariants.gradients.equilibrium._coupled_learning import (
    coupled_learning as coupled_learning,
)
from bpvariants.gradients.equilibrium._equilibrium_propagation import (
    equilibrium_propagation as equilibrium_propagation,
)
from bpvariants.gradients.equilibrium._fixed_point import fixed_point as fixed_point
from bpvariants.gradients.equilibrium._jacobian_penalty import (
    jacobian_penalty as jacobian_penalty,
)
from bpvariants.gradients.equilibrium._recurrent_backprop import (
    Equilibrium as Equilibrium,
    recurrent_backprop as recurrent_backprop,
    RecurrentBackpropRule as RecurrentBackpropRule,
)
from bpvariants.gradients.equilibrium._solution import (
    FixedPoint as FixedPoint,
    FixedPointInfo as FixedPointInfo,
)
from bpvariants.gradients.equilibrium._two_phases import (
    EquilibriumPropagationRule as EquilibriumPropagationRule,
    Phases as Phases,
)
