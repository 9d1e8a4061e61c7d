"""Comparison of gradient rules: loss, time, memory, and angle to the exact gradient."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from bpvariants._pictures import axes_for, draw_losses, label_ends
from bpvariants._settings import described
from bpvariants._tables import aligned, in_short, short
from bpvariants.diagnostics import compare as compare_gradients
from bpvariants.gradients import over_sequence
from bpvariants.training.loop._chunk import Recipe
from bpvariants.training.loop._data import batch_of, Source
from bpvariants.training.loop._fit import fit
from bpvariants.training.loop._rule_call import draw_batch, takes_key
from bpvariants.training.loop._state import FitResult, own, TrainState
from bpvariants.types import OnlineRule, PyTree

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ALIKE = 0.005  # largest relative difference of curves that cannot be told apart
KEYS = 16  # number of random gradients whose cosines are averaged


class RuleScore(NamedTuple):
    """Measures of one gradient rule in :func:`compare`.

    Attributes:
      loss: loss at the last training step, before its update.
      seconds: time of a training step, without compilation.
      temp_bytes: temporary memory in bytes that a chunk of steps needs; None if XLA
        does not report it.
      cosine: cosine of the angle between the rule's gradient and the exact gradient, at
        the initial params, from −1 to 1. For a rule that draws random numbers, it is
        the mean over 16 draws. NaN if one of the two gradients is 0.
      cosine_after: the same cosine at the params with which the rule's training ended.
      result: the :class:`FitResult` of the training.
    """

    loss: float
    seconds: float
    temp_bytes: int | None
    cosine: float
    cosine_after: float
    result: FitResult


class RuleComparison(NamedTuple):
    """Result of :func:`compare`.

    Attributes:
      scores: dict from the name of a rule to its :class:`RuleScore`.
    """

    scores: dict[str, RuleScore]

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self) -> str:
        """Return a text table with a line for each rule.

        The columns are the last loss, the time of a training step in milliseconds, the
        temporary memory in KiB, and the cosine to the exact gradient before and after
        the training. A column "ended" says if NaN ended a training.
        """
        header = ["rule", "loss", "ms/step", "KiB", "cosine", "after"]
        early = any(each.result.stopped for each in self.scores.values())
        rows = [header + ["ended"] * early]
        for name, each in self.scores.items():
            size = each.temp_bytes
            row = [name, short(each.loss), short(1000 * each.seconds)]
            row += ["?" if size is None else short(size / 1024)]
            row += [short(each.cosine), short(each.cosine_after)]
            rows.append(row + [each.result.stopped or ""] * early)
        return aligned(rows)

    def plot(self, axes: Any = None) -> Any:
        """Draw the loss of each rule over the training steps, labelled at its end.

        If a curve lies on an earlier one, its colour is drawn as dashes, and its label
        says so. `plot` needs Matplotlib.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.

        Returns:
          The Matplotlib axes of the picture.
        """
        axes, lines = axes_for("result.plot", axes), []
        for i, (name, each) in enumerate(self.scores.items()):
            values = np.asarray(each.result.values, float)
            style = {"color": COLOURS[i % len(COLOURS)]}
            style["linestyle"] = ("-", "--", ":")[i // len(COLOURS) % 3]
            if as_before := self._first_alike(name):
                style |= {"linestyle": (0, (4, 4)), "zorder": 3}
            steps = np.arange(1, len(values) + 1)
            label = f"{name} (as {as_before})" if as_before else name
            lines.append((draw_losses(axes, steps, values, **style), label))
        label_ends(axes, lines)
        return axes

    def _first_alike(self, name: str) -> str | None:
        """Return the first of the rules before `name` with the same curve, if any."""
        values = np.asarray(self.scores[name].result.values, float)
        for other, score in self.scores.items():
            if other == name:
                return None
            losses = np.asarray(score.result.values, float)
            if losses.shape == values.shape and np.allclose(
                losses, values, rtol=ALIKE, atol=0, equal_nan=True
            ):
                return other
        return None

    def _words(self) -> str:
        return ", ".join(
            f"{name}: loss {short(each.loss)}" for name, each in self.scores.items()
        )


def compare(
    rules: Mapping[str, Callable[..., Any] | OnlineRule],
    update: optax.GradientTransformation | optax.MultiSteps,
    params: PyTree,
    data: PyTree | list[tuple] | Callable[[int], Iterable[tuple]],
    *,
    steps: int,
    exact: str | None = None,
    chunk: int = 100,
    sample: Callable[[jax.Array, PyTree], tuple] | None = None,
    key: jax.Array | None = None,
) -> RuleComparison:
    """Train the same params by several gradient rules; compare the trainings.

    For each rule, the result has the last loss, the time of a training step, the
    temporary memory, and the cosine of the angle between the rule's gradient and the
    exact gradient. The trainings run one after another, each as by :func:`fit` with
    nonfinite="stop". If batches are drawn, all rules get the same batches.

    One comparison is one run of each rule. If losses differ by less than they do for
    other initial params and other keys, the difference says nothing; for several seeds,
    use :func:`sweep`. For the bias and the variance of a gradient, use
    `diagnostics.gradient_quality`. Time and memory are those of one training for each
    rule, and of a few gradients.

    Args:
      rules: dict from a name to a gradient rule (params, *batch) -> ((value, aux),
        grads), as in :func:`fit`; or to an online rule, which is run along the
        sequence.
      update: an optax transformation, the same for all rules.
      params: the initial params, the same for all rules.
      data: as in :func:`fit`: a tuple, which is the batch of every step; any pytree, if
        `sample` is given; a list of batches; or a function of the step. A generator
        cannot be used, because each rule reads the data from the beginning.
      steps: number of training steps of each rule.
      exact: name of the rule whose gradient is exact. Default: the first rule.
      chunk: number of training steps in one jitted scan.
      sample: function (key, data) -> batch that draws a mini-batch.
      key: a `jax.random.key` for `sample` and for the rules that draw random numbers.

    Returns:
      A :class:`RuleComparison`; `table()` returns it as text, and `plot(axes)` draws
      the losses.

    Raises:
      ValueError: if there are no rules, `exact` is not the name of a rule, or the data
        can be read only once. Errors of :func:`fit` are passed on, with the name of the
        rule.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import gradients, training
      >>> network = lambda w, h, x: (w["h"] * h + w["x"] * x, w["h"] * h + w["x"] * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rules = {
      ...     "bptt": gradients.bptt(network, loss),
      ...     "rtrl": gradients.rtrl(network, loss),
      ...     "one step": gradients.truncated_bptt(network, loss, every=1, lookback=1),
      ... }
      >>> params = {"h": jnp.array(0.5), "x": jnp.array(2.0)}
      >>> batch = jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> found = training.compare(rules, optax.sgd(0.01), params, batch, steps=10)
      >>> {name: round(score.cosine, 4) for name, score in found.scores.items()}
      {'bptt': 1.0, 'rtrl': 1.0, 'one step': 0.9915}
    """
    rules = _checked(rules, exact)
    inputs = _first_inputs(data, sample)
    cosine_of = _cosines(rules, exact, params, inputs, sample, key)
    scores = {}
    for name, rule in rules.items():
        try:
            cosine, draws = cosine_of(name)
            result = fit(
                rule, update, params, data, steps=steps, chunk=chunk, sample=sample,
                key=key if draws or sample is not None else None, nonfinite="stop",
            )  # fmt: skip
            values = result.values
            scores[name] = RuleScore(
                float(values[-1]) if values.size else float("nan"),
                result.seconds / max(values.size, 1),
                result.temp_bytes,
                cosine(params),
                cosine(result.params),
                result,
            )
        except Exception as error:
            error.add_note(f"This error is of the rule {name!r} in training.compare.")
            raise
    return RuleComparison(scores)


def _checked(rules: Any, exact: Any) -> dict[str, Callable[..., Any]]:
    """Check the rules; return them, with online rules run along sequences."""
    if not isinstance(rules, Mapping) or not rules:
        raise ValueError(
            "rules must be a dict of at least one rule, such as {'bptt': gradients.bptt"
            f"(step, loss)}}, got {described(rules)}."
        )
    if exact is not None and exact not in rules:
        raise ValueError(
            f"exact must be the name of a rule, one of {[*rules]}, got {exact!r}."
        )
    return {
        str(name): over_sequence(rule) if isinstance(rule, OnlineRule) else rule
        for name, rule in rules.items()
    }


def _first_inputs(data: Any, sample: Callable | None) -> PyTree:
    """Return the inputs of the first training step; check that they can be reread."""
    if sample is None and hasattr(data, "__next__"):
        raise ValueError(
            "data must be a tuple, a list of batches, or a function (step) -> iterable,"
            " because each rule reads the data from the beginning; got "
            f"{described(data)}, which can be read only once."
        )
    inputs = Source(data, sample is not None, 0).take(1)
    if inputs is None:
        raise ValueError("data has no batch; give at least one.")
    return inputs


def _cosines(
    rules: dict[str, Callable],
    exact: str | None,
    params: PyTree,
    inputs: PyTree,
    sample: Callable | None,
    key: jax.Array | None,
) -> Callable[[str], tuple[Callable[[PyTree], float], bool]]:
    """Return a function name -> (cosine of params, whether the rule takes a key)."""
    state = TrainState(own(params), None, None)

    def takes(rule: Callable) -> bool:
        recipe = Recipe(rule, None, sample, False, None, "ignore", ())
        return key is not None and takes_key(recipe, state, key, inputs, None)

    reference = rules[next(iter(rules)) if exact is None else exact]
    reference_takes = takes(reference)

    def of(name: str) -> tuple[Callable[[PyTree], float], bool]:
        rule = rules[name]
        draws = takes(rule)

        def cosine(params, inputs, key):
            batch = batch_of(inputs, 0)
            if sample is not None:
                batch = draw_batch(sample, jax.random.fold_in(key, 0), batch)

            known = None if reference_takes else reference(params, *batch)

            def one(key):
                fixed: Callable = lambda *_: known
                first = partial(reference, key=key) if reference_takes else fixed
                second = partial(rule, key=key) if draws else rule
                return compare_gradients(first, second, params, *batch).total.cosine

            if draws or reference_takes:
                return jax.lax.map(one, jax.random.split(key, KEYS)).mean()
            return one(key)

        compiled = jax.jit(cosine)
        return lambda params: float(compiled(own(params), inputs, key)), draws

    return of
