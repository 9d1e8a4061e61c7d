"""Training: one jitted loop in chunks, its checkpoints on disk, and sweeps.

`fit` trains one run, or several in lanes; it returns a `FitResult`. `JsonLog` writes
the metrics to a file. `NonFiniteError` names the first step with NaN or infinity, and
`diagnosis` finds the time step of a sequence at which the NaN begins. `Checkpoint` has
the settings of checkpoints, and `read_checkpoint` reads the params of a checkpoint.
`locked` keeps other processes out of a folder. `sweep` trains every config
with every seed under `vmap`, in blocks that fit in memory; it returns a `SweepResult`.
"""

from bpvariants.training._lock import locked as locked
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
