"""PyTorch for comparisons, if it is installed."""

import importlib
import importlib.util
from typing import Any

import jax


def torch() -> Any | None:
    """Return the module torch, or None if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.import_module("torch")


def torch_device() -> str:
    """Return "cuda" if JAX runs on a GPU and PyTorch can use it, else "cpu"."""
    module = torch()
    on_gpu = jax.default_backend() == "gpu" and module and module.cuda.is_available()
    return "cuda" if on_gpu else "cpu"
