"""Bias, variance and angle of a rule's gradient, relative to the exact gradient.

Notation: g is the exact gradient. ĝ_k is a rule's estimate of g with the k-th of K
random keys, and ḡ is the mean of all ĝ_k. The bias is relative to the norm of g, and
the variance is relative to the squared norm of g:

    bias = ‖ḡ − g‖ / ‖g‖,    variance V = Σ_k ‖ĝ_k − ḡ‖² / (K − 1) / ‖g‖².

The mean ḡ of K estimates differs from the expectation of ĝ. The expected square of this
difference is V / K, relative to ‖g‖². For an unbiased rule, therefore, the measured
bias is not 0, but about as large as the standard error √(V / K) of ḡ.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count
from bpvariants._dtypes import widen
from bpvariants._tables import in_short
from bpvariants.diagnostics._quality_measures import (
    measures_of,
    QualityMeasures,
    QualitySums,
    sums_of,
)
from bpvariants.diagnostics._quality_report import draw, in_words, Measure, tabulate
from bpvariants.gradients.online._over_sequence import over_sequence
from bpvariants.gradients.through_time._bptt import bptt
from bpvariants.types import GradientRule, Loss, OnlineRule, PyTree, Step


class GradientQuality(NamedTuple):
    """Result of :func:`gradient_quality`: measures of a rule's gradient.

    `gradient_quality` may run under `vmap` or `lax.map`, for example over the params at
    several times during a training. In this case, all arrays of the result have a first
    axis for the times during the training, and `table` and `plot` show the measures at
    each time instead of the measures of each array of params.
    """

    total: QualityMeasures  # for all params together
    leaves: PyTree  # like params: QualityMeasures of each array

    def __repr__(self) -> str:
        return in_short(self, lambda: in_words(self))

    def table(self, steps: Sequence[Any] | None = None) -> str:
        """Return text: a line for all params together, then a line for each array.

        If the measures are from several times during a training, the text has one line
        for each time, with the measures for all params together. `steps` may contain
        the index of the training step at each time.
        """
        return tabulate(self, steps)

    def plot(
        self,
        axes: Any = None,
        measure: Measure = "cosine",
        steps: Sequence[Any] | None = None,
        label: str | None = None,
    ) -> Any:
        """Draw one measure, for each array or over training steps; return the axes.

        Error bars show the standard deviation of the cosine, or the standard error of
        the bias. Measures of several rules may be drawn into the same Matplotlib
        `axes`, each with its own `label`. Default: the axes of a new pyplot figure.
        """
        return draw(self, axes, measure, steps, label)


def gradient_quality(
    rule: GradientRule | OnlineRule,
    step: Step,
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    *,
    keys: jax.Array | None = None,
    at_once: int | None = None,
    reference: GradientRule | OnlineRule | None = None,
    weights: jax.typing.ArrayLike | None = None,
    mask: jax.typing.ArrayLike | None = None,
    reset: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
) -> GradientQuality:
    """Compare a rule's gradient for a sequence with the exact gradient from BPTT.

        bias ‖ḡ − g‖ / ‖g‖,  its standard error √(V / K),  variance V, cosine, ‖ĝ‖ / ‖g‖

    Here g is the exact gradient, and ĝ is one of K estimates by the rule. Each estimate
    has its own random key, and ḡ is the mean of the K estimates. If a rule is unbiased,
    the measured bias is about as large as its standard error. If the measured bias is
    many times the standard error, the rule is biased. `step` and `loss` define the
    exact gradient. The rule contains its own step and loss; the rule's step may differ
    from `step`, for example in its precision.

    Params stay constant along the sequence, because every rule approximates the
    gradient at fixed params. To see how the quality changes during a training, measure
    it for the params at several times, as in the last lines of the example.

    `gradient_quality` is a pure function that can be jitted. Memory: K·p array elements
    for K gradients of p parameters, and `at_once` times the memory of the rule. Time: K
    gradients of the rule and one exact gradient.

    Args:
      rule: a gradient rule, or an online rule; the online rule is run along the
        sequence.
      step: one time step of the network.
      loss: function (y, target) -> losses [*batch], one for each example.
      params: the parameters θ of the network.
      carry: the network's carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: targets of the loss, leaves [T, *batch, ...].
      keys: [K]: keys for a random rule, such as `jax.random.split(key, 100)`; None for
        a deterministic rule.
      at_once: number of keys with which the rule runs in parallel, under `vmap`.
        Default: all keys.
      reference: the rule that computes the exact gradient. Default: `bptt(step, loss)`.
      weights: [T, *batch]: weight of each loss.
      mask: [T, *batch] bool, False in padding.
      reset: [T, *batch] bool; True sets the carry to `initial` before the time step.
      initial: the carry after a reset. Default: `carry`.

    Returns:
      A :class:`GradientQuality`; `table()` returns it as text, and `plot(axes)` draws
      it.

    Raises:
      ValueError: if keys does not have one axis, or at_once is not an integer of at
        least 1; if the rule draws random numbers, and keys is None. Errors that the
        rule raises are passed on.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = gradients.truncated_bptt(integrate, loss, every=1, lookback=1)
      >>> of = lambda w: diagnostics.gradient_quality(
      ...     rule, integrate, loss, w, jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      ... )
      >>> print(of(2.0).table())  # 6 where 10 is right
             norm  bias ± variance error cosine ± ratio signs zeros
      total 10.00 .4000 0        0 .4000  1.000 0 .6000 1.000     0
      >>> training = jax.lax.map(of, jnp.array([2.0, 1.0, 0.5]))
      >>> training.total.bias.tolist() == [of(2.0).total.bias.item()] * 3
      True
    """
    exactly = bptt(step, loss) if reference is None else _along("reference", reference)
    estimator = _along("rule", rule)
    given = {"weights": weights, "mask": mask, "reset": reset, "initial": initial}
    args = params, carry, xs, targets
    exact = widen(exactly(*args, **given)[1])
    if keys is None and at_once is not None:
        raise ValueError(
            "at_once is the number of keys to use at a time, but there are no keys; "
            "give keys=jax.random.split(key, 100), or leave at_once out."
        )
    if keys is None:
        grads = _without_key(estimator, *args, **given)
        estimates = jax.tree.map(lambda g: g[None], widen(grads))
    else:
        draws = _check(keys, at_once)
        estimate = lambda key: widen(estimator(*args, **given, key=key)[1])
        estimates = jax.lax.map(estimate, keys, batch_size=draws)
    dtype = jnp.result_type(*jax.tree.leaves(exact))
    sums = jax.tree.map(partial(sums_of, dtype=dtype), estimates, exact)
    is_sums = lambda node: isinstance(node, QualitySums)
    together = jax.tree.map(
        lambda *parts: sum(parts), *jax.tree.leaves(sums, is_leaf=is_sums)
    )
    measures = partial(measures_of, drawn=keys is not None)
    return GradientQuality(
        measures(together), jax.tree.map(measures, sums, is_leaf=is_sums)
    )


def _along(name: str, rule: GradientRule | OnlineRule) -> Callable[..., Any]:
    if isinstance(rule, OnlineRule):
        return over_sequence(rule)
    if not callable(rule):
        raise ValueError(
            f"{name} must be a gradient rule or an online rule, such as "
            f"gradients.rtrl(step, loss); got {rule!r}."
        )
    return rule


def _without_key(rule: Callable[..., Any], *args: PyTree, **given: Any) -> PyTree:
    """Return the gradient of a rule; if the rule asks for a key, ask for keys."""
    try:
        return rule(*args, **given)[1]
    except ValueError as error:
        if "key must be given" not in str(error):
            raise
        raise ValueError(
            "rule draws random numbers, so gradient_quality needs keys, one for each "
            "draw: give keys=jax.random.split(jax.random.key(0), 100)."
        ) from error


def _check(keys: jax.Array, at_once: int | None) -> int:
    """Check the keys; return the number of keys to process in parallel."""
    if not hasattr(keys, "dtype"):
        raise ValueError(
            f"keys must be an array of keys, such as jax.random.split(key, 100), got "
            f"{keys!r}."
        )
    single = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys.ndim != (1 if single else 2) or not len(keys):
        raise ValueError(
            "keys must have one axis, with a key for each draw; got shape "
            f"{keys.shape} of {keys.dtype}. Use jax.random.split(key, 100)."
        )
    if at_once is None:
        return len(keys)
    check_count("at_once", at_once, remedy="None uses all keys at once")
    return min(int(at_once), len(keys))
