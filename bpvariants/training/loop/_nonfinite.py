"""Errors for steps that are not finite, and the search for the first such value."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from bpvariants._tables import named_leaves
from bpvariants.diagnostics import first_nonfinite
from bpvariants.diagnostics._faults import count_nonfinite
from bpvariants.training.loop._chunk import Recipe, step_keys, take_step
from bpvariants.training.loop._state import FitResult, TrainState
from bpvariants.types import Loss, PyTree, Step

Diagnose = Callable[..., Any]


class NonFiniteError(FloatingPointError):
    """A step of :func:`fit` was not finite. What came before it is kept here.

    Attributes:
      step: number of the step, counted from 0.
      run: number of the run, or None if `fit` was given no runs.
      places: how many numbers are not finite in the "value", the "grads['w']", the
        "params['w']" after the step; by name, those that have any.
      params: before the step, the last that were finite.
      opt_state: likewise.
      carry: likewise, of a stateful rule, else None.
      batch: that the step was given.
      diagnosis: what `diagnose` found, or None.
      result: the :class:`FitResult` up to the step.
    """

    step: int
    run: int | None
    places: dict[str, int]
    params: PyTree
    opt_state: PyTree
    carry: PyTree
    batch: tuple
    diagnosis: Any
    result: FitResult


def diagnosis(step: Step, loss: Loss) -> Diagnose:
    """Return what `fit(diagnose=…)` calls to find the first NaN within a sequence.

    It is `diagnostics.first_nonfinite` of these functions, for data that are the
    arguments of a gradient rule: (carry, xs, targets, weights, mask, reset, initial).

    Args:
      step: one time step of the network, as the rule has it.
      loss: one loss for each example, as the rule has it.

    Returns:
      A function (params, carry, xs, targets, …) -> :class:`NonFinite`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from bpvariants import gradients, training
      >>> network = lambda w, h, x: (h + jnp.sqrt(w * x), h)  # √ has no slope at 0
      >>> loss = lambda y, target: (y - target) ** 2
      >>> batch = jnp.array(0.0), jnp.array([1.0, 0.0, 1.0]), jnp.zeros(3)
      >>> try:
      ...     training.fit(
      ...         gradients.bptt(network, loss), optax.sgd(0.1), 1.0, batch, steps=3,
      ...         diagnose=training.diagnosis(network, loss),
      ...     )
      ... except training.NonFiniteError as error:
      ...     print(error.step, error.places, error.diagnosis.first.time)
      0 {'grads': 1, 'params': 1} 1
    """

    def diagnose(
        params, carry, xs, targets, weights=None, mask=None, reset=None, initial=None
    ):
        more = {"weights": weights, "mask": mask, "reset": reset, "initial": initial}
        return first_nonfinite(step, loss, params, carry, xs, targets, **more)

    return diagnose


def explain(
    recipe: Recipe,
    state: TrainState,
    batch: Any,
    key: jax.Array | None,
    step: int,
    run: int | None,
    diagnose: Diagnose | None,
    result: FitResult,
) -> NonFiniteError:
    """Take the step that was not finite once more, and say what there is to see.

    `state` is that of the run, `key` too, and `batch` what a sample is drawn from.
    """
    sample_key, rule_key = jax.tree.map(
        lambda keys: keys[0], step_keys(recipe, key, jax.numpy.uint32([step]))
    )
    if recipe.sample is not None:
        batch = jax.jit(recipe.sample)(sample_key, batch)
    new, value, grads = jax.jit(partial(take_step, recipe))(state, batch, rule_key)
    parts = {"value": value, "grads": grads, "params": new.params}
    places = {
        name + path: int(count)
        for name, part in parts.items()
        for path, count in named_leaves(count_nonfinite(part))
        if count
    }
    found = None
    if diagnose is not None:
        carries = (state.carry,) if recipe.stateful else ()
        try:
            found = diagnose(state.params, *carries, *batch)
        except Exception as error:  # what went wrong first is what is to be told
            found = f"diagnose raised {error!r}"
    error = NonFiniteError(_message(step, run, places, found))
    error.step, error.run, error.places, error.diagnosis = step, run, places, found
    error.params, error.opt_state, error.carry = state
    error.batch, error.result = batch, result
    return error


def _message(step, run, places, found) -> str:
    where = ", ".join(f"{name} ({count})" for name, count in places.items())
    if not places:
        where = "nothing when it was taken again by itself, so it was close to overflow"
    lines = [
        f"step {step}{'' if run is None else f' of run {run}'} was not finite. Numbers "
        f"that are NaN or infinite after it: {where}. This error has the step's batch, "
        "and the params before it, which are finite."
    ]
    if found is None:
        lines.append(
            "To be told where in the sequence it begins, give diagnose="
            "training.diagnosis(step, loss); to go on without such steps, nonfinite="
            "'skip'."
        )
    else:
        lines.append(str(found.table() if hasattr(found, "table") else found))
    return "\n".join(lines)
