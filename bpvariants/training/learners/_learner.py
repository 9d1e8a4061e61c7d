"""A learner that was read from a file: it predicts, learns, and saves its state."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._settings import described
from bpvariants.training.learners._file import Content, program, read, write
from bpvariants.training.learners._layout import from_json, packed, unpacked
from bpvariants.training.learners._ports import as_array, Port
from bpvariants.training.learners._trees import LEAF, tree_of
from bpvariants.types import PyTree

DEFAULTS = {"weight": 1, "mask": True, "reset": False}


class Learner:
    """A network that predicts and learns, one time step at a time.

    :func:`load_learner` makes it from a file of :func:`export_learner`. Its programs
    are compiled at their first call. A later call costs the computation, and the time
    that Python and JAX take for a call; `python -m experiments benchmarks --only
    learner` measures both. Arrays are sent to the device only if they are NumPy arrays.
    A call that raises an error, or that Ctrl-C interrupts, leaves the state as it was.

    Attributes:
      path: the file that the learner was read from.
      about: dict of what the file says: versions, platforms, structures and shapes.

    Example:
      >>> import os, tempfile, jax.numpy as jnp, optax
      >>> from bpvariants import gradients, training
      >>> step = lambda w, h, x: (h + w * x, h + w * x)
      >>> rule = gradients.rtrl(step, lambda y, target: (y - target) ** 2)
      >>> sgd, w, h = optax.sgd(0.1), jnp.array(1.0), jnp.array(0.0)
      >>> inputs = jnp.array(0.0), jnp.array(0.0)
      >>> path = os.path.join(tempfile.mkdtemp(), "sum.learner")
      >>> state = rule.init(w, h, inputs)
      >>> pair = w, sgd.init(w)
      >>> training.export_learner(rule, sgd, step, pair, state, inputs, path)
      >>> learner = training.load_learner(path)
      >>> learner
      Learner(x float32[], target float32[]; state of 4 numbers; cpu)
      >>> learner.predict(2.0).item()
      2.0
      >>> y, value = learner.learn(2.0, 2.0)
      >>> learner.save(path)  # to go on later, here or elsewhere
      >>> training.load_learner(path).predict(1.0).item()
      3.0
    """

    def __init__(self, path: str | os.PathLike, content: Content):
        """Take the content of a file; use :func:`load_learner` instead."""
        self.path, self.about, self._content = path, content.about, content
        self._layout = from_json(content.about["layout"])
        self._x = Port("x", content.about["x"])
        self._target = Port("target", content.about["target"])
        self._flags = {n: Port(n, each) for n, each in content.about["flags"].items()}
        self._resets = [name for name in self._flags if name == "reset"]
        structure = content.about["y"]["structure"]
        self._one = structure == LEAF
        self._as_y = lambda ys: tree_of(structure, iter(ys))
        self._predict = jax.jit(program(path, content.predict).call)
        self._learn = jax.jit(program(path, content.learn).call)
        self._vectors = [jnp.asarray(vector) for vector in content.vectors]

    def predict(self, x: PyTree, *, reset: Any = None) -> PyTree:
        """Return the output y of the network for x; the state does not change.

        Args:
          x: the input of one time step, with the exported shapes [*batch, ...].
            Numbers and NumPy arrays are cast to the exported dtypes.
          reset: [*batch] bool, whether the carry is first set to its initial value.
            Only if the learner was exported with this flag.

        Raises:
          ValueError: if x has another structure, shape or kind of numbers.
        """
        none = reset is None and not self._resets
        flags = [] if none else self._given({"reset": reset}, self._resets)
        ys = self._predict(self._vectors, self._x(x), flags)
        return ys[0] if self._one else self._as_y(ys)

    def learn(
        self,
        x: PyTree,
        target: PyTree,
        *,
        weight: Any = None,
        mask: Any = None,
        reset: Any = None,
    ) -> tuple[PyTree, jax.Array]:
        """Predict, learn from one time step, and return (y, value).

        The prediction y was made before the learning, so that y, or the loss `value`,
        may be scored: each target is then predicted before it is seen (prequential
        evaluation). The carry of the network goes on by one step.

        Args:
          x: the input of one time step, with the exported shapes [*batch, ...].
          target: what the loss compares with y, with the exported shapes.
          weight: [*batch] weights of the losses, by default 1. If no loss counts, the
            network takes its step, but the params do not change.
          mask: [*batch] bool, False in padding, by default True.
          reset: [*batch] bool, whether the carry is first set to its initial value, by
            default False.

        Weight, mask and reset are taken only if the learner was exported with the flag.

        Raises:
          ValueError: if an argument has another structure, shape or kind of numbers, or
            a flag was not exported.
        """
        flags: list[Any] = []
        if self._flags or not weight is mask is reset is None:
            given = {"weight": weight, "mask": mask, "reset": reset}
            flags = self._given(given, self._flags)
        vectors, ys, value = self._learn(
            self._vectors, self._x(x), self._target(target), flags
        )
        self._vectors = vectors
        return (ys[0] if self._one else self._as_y(ys)), value

    def _given(self, given: dict[str, Any], names: Any) -> list[Any]:
        """Return flags as the programs take them; a missing flag has its default."""
        for name, flag in given.items():
            if flag is not None and name not in self._flags:
                raise ValueError(
                    f"{name} was given, but the learner was exported without it; "
                    f"export it with flags={{{name!r}: {DEFAULTS[name]}}}."
                )
        if not names:
            return []
        flags = []
        for name in names:
            (spec,) = self._flags[name].specs
            flag = DEFAULTS[name] if given[name] is None else given[name]
            flag = np.broadcast_to(flag, spec.shape) if np.ndim(flag) == 0 else flag
            flags.append(as_array(name, flag, spec))
        return flags

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The state as NumPy arrays, {name: array}.

        The names begin with "params", "opt_state", "rule" or "key". A dict with the
        same names, shapes and dtypes may be assigned to it, for example to change a
        learning rate of `optax.inject_hyperparams`, or to go back to an earlier state.
        """
        leaves = unpacked([np.asarray(each) for each in self._vectors], self._layout)
        names = [leaf.name for leaf in self._layout.leaves]
        return {name: np.array(leaf) for name, leaf in zip(names, leaves, strict=True)}

    @state.setter
    def state(self, new: Mapping[str, Any]) -> None:
        names = [leaf.name for leaf in self._layout.leaves]
        if not isinstance(new, Mapping):
            raise ValueError(
                "state must be a dict with the names of learner.state, got "
                f"{described(new)}."
            )
        if set(new) != set(names):
            raise ValueError(
                "state must be a dict with the names of learner.state; missing: "
                f"{sorted(set(names) - set(new))}, unknown: "
                f"{sorted(map(str, set(new) - set(names)))}."
            )
        leaves = []
        for leaf in self._layout.leaves:
            spec = jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(leaf.dtype))
            name = f"state[{leaf.name!r}]"
            leaves.append(np.asarray(as_array(name, new[leaf.name], spec)))
        vectors = packed(leaves, self._layout, np)
        self._vectors = [jnp.asarray(vector) for vector in vectors]

    def save(self, path: str | os.PathLike) -> None:
        """Write a file with both programs and the state of now, for `load_learner`.

        An older file of this name is replaced at once, when the new one is complete.
        """
        vectors = [np.asarray(vector) for vector in self._vectors]
        write(path, self._content._replace(vectors=vectors))

    def __deepcopy__(self, memo: Any) -> "Learner":
        vectors = [np.asarray(vector) for vector in self._vectors]
        return Learner(self.path, self._content._replace(vectors=vectors))

    def __repr__(self):
        size = sum(leaf.size for leaf in self._layout.leaves)
        ports = ", ".join(map(repr, (self._x, self._target, *self._flags.values())))
        where = ", ".join(self.about["platforms"])
        return f"Learner({ports}; state of {size} numbers; {where})"


def load_learner(path: str | os.PathLike) -> Learner:
    """Read a learner from a file of :func:`export_learner` or of :meth:`Learner.save`.

    Only use files that you trust: their programs run in your process. They can compute,
    but cannot read files or call Python.

    Args:
      path: the file.

    Returns:
      A :class:`Learner`, with the state of the file.

    Raises:
      ValueError: if the file is missing, damaged, or no file of a learner; or if this
        process cannot run it, because it was exported for another platform, with
        another version of the calling convention of `jax.export`, or in 64 bits.
      ImportError: if the package flatbuffers is missing, which `jax.export` needs.

    Example:
      >>> from bpvariants import training
      >>> training.load_learner("gru.learner")
      Traceback (most recent call last):
      ValueError: path: there is no file gru.learner.
    """
    return Learner(path, read(path))
