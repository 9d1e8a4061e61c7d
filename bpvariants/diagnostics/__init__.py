"""Why a gradient is wrong, vanishing or merely different: numbers to look at.

Is it a gradient: check_gradients. How do two rules differ: compare.
Each returns a NamedTuple whose table() is text.
"""

from bpvariants.diagnostics._check_gradients import (
    check_gradients as check_gradients,
    GradientCheck as GradientCheck,
)
from bpvariants.diagnostics._compare import (
    Agreement as Agreement,
    compare as compare,
    Comparison as Comparison,
)
from bpvariants.diagnostics._gradient_flow import (
    gradient_flow as gradient_flow,
    GradientFlow as GradientFlow,
)
from bpvariants.diagnostics._jacobian_spectrum import (
    jacobian_spectrum as jacobian_spectrum,
    JacobianSpectrum as JacobianSpectrum,
)
