"""Updates: what is done with a gradient, each an optax.GradientTransformation.

Resilient: rprop (the same as irprop_minus), irprop_plus, rprop_minus, rprop_plus,
manhattan. Past gradients too: forgetting. The bare rules: scale_by_rprop,
scale_by_forgetting, scale_by_sign.
"""

from bpvariants.updates._forgetting import (
    forgetting as forgetting,
    scale_by_forgetting as scale_by_forgetting,
    ScaleByForgettingState as ScaleByForgettingState,
)
from bpvariants.updates._manhattan import (
    manhattan as manhattan,
    scale_by_sign as scale_by_sign,
)
from bpvariants.updates._rprop import (
    scale_by_rprop as scale_by_rprop,
    ScaleByRpropState as ScaleByRpropState,
)
from bpvariants.updates._rprop_family import (
    irprop_minus as irprop_minus,
    irprop_plus as irprop_plus,
    rprop as rprop,
    rprop_minus as rprop_minus,
    rprop_plus as rprop_plus,
)
