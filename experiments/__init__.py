"""Studies of gradient rules and updates on real data: `python -m experiments`.

`experiments.load(folder).predict(x)` asks a trained model; see :func:`load`.
"""

from pathlib import Path
from typing import Any


def load(folder: str | Path) -> Any:
    """Return the trained model in the folder of a finished run of an application.

    `load(folder).predict(x)` returns an :class:`~experiments.harness.models.Answer`.
    Its `value` is the answer, and `unlike` says whether the input is unlike the
    training inputs. Which `x` a model reads is documented in the function
    `make_predict` of experiments/applications/<study>/ask.py. The command `python -m
    experiments ask FOLDER --wav FILE` does the same.

    Raises:
      DataError: if the folder has no complete model that this version can read.
    """
    from experiments.harness import models

    return models.load(folder)
