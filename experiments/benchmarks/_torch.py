"""PyTorch for comparisons, if it is installed.

The threads of PyTorch's OpenMP pool wait for work in a loop that occupies a core, which
would slow down whatever is timed next. OMP_WAIT_POLICY=passive lets them sleep instead.
The pool reads this setting when PyTorch is imported, so it is set before.
"""

import importlib
import importlib.util
import os
import sys
from typing import Any

import jax

WAITING = "OMP_WAIT_POLICY"


def torch() -> Any | None:
    """Return the module torch, or None if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    if "torch" not in sys.modules:
        os.environ.setdefault(WAITING, "passive")
    return importlib.import_module("torch")


def waiting() -> str:
    """Say how PyTorch's idle threads wait, for the note below the table."""
    if torch() is None:
        return "PyTorch is not installed."
    policy = os.environ.get(WAITING, "not set, so idle threads may occupy a core")
    return f"PyTorch runs with {WAITING}={policy}."


def torch_device() -> str:
    """Return "cuda" if JAX runs on a GPU and PyTorch can use it, else "cpu"."""
    module = torch()
    on_gpu = jax.default_backend() == "gpu" and module and module.cuda.is_available()
    return "cuda" if on_gpu else "cpu"
