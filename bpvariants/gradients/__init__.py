"""Gradient rules: where a gradient comes from.

Static: backprop, with draw; layer_deltas of any function; feedback_alignment with
draw_feedback and alignment_angles, feedback_dense, feedback_conv. Through time: bptt,
truncated_bptt with stream and adaptive_truncation, artbp with growing_truncation,
discounted_weights; what is kept on the way: every, slots, budget, predicted_cost,
step_bytes. Forward in time: rtrl, snap, diagonal_rtrl; rflo and eprop with
random_feedback and AdaptiveFeedback; uoro, kf_rtrl, forward_gradient (unbiased); pes,
from losses alone; over_sequence makes rules of these. Under them all, and for losses of
one's own: unroll, parallel_unroll (newton), bidirectional, stack, mask_from_lengths.
Recurrent: fixed_point, recurrent_backprop; to the fixed point by relaxation, anderson
or broyden; back by the adjoints relax, anderson, broyden, cg, linear_solver (exact),
neumann, jfb, unrolled (approximate); jacobian_penalty keeps it in reach. What rules
take and return: `bpvariants.types.GradientRule`. How good an estimate is:
gradient_quality.
"""

from bpvariants._masking import mask_from_lengths as mask_from_lengths
from bpvariants.gradients._adaptive_truncation import (
    adaptive_truncation as adaptive_truncation,
    TruncationCertificate as TruncationCertificate,
)
from bpvariants.gradients._adjoints import (
    jfb as jfb,
    neumann as neumann,
    relax as relax,
)
from bpvariants.gradients._alignment_angles import (
    alignment_angles as alignment_angles,
    AlignmentAngles as AlignmentAngles,
)
from bpvariants.gradients._anderson import anderson as anderson
from bpvariants.gradients._artbp import artbp as artbp
from bpvariants.gradients._backprop import backprop as backprop
from bpvariants.gradients._bidirectional import bidirectional as bidirectional
from bpvariants.gradients._bptt import bptt as bptt
from bpvariants.gradients._broyden import broyden as broyden
from bpvariants.gradients._cg import cg as cg
from bpvariants.gradients._chain_picture import draw as draw
from bpvariants.gradients._checkpoint import (
    budget as budget,
    every as every,
    slots as slots,
)
from bpvariants.gradients._diagonal_rtrl import diagonal_rtrl as diagonal_rtrl
from bpvariants.gradients._discounted_weights import (
    discounted_weights as discounted_weights,
)
from bpvariants.gradients._draw_feedback import draw_feedback as draw_feedback
from bpvariants.gradients._eprop import eprop as eprop
from bpvariants.gradients._feedback import (
    AdaptiveFeedback as AdaptiveFeedback,
    random_feedback as random_feedback,
)
from bpvariants.gradients._feedback_alignment import (
    feedback_alignment as feedback_alignment,
)
from bpvariants.gradients._feedback_layers import (
    feedback_conv as feedback_conv,
    feedback_dense as feedback_dense,
)
from bpvariants.gradients._fixed_point import fixed_point as fixed_point
from bpvariants.gradients._forward_gradient import (
    forward_gradient as forward_gradient,
    ForwardGradientState as ForwardGradientState,
)
from bpvariants.gradients._gradient_quality import (
    gradient_quality as gradient_quality,
    GradientQuality as GradientQuality,
)
from bpvariants.gradients._growing_truncation import (
    growing_truncation as growing_truncation,
)
from bpvariants.gradients._influence_rule import InfluenceState as InfluenceState
from bpvariants.gradients._iteration import FixedPointInfo as FixedPointInfo
from bpvariants.gradients._jacobian_penalty import jacobian_penalty as jacobian_penalty
from bpvariants.gradients._kf_rtrl import (
    kf_rtrl as kf_rtrl,
    KFRTRLState as KFRTRLState,
    KroneckerFactors as KroneckerFactors,
)
from bpvariants.gradients._layer_deltas import (
    layer_deltas as layer_deltas,
    LayerDelta as LayerDelta,
)
from bpvariants.gradients._layer_info import (
    BackpropInfo as BackpropInfo,
    LayerInfo as LayerInfo,
)
from bpvariants.gradients._linear_solver import linear_solver as linear_solver
from bpvariants.gradients._newton_unroll import newton as newton
from bpvariants.gradients._over_sequence import over_sequence as over_sequence
from bpvariants.gradients._parallel_unroll import (
    parallel_unroll as parallel_unroll,
    ParallelInfo as ParallelInfo,
)
from bpvariants.gradients._pes import pes as pes, PESState as PESState
from bpvariants.gradients._predicted_cost import (
    predicted_cost as predicted_cost,
    step_bytes as step_bytes,
)
from bpvariants.gradients._quality_measures import QualityMeasures as QualityMeasures
from bpvariants.gradients._recurrent_backprop import (
    Equilibrium as Equilibrium,
    recurrent_backprop as recurrent_backprop,
)
from bpvariants.gradients._relaxation import relaxation as relaxation
from bpvariants.gradients._rflo import rflo as rflo
from bpvariants.gradients._rtrl import rtrl as rtrl
from bpvariants.gradients._snap import snap as snap
from bpvariants.gradients._stack import stack as stack
from bpvariants.gradients._step_bytes import StepBytes as StepBytes
from bpvariants.gradients._traces import TraceState as TraceState
from bpvariants.gradients._truncated_bptt import truncated_bptt as truncated_bptt
from bpvariants.gradients._truncated_stream import (
    stream as stream,
    TruncatedStream as TruncatedStream,
)
from bpvariants.gradients._unroll import unroll as unroll
from bpvariants.gradients._unrolled import unrolled as unrolled
from bpvariants.gradients._uoro import uoro as uoro, UOROState as UOROState
