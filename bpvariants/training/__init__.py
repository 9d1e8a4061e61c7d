"""Training: a jitted loop in chunks around any gradient rule and any update."""

from bpvariants.training._fit import fit as fit, FitResult as FitResult
