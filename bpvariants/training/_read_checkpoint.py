"""The params of a checkpoint, such as the best, to use them."""

import os

from bpvariants.training._checkpoint import Checkpoint
from bpvariants.training._state import own
from bpvariants.training._store import Store
from bpvariants.types import PyTree


def read_checkpoint(
    directory: str | os.PathLike, params: PyTree, *, best: bool = False
) -> tuple[int, PyTree]:
    """Return the step and the params of a checkpoint that :func:`fit` wrote.

    Args:
      directory: the folder of checkpoints.
      params: what they are like: arrays of their shapes, dtypes and shardings, such as
        those that the training began with; with `runs`, all of them.
      best: those of the best checkpoint, as `Checkpoint(best=…)` has it; by default
        those of the last one.

    Returns:
      (step, params).

    Raises:
      ValueError: if there is no such checkpoint, or its params are not like those.

    Example:
      >>> import tempfile, jax, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> folder = tempfile.mkdtemp()
      >>> checkpoint = training.Checkpoint(folder, keep=1, best="value")
      >>> given = {"steps": 3, "chunk": 1, "checkpoint": checkpoint}
      >>> batches = [(3.0,), (0.0,), (9.0,)]
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, batches, **given)
      >>> result.values.tolist()
      [9.0, 9.0, 81.0]
      >>> step, w = training.read_checkpoint(folder, 0.0, best=True)
      >>> step, w.item()
      (1, 3.0)
    """
    params = own(params)
    store = Store(Checkpoint(directory, best="value"))
    try:
        return store.params(params, best)
    finally:
        store.close()
