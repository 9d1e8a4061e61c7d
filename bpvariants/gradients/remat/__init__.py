"""Remat policies: which arrays BPTT stores, and which it recomputes.

`unroll`, `bptt`, `artbp` and `bidirectional` take a policy as the argument `remat=`.
"""

from bpvariants.gradients.remat._cost import (
    Cost as Cost,
    predicted_cost as predicted_cost,
    step_bytes as step_bytes,
)
from bpvariants.gradients.remat._policies import (
    budget as budget,
    every as every,
    offload as offload,
    slots as slots,
)
from bpvariants.gradients.remat._step_bytes import (
    StepBytes as StepBytes,
)
