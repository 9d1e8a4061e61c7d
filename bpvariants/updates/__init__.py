"""Updates: functions that turn gradients into changes of params, and related tools.

The following functions return an optax.GradientTransformation:

- Rprop and its family: rprop (also called irprop_minus), irprop_plus, rprop_minus,
  rprop_plus, half_back, manhattan; probabilistic_rprop for mini-batches; grprop, which
  is experimental. For use in an optax chain, scale_by_rprop and scale_by_sign do not
  negate the steps, and scale_by_sign does not multiply them by a learning rate.
- Steps along a discounted sum of past gradients: forgetting. For use in an optax chain,
  scale_by_forgetting does not multiply the sum by minus the learning rate.
- A limit on the spectral norm of the weight matrices: project_spectral_norm, which must
  be the last transformation in an optax chain.

The following functions return other values:

- replay: a Replay, which contains functions that compute the discounted sum of the
  losses on past batches, at the current params.
- discounted_least_squares: a DiscountedLeastSquares, which contains functions that
  compute the gradient of the discounted sum of a linear model's past squared errors.
- recursive_least_squares: a RecursiveLeastSquares, which contains the functions `init`
  and `update`; `update` solves for the weights of a linear model after each example.
- effective_step: a learning rate. If the gradient is constant, the steps of
  `forgetting` approach those of plain gradient descent with this learning rate.
- rprop_report: a summary of the step sizes and of the sign changes of the gradient,
  read from the state of an optimizer of the Rprop family.

Names with a capital letter are the types of the states and results of these functions.
"""

from bpvariants.updates._project_spectral_norm import (
    project_spectral_norm as project_spectral_norm,
    ProjectSpectralNormState as ProjectSpectralNormState,
)
from bpvariants.updates.discounted._discounted_least_squares import (
    discounted_least_squares as discounted_least_squares,
    DiscountedLeastSquares as DiscountedLeastSquares,
    LeastSquaresState as LeastSquaresState,
)
from bpvariants.updates.discounted._forgetting import (
    effective_step as effective_step,
    forgetting as forgetting,
    scale_by_forgetting as scale_by_forgetting,
    ScaleByForgettingState as ScaleByForgettingState,
)
from bpvariants.updates.discounted._recursive_least_squares import (
    recursive_least_squares as recursive_least_squares,
    RecursiveLeastSquares as RecursiveLeastSquares,
    RecursiveLeastSquaresState as RecursiveLeastSquaresState,
)
from bpvariants.updates.discounted._replay import (
    Replay as Replay,
    replay as replay,
    ReplayState as ReplayState,
)
from bpvariants.updates.resilient._grprop import (
    grprop as grprop,
    GRpropState as GRpropState,
)
from bpvariants.updates.resilient._irprop_minus import (
    irprop_minus as irprop_minus,
    rprop as rprop,
)
from bpvariants.updates.resilient._manhattan import (
    manhattan as manhattan,
    scale_by_sign as scale_by_sign,
)
from bpvariants.updates.resilient._probabilistic_rprop import (
    probabilistic_rprop as probabilistic_rprop,
    ProbabilisticRpropState as ProbabilisticRpropState,
)
from bpvariants.updates.resilient._rprop import (
    scale_by_rprop as scale_by_rprop,
    ScaleByRpropState as ScaleByRpropState,
)
from bpvariants.updates.resilient._rprop_family import (
    half_back as half_back,
    irprop_plus as irprop_plus,
    rprop_minus as rprop_minus,
    rprop_plus as rprop_plus,
)
from bpvariants.updates.resilient._rprop_report import (
    rprop_report as rprop_report,
    RpropReport as RpropReport,
)
from bpvariants.updates.resilient._rprop_restore import RestoringState as RestoringState
