"""Training: a jitted loop in chunks, and sweeps of many runs under one `vmap`."""

from bpvariants.training._fit import fit as fit, FitResult as FitResult
from bpvariants.training._sweep import (
    sweep as sweep,
    SweepGroup as SweepGroup,
    SweepResult as SweepResult,
)
