"""Online rules: compute gradients forwards in time, one step at a time.

Exact: `rtrl`, `diagonal_rtrl`. Unbiased: `uoro`, `kf_rtrl`, `forward_gradient`, `pes`.
Biased: `snap`, `rflo`, `eprop`. `over_sequence` turns each into a gradient rule.
"""

from bpvariants.gradients.online._diagonal_rtrl import (
    diagonal_rtrl as diagonal_rtrl,
)
from bpvariants.gradients.online._eprop import (
    eprop as eprop,
)
from bpvariants.gradients.online._forward_gradient import (
    forward_gradient as forward_gradient,
    ForwardGradientState as ForwardGradientState,
)
from bpvariants.gradients.online._influence.rule import (
    InfluenceState as InfluenceState,
)
from bpvariants.gradients.online._influence.traces import (
    TraceState as TraceState,
)
from bpvariants.gradients.online._kf_rtrl import (
    kf_rtrl as kf_rtrl,
    KFRTRLState as KFRTRLState,
    KroneckerFactors as KroneckerFactors,
)
from bpvariants.gradients.online._over_sequence import (
    over_sequence as over_sequence,
)
from bpvariants.gradients.online._pes import (
    pes as pes,
    PESState as PESState,
)
from bpvariants.gradients.online._rflo import (
    rflo as rflo,
)
from bpvariants.gradients.online._rtrl import (
    rtrl as rtrl,
)
from bpvariants.gradients.online._snap import (
    snap as snap,
)
from bpvariants.gradients.online._uoro import (
    uoro as uoro,
    UOROState as UOROState,
)
