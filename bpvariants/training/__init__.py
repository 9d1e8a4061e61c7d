"""Training: a jitted loop in chunks, and sweeps of many runs under one `vmap`."""

from bpvariants.training.checkpoints._checkpoint import Checkpoint as Checkpoint
from bpvariants.training.checkpoints._read_checkpoint import (
    read_checkpoint as read_checkpoint,
)
from bpvariants.training.loop._fit import fit as fit
from bpvariants.training.loop._json_log import JsonLog as JsonLog
from bpvariants.training.loop._nonfinite import (
    diagnosis as diagnosis,
    NonFiniteError as NonFiniteError,
)
from bpvariants.training.loop._state import FitResult as FitResult
from bpvariants.training.sweeps._sweep import (
    sweep as sweep,
    SweepGroup as SweepGroup,
    SweepResult as SweepResult,
)
