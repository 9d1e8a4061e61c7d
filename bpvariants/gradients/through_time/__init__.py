"""Backpropagation through time: gradients computed backwards along a sequence.

The exact rules are `unroll` under `jax.grad`, `bptt` and `parallel_unroll`. `artbp` is
unbiased. `truncated_bptt` is biased. `resets_from_dones` makes the argument `reset`.
"""

from bpvariants.gradients.through_time._artbp import (
    artbp as artbp,
)
from bpvariants.gradients.through_time._bidirectional import (
    bidirectional as bidirectional,
)
from bpvariants.gradients.through_time._bptt import (
    bptt as bptt,
)
from bpvariants.gradients.through_time._discounted_weights import (
    discounted_weights as discounted_weights,
)
from bpvariants.gradients.through_time._growing_truncation import (
    growing_truncation as growing_truncation,
)
from bpvariants.gradients.through_time._parallel_info import (
    ParallelInfo as ParallelInfo,
)
from bpvariants.gradients.through_time._parallel_newton import (
    newton as newton,
)
from bpvariants.gradients.through_time._parallel_unroll import (
    parallel_unroll as parallel_unroll,
)
from bpvariants.gradients.through_time._resets_from_dones import (
    resets_from_dones as resets_from_dones,
)
from bpvariants.gradients.through_time._stack import (
    stack as stack,
)
from bpvariants.gradients.through_time._truncated_bptt import (
    truncated_bptt as truncated_bptt,
)
from bpvariants.gradients.through_time._truncated_stream import (
    stream as stream,
    TruncatedStream as TruncatedStream,
)
from bpvariants.gradients.through_time._unroll import (
    unroll as unroll,
)
