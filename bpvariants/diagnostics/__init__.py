"""Why a gradient is wrong, vanishing or merely different: numbers to look at.

Is it a gradient: check_gradients. How do two rules differ: compare. How good is an
estimate: gradient_quality; alignment_angles of feedback alignment. How far back must
errors travel: adaptive_truncation. Does it vanish:
gradient_flow, jacobian_spectrum. Where does the NaN come from: first_nonfinite,
first_nonfinite_update. Is all of it moving: update_report. What does it need:
memory_report, cost_report.
Each returns a NamedTuple whose table() is text.
"""

from bpvariants.diagnostics._adaptive_truncation import (
    adaptive_truncation as adaptive_truncation,
    TruncationCertificate as TruncationCertificate,
)
from bpvariants.diagnostics._alignment_angles import (
    alignment_angles as alignment_angles,
    AlignmentAngles as AlignmentAngles,
)
from bpvariants.diagnostics._check_gradients import (
    check_gradients as check_gradients,
    GradientCheck as GradientCheck,
)
from bpvariants.diagnostics._compare import (
    Agreement as Agreement,
    compare as compare,
    Comparison as Comparison,
)
from bpvariants.diagnostics._compiled_reports import (
    cost_report as cost_report,
    CostReport as CostReport,
    memory_report as memory_report,
    MemoryReport as MemoryReport,
)
from bpvariants.diagnostics._faults import Fault as Fault
from bpvariants.diagnostics._first_nonfinite import (
    first_nonfinite as first_nonfinite,
    NonFinite as NonFinite,
)
from bpvariants.diagnostics._first_nonfinite_update import (
    first_nonfinite_update as first_nonfinite_update,
    NonFiniteUpdate as NonFiniteUpdate,
)
from bpvariants.diagnostics._gradient_flow import (
    gradient_flow as gradient_flow,
    GradientFlow as GradientFlow,
)
from bpvariants.diagnostics._gradient_quality import (
    gradient_quality as gradient_quality,
    GradientQuality as GradientQuality,
)
from bpvariants.diagnostics._jacobian_spectrum import (
    jacobian_spectrum as jacobian_spectrum,
    JacobianSpectrum as JacobianSpectrum,
)
from bpvariants.diagnostics._quality_measures import QualityMeasures as QualityMeasures
from bpvariants.diagnostics._update_report import (
    update_report as update_report,
    UpdateMeasures as UpdateMeasures,
    UpdateReport as UpdateReport,
)
