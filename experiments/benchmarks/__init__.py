"""Benchmarks that time a computation in bpvariants and in similar libraries."""

from experiments.benchmarks._main import Config as Config, main as main
from experiments.benchmarks._online import online as online
from experiments.benchmarks._sweep import sweep as sweep
from experiments.harness.timing import (
    Entrants as Entrants,
    Measured as Measured,
    race as race,
)
