"""Gradient rules: functions that return a loss and its gradient.

There are four kinds of gradient rules, each kind in its own subpackage. All rules can
also be imported from `bpvariants.gradients`:

- `static`: backprop, layer_deltas, feedback_alignment (with alignment_weights,
  feedback_dense, feedback_conv).
- `through_time`: unroll, bptt, truncated_bptt (with stream), artbp (with
  growing_truncation), discounted_weights, parallel_unroll (with newton), stack,
  bidirectional, resets_from_dones. The subpackage `remat` has policies that save memory
  in backward passes through time.
- `online`, gradients computed forwards in time: rtrl, diagonal_rtrl, layerwise_rtrl,
  sketched_rtrl, snap, rflo, eprop (with random_feedback, AdaptiveFeedback), uoro,
  kf_rtrl, forward_gradient, pes. over_sequence turns an online rule
  into a gradient rule.
- `equilibrium`: fixed_point, recurrent_backprop, equilibrium_propagation,
  coupled_learning, jacobian_penalty; with `solvers` to compute the fixed point and
  `adjoints` to differentiate it.

See `bpvariants.types.GradientRule` for the arguments and results of a rule. The classes
of the states and infos that rules return are in the subpackages, for example
`gradients.online.InfluenceState`. Functions that measure and check gradients are in
`bpvariants.diagnostics`.
"""

from bpvariants._masking import (
    last_step_weights as last_step_weights,
    mask_from_lengths as mask_from_lengths,
)
from bpvariants.gradients import (
    equilibrium as equilibrium,
    online as online,
    remat as remat,
    static as static,
    through_time as through_time,
)
from bpvariants.gradients._feedback import (
    AdaptiveFeedback as AdaptiveFeedback,
    random_feedback as random_feedback,
)
from bpvariants.gradients.equilibrium import (
    adjoints as adjoints,
    coupled_learning as coupled_learning,
    equilibrium_propagation as equilibrium_propagation,
    fixed_point as fixed_point,
    jacobian_penalty as jacobian_penalty,
    recurrent_backprop as recurrent_backprop,
    solvers as solvers,
)
from bpvariants.gradients.online import (
    diagonal_rtrl as diagonal_rtrl,
    eprop as eprop,
    forward_gradient as forward_gradient,
    kf_rtrl as kf_rtrl,
    layerwise_rtrl as layerwise_rtrl,
    over_sequence as over_sequence,
    pes as pes,
    rflo as rflo,
    rtrl as rtrl,
    sketched_rtrl as sketched_rtrl,
    snap as snap,
    uoro as uoro,
)
from bpvariants.gradients.static import (
    alignment_weights as alignment_weights,
    backprop as backprop,
    feedback_alignment as feedback_alignment,
    feedback_conv as feedback_conv,
    feedback_dense as feedback_dense,
    layer_deltas as layer_deltas,
)
from bpvariants.gradients.through_time import (
    artbp as artbp,
    bidirectional as bidirectional,
    bptt as bptt,
    discounted_weights as discounted_weights,
    growing_truncation as growing_truncation,
    newton as newton,
    parallel_unroll as parallel_unroll,
    resets_from_dones as resets_from_dones,
    stack as stack,
    stream as stream,
    truncated_bptt as truncated_bptt,
    unroll as unroll,
)
