"""A learner with the interface of the package river: features as dicts."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._settings import check_number, described
from bpvariants.training.learners._learner import Learner
from bpvariants.training.learners._trees import LEAF

_USUAL = 1e4  # a limit of usual numbers, which each floating dtype can hold


class DictLearner:
    """A regression learner whose inputs are dicts of features, as in the package river.

        y = learner.predict_one({"temperature": 21.5, "wind": 3.0})
        learner.learn_one({"temperature": 21.5, "wind": 3.0}, 22.1)

    Use it where a program expects the methods `predict_one` and `learn_one` of river,
    or where each step is a dict; otherwise :class:`Learner` itself is simpler, and its
    `learn` predicts and learns in one call.

    The network has a state, so the order of the calls matters: each `learn_one` is one
    step in time, and `predict_one` is for the step that `learn_one` takes next.

    Args:
      learner: a :class:`Learner` for single examples: x has shape [number of features],
        and target and y have one element. All three must be floating.
      features: names of the features, in the order in which the network reads them.
        Other features of a dict are ignored.
      missing: number that stands for a feature that is missing, None or NaN. By
        default, such a feature is an error, because NaN would stay in the state.

    Raises:
      ValueError: if the learner has other shapes or dtypes, or the names are not
        distinct; in the methods, if a feature is missing and `missing` is not given, or
        if a feature or the target is not a finite number.

    Example:
      >>> import os, tempfile, jax.numpy as jnp, optax
      >>> from bpvariants import gradients, training
      >>> step = lambda w, h, x: (h, x @ w)
      >>> rule = gradients.rtrl(step, lambda y, target: (y - target) ** 2)
      >>> sgd, w, inputs = optax.sgd(0.25), jnp.zeros(2), (jnp.zeros(2), jnp.array(0.0))
      >>> state = rule.init(w, jnp.zeros(()), inputs)
      >>> path = os.path.join(tempfile.mkdtemp(), "linear.learner")
      >>> pair = w, sgd.init(w)
      >>> training.export_learner(rule, sgd, step, pair, state, inputs, path)
      >>> learner = training.load_learner(path)
      >>> model = training.DictLearner(learner, ["size", "age"], missing=0.0)
      >>> model.predict_one({"size": 1.0, "age": 1.0})
      0.0
      >>> model.learn_one({"size": 1.0, "age": 1.0, "name": "ignored"}, 4.0)
      >>> model.predict_one({"size": 1.0})
      2.0
    """

    _supervised = True  # river asks for it

    def __init__(
        self,
        learner: Learner,
        features: Sequence[str],
        *,
        missing: float | None = None,
    ):
        if not isinstance(learner, Learner):
            raise ValueError(
                "learner must be a Learner, as training.load_learner returns it; got "
                f"{described(learner)}."
            )
        if isinstance(features, str) or len({*features}) != len([*features]):
            raise ValueError(
                f"features must be a list of distinct names, got {features!r}."
            )
        if missing is not None:
            check_number("missing", missing)
        self.learner, self.features, self.missing = learner, tuple(features), missing
        self._dtype, self._target = self._specs(learner)

    def _specs(self, learner: Learner) -> tuple[Any, jax.ShapeDtypeStruct]:
        """Check shapes and dtypes; return the dtype of x, and the target's spec."""
        ports = [learner.about[name] for name in ("x", "target", "y")]
        shapes = [[shape for shape, _ in port["leaves"]] for port in ports]
        arrays = all(port["structure"] == LEAF for port in ports)
        if not arrays or shapes[0] != [[len(self.features)]]:
            raise ValueError(
                f"features has {len(self.features)} names, so the learner must take x "
                f"of shape [{len(self.features)}]; it takes shapes {shapes[0]}."
            )
        if any(np.prod(each[0]) != 1 for each in shapes[1:]):
            raise ValueError(
                "learner must have a target and an output of one element, got shapes "
                f"{shapes[1][0]} and {shapes[2][0]}."
            )
        dtypes = [jnp.dtype(port["leaves"][0][1]) for port in ports]
        if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
            raise ValueError(
                "learner must have floating x, target and y, because features may have "
                f"decimals; got {', '.join(map(str, dtypes))}."
            )
        return dtypes[0], jax.ShapeDtypeStruct(tuple(shapes[1][0]), dtypes[1])

    def predict_one(self, x: Mapping[str, Any]) -> float:
        """Return the prediction for the features x; the state does not change."""
        return float(self.learner.predict(self._array(x)).item())

    def learn_one(self, x: Mapping[str, Any], y: float) -> None:
        """Learn from the features x and the target y, and go on by one time step."""
        shape, dtype = self._target.shape, self._target.dtype
        if type(y) is float and -_USUAL < y < _USUAL:  # the usual case
            self.learner.learn(self._array(x), np.array(y, dtype).reshape(shape))
            return
        with np.errstate(over="ignore"):
            target = np.full(shape, y, dtype)
        if not np.isfinite(target).all():
            raise ValueError(
                f"y must be a finite number, got {y!r}. If it is missing, do not call "
                "learn_one, or call learner.learn with weight=0."
            )
        self.learner.learn(self._array(x), target)

    def for_river(self) -> Any:
        """Return the same learner as a `river.base.Regressor`.

        Functions of river such as `evaluate.progressive_val_score`, and pipelines, take
        only objects of this class. Both objects share one state.

        Raises:
          ImportError: if the package river is missing.
        """
        from river import base  # pyright: ignore[reportMissingImports]

        kind: Any = type("RiverLearner", (DictLearner, base.Regressor), {})
        return kind(self.learner, self.features, missing=self.missing)

    def _array(self, x: Mapping[str, Any]) -> np.ndarray:
        get = x.get
        values: list[Any] = [get(name) for name in self.features]
        with suppress(TypeError, ValueError, OverflowError):
            if math.hypot(*values) < _USUAL:  # the usual case, which must be fast
                return np.array(values, self._dtype)
        with np.errstate(over="ignore"), suppress(TypeError, ValueError):
            array = np.array(values, self._dtype)
            if np.isfinite(array).all():
                return array
        return np.array(
            [
                self._number(name, value)
                for name, value in zip(self.features, values, strict=True)
            ],
            self._dtype,
        )

    def _number(self, name: str, value: Any) -> float:
        """Return a feature as a number, or `missing` if it is missing or NaN."""
        number = float("nan")
        if value is not None:
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"feature {name!r} must be a number, got {value!r}; encode texts "
                    "as numbers first."
                ) from None
            with np.errstate(over="ignore"):
                if np.isfinite(self._dtype.type(number)):
                    return number
        if self.missing is None or not np.isnan(number):
            raise ValueError(
                f"feature {name!r} must be a finite number, got {value!r}; give "
                "DictLearner(…, missing=0.0) to replace what is missing."
            )
        return float(self.missing)
