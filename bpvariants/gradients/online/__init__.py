"""Online rules: gradients computed forwards in time, one step at a time.

`rtrl` and `diagonal_rtrl` are exact. `uoro`, `kf_rtrl`, `forward_gradient` and `pes`
are unbiased (`pes` up to an error of order σ²). `snap`, `rflo`, `eprop`,
`layerwise_rtrl` and `sketched_rtrl` are biased; `sketched_rtrl` bounds its error.
`over_sequence` turns an online rule into a gradient rule.
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
from bpvariants.gradients.online._layerwise_rtrl import (
    layerwise_rtrl as layerwise_rtrl,
    LayerwiseRTRLState as LayerwiseRTRLState,
)
from bpvariants.gradients.online._low_rank import (
    LowRankFactors as LowRankFactors,
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
from bpvariants.gradients.online._sketched_rtrl import (
    sketched_rtrl as sketched_rtrl,
    SketchedRTRLState as SketchedRTRLState,
)
from bpvariants.gradients.online._snap import (
    snap as snap,
)
from bpvariants.gradients.online._uoro import (
    uoro as uoro,
    UOROState as UOROState,
)
