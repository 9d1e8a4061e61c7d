"""Variants of backpropagation as pure JAX functions and optax transformations."""

from bpvariants import (
    adapters as adapters,
    cells as cells,
    diagnostics as diagnostics,
    gradients as gradients,
    training as training,
    types as types,
    updates as updates,
)

__version__ = "0.2.0"
