"""Diagnostics: find wrong, biased, vanishing or NaN gradients; report memory and cost.

- Is a rule's gradient the derivative of its loss? check_gradients
- How do the gradients of two rules differ? compare
- How close is a rule's gradient to the exact gradient? gradient_quality; for feedback
  alignment, alignment_angles
- How many steps must truncated BPTT look back? adaptive_truncation
- Do error signals vanish or explode over time? gradient_flow, jacobian_spectrum
- Where does the first NaN occur? first_nonfinite finds the time step of a sequence and
  the array; first_nonfinite_update finds the update of a training and the array
- How large is an update, compared with each parameter array? update_report
- How much memory does a compiled function need? memory_report. How many operations does
  it perform? cost_report

Each of these functions returns a NamedTuple. The result of each function, except
adaptive_truncation, has a method `table()` that returns the measurements as text.
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
