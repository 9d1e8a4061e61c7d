"""Training: a loop over jitted chunks of steps, checkpoints on disk, and sweeps.

`fit` trains one run, or several independent runs under `vmap`, and returns a
`FitResult`. `JsonLog` writes metrics to a file. The error `NonFiniteError` contains the
first training step with NaN or infinity. `diagnosis` makes a function that finds the
time step of the sequence at which the first NaN or infinity occurs. `Checkpoint`
contains the settings of checkpoints, and `read_checkpoint` reads params from a
checkpoint. `locked` locks a folder, so that no other process uses it at the same time.
`sweep` trains every config with every seed under `vmap`, in blocks of runs that fit in
memory, and returns a `SweepResult`. `compare` trains the same params by several
gradient rules, and returns a `RuleComparison` of their losses, times, memory and
gradients. `save` writes params to a folder, and `load` reads them. `export_learner`
writes a network that predicts and learns to one file; `load_learner` reads it in any
process, as a `Learner`. `DictLearner` gives a learner the interface of the package
river.
"""

from bpvariants.training._lock import locked as locked
from bpvariants.training.checkpoints._checkpoint import Checkpoint as Checkpoint
from bpvariants.training.checkpoints._read_checkpoint import (
    read_checkpoint as read_checkpoint,
)
from bpvariants.training.checkpoints._saved import load as load, save as save
from bpvariants.training.learners._dict_learner import DictLearner as DictLearner
from bpvariants.training.learners._export import export_learner as export_learner
from bpvariants.training.learners._learner import (
    Learner as Learner,
    load_learner as load_learner,
)
from bpvariants.training.loop._compare import (
    compare as compare,
    RuleComparison as RuleComparison,
    RuleScore as RuleScore,
)
from bpvariants.training.loop._fit import fit as fit
from bpvariants.training.loop._json_log import JsonLog as JsonLog
from bpvariants.training.loop._nonfinite import (
    diagnosis as diagnosis,
    NonFiniteError as NonFiniteError,
)
from bpvariants.training.loop._state import FitResult as FitResult
from bpvariants.training.sweeps._result import (
    SweepGroup as SweepGroup,
    SweepResult as SweepResult,
)
from bpvariants.training.sweeps._sweep import sweep as sweep
