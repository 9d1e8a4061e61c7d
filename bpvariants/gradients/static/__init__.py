"""Static backpropagation: gradients through the layers of a network.

Two functions return exact derivatives: `backprop` takes a list of layers, and also
returns every factor of the chain rule; `layer_deltas` takes any function. A third
function, `feedback_alignment`, returns a biased estimate of the gradient, because it
sends errors back through separate feedback weights.
"""

from bpvariants.gradients.static._alignment_weights import (
    alignment_weights as alignment_weights,
)
from bpvariants.gradients.static._backprop import (
    backprop as backprop,
)
from bpvariants.gradients.static._feedback_alignment import (
    feedback_alignment as feedback_alignment,
)
from bpvariants.gradients.static._feedback_layers import (
    feedback_conv as feedback_conv,
    feedback_dense as feedback_dense,
)
from bpvariants.gradients.static._layer_deltas import (
    layer_deltas as layer_deltas,
    LayerDelta as LayerDelta,
)
from bpvariants.gradients.static._layer_info import (
    BackpropInfo as BackpropInfo,
    LayerInfo as LayerInfo,
)
from bpvariants.gradients.static._rule_types import (
    BackpropRule as BackpropRule,
    FeedbackAlignmentRule as FeedbackAlignmentRule,
)
