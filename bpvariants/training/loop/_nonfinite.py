"""Error class for training steps with NaN; function that locates the first NaN."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from bpvariants._checks import check_step_function
from bpvariants._losses import check_loss_function
from bpvariants._tables import named_leaves
from bpvariants.diagnostics import first_nonfinite
from bpvariants.diagnostics._faults import count_nonfinite
from bpvariants.training.loop._chunk import Recipe, step_keys, take_step
from bpvariants.training.loop._rule_call import draw_batch
from bpvariants.training.loop._state import FitResult, TrainState
from bpvariants.types import Loss, PyTree, Step

Diagnose = Callable[..., Any]


class NonFiniteError(FloatingPointError):
    """Error that :func:`fit` raises if a training step gives NaN or infinity.

    Attributes:
      step: index of the training step, counted from 0.
      run: index of the run, or None if `fit` was not given `runs`.
      places: dict from an array's name to its number of NaN and infinite elements, for
        the arrays that have such elements. Examples of names are "value" for the loss,
        "grads['w']" and, for params after the step, "params['w']".
      params: params before the step; all of them are finite.
      opt_state: state of the update before the step.
      carry: carry of the rule before the step; None if the rule takes no carry.
      batch: batch of the step.
      diagnosis: result of `diagnose`, or None.
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
    """Return a function for `fit(diagnose=…)` that finds the first NaN in a sequence.

    The returned function takes the arguments of a gradient rule: (params, carry, xs,
    targets, weights, mask, reset, initial). The returned function calls
    `diagnostics.first_nonfinite` with `step`, `loss` and these arguments.

    Args:
      step: one time step of the network, as given to the rule.
      loss: function (y, target) -> one loss per example, as given to the rule.

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
    check_step_function(step)
    check_loss_function(loss)

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
    """Repeat the training step that gave NaN; return an error that describes the step.

    `state` and `key` are the training state and the key of the run with NaN. `batch` is
    the batch of the step, or the data from which `recipe.sample` draws the batch.
    """
    sample_key, rule_key = jax.tree.map(
        lambda keys: keys[0], step_keys(recipe, key, jax.numpy.uint32([step]))
    )
    if recipe.sample is not None:
        batch = jax.jit(partial(draw_batch, recipe.sample))(sample_key, batch)
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
        except Exception as error:  # report the NaN even if `diagnose` fails
            found = f"diagnose raised {error!r}"
    error = NonFiniteError(_message(step, run, places, found))
    error.step, error.run, error.places, error.diagnosis = step, run, places, found
    error.params, error.opt_state, error.carry = state
    error.batch, error.result = batch, result
    return error


def _message(step, run, places, found) -> str:
    where = ", ".join(f"{name} ({count})" for name, count in places.items())
    if not places:
        where = "none when the step was repeated alone, so it was close to overflow"
    lines = [
        f"step {step}{'' if run is None else f' of run {run}'} was not finite. Number "
        f"of elements that are NaN or infinite: {where}. This error holds the step's "
        "batch and the params before the step, which are finite."
    ]
    if found is None and places and "value" not in places:
        lines.append(
            "The loss is finite, but its gradient is not. If the rule solves for a "
            "fixed point, an example has not converged: "
            "rule(error.params, *error.batch)[0][1] says which."
        )
    if found is None:
        lines.append(
            "To find where in the sequence it begins, give diagnose="
            "training.diagnosis(step, loss). To skip such steps, give nonfinite='skip'."
        )
    else:
        lines.append(str(found.table() if hasattr(found, "table") else found))
    return "\n".join(lines)
