"""Methods compared in `identify`: observers, online networks and linear models.

Each method predicts every measurement before it reads this measurement. The predictions
of a method are an array [settings, seeds, T]. A setting is a learning rate or another
value that is tried, a seed is a plant, and T is the number of time steps.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from bpvariants import cells, updates
from bpvariants.types import PyTree, Step
from experiments import choices
from experiments.applications.identify import tanks
from experiments.applications.identify.tanks import Record
from experiments.harness.precision import double_precision

SOLVE = "least_squares"  # used in place of the name of an update rule
# Initial variance of the weights, relative to the variance of the noise. A small
# initial variance keeps the changes of the weights small. Large changes would be wrong,
# because a prediction is linear in the weights only near the current weights.
PRIOR = 0.1
LAGS = 2  # number of past steps whose output y and input u the linear model reads


class Model(NamedTuple):
    """Model of a plant; its step reads input u and output y, predicts the next y."""

    step: Step
    init: Callable[[jax.Array], PyTree]  # key -> initial params
    carry: Callable[[PyTree], PyTree]  # params -> initial carry
    k: Callable[[PyTree], jax.Array | None]  # params -> estimated k of the plant


class Course(NamedTuple):
    """Predictions of a method, and estimates of the plant's parameters k, if any."""

    predictions: np.ndarray  # [settings, seeds, T]
    settings: tuple[dict[str, float], ...]
    k: np.ndarray | None = None  # [settings, seeds, T, 3]
    params: PyTree = None  # after the last step, leaves [settings, seeds, …]


def observer() -> Model:
    """Return a model that has the physics of the tanks; its parameters are learned."""
    init = lambda key: tanks.init()
    k = lambda params: jnp.exp(params["log_k"])
    return Model(tanks.observe, init, lambda params: tanks.zeros(), k)


def gru(units: int) -> Model:
    """Return a GRU without the plant's physics; it predicts the change of y.

    The GRU reads the plant's input u and output y, shifted and scaled by constants.
    """

    def init(key):
        return {
            "cell": cells.gru.init(key, 2, units),
            "readout": jnp.zeros(units),
            "skip": jnp.zeros(2),
            "bias": jnp.zeros(()),
        }

    def step(params, carry, x):
        scaled = (x - jnp.array([1.5, 3.0])) / jnp.array([0.4, 2.0])
        carry, h = cells.gru(params["cell"], carry, scaled)
        change = h @ params["readout"] + scaled @ params["skip"] + params["bias"]
        return carry, x[1] + change

    carry = lambda params: cells.gru.carry(params["cell"])
    return Model(step, init, carry, lambda params: None)


class Adapt(NamedTuple):
    """Rule that updates params by a prediction y, its gradient ψ, and its target."""

    init: Callable[[PyTree], Any]
    update: Callable[..., tuple[PyTree, Any]]  # (params, state, ψ, y, target)


def descend(update: str, decay: float, rate: Any) -> Adapt:
    """Return an update of params by an update rule, such as Adam.

    If ψ is the gradient of the prediction y, the gradient of the loss ½ (y − target)²
    is (y − target) ψ.
    """
    optimizer = choices.make_update(update, rate, decay=decay)

    def apply(params, state, psi, y, target):
        grads = jax.tree.map(lambda leaf: (y - target) * leaf, psi)
        change, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, change), state

    return Adapt(optimizer.init, apply)


def solve(decay: Any) -> Adapt:
    """Return an update by recursive least squares on the linearised prediction.

    Linearised means: y is treated as a linear function of the params with the gradient
    ψ. This use of recursive least squares is known as a recursive prediction error
    method.
    """
    rule = updates.recursive_least_squares(decay, prior=PRIOR)

    def apply(params, state, psi, y, target):
        w, back = ravel_pytree(params)
        x, _ = ravel_pytree(psi)
        w, state = rule.update(w, state, x, target - y + x @ w)
        return back(w), state

    return Adapt(lambda params: rule.init(ravel_pytree(params)[0]), apply)


def learn(
    record: Record,
    model: Model,
    rule: str,
    adapt: Callable[[Any], Adapt],
    settings: dict[str, tuple[float, ...]],
    key: jax.Array,
) -> Course:
    """Learn at every time step by an online rule, with all settings and for all plants.

    Args:
      record: records of the plants; the first axis is the seed.
      model: the model to train.
      rule: one of :data:`~experiments.choices.ONLINE`.
      adapt: setting -> :class:`Adapt`.
      settings: {name of the setting: values to try}.
      key: random key for initial weights, and for rules that draw random numbers.
    """
    # The rule is given the prediction y as its loss, and returns y and the gradient ψ.
    online = choices.make_online(rule, model.step, lambda y, target: y)

    def course(setting, xs, targets, key):
        of_params, of_rule = jax.random.split(key)
        params, follow = model.init(of_params), adapt(setting)

        def body(state, inputs):
            params, own, online_state = state
            x, target, key = inputs
            y, psi, online_state = online.update(
                params, online_state, x, target, key=key
            )
            params, own = follow.update(params, own, psi, y, target)
            return (params, own, online_state), (y, model.k(params))

        keys = jax.random.split(of_rule, len(xs))
        first = online.init(params, model.carry(params), (xs[0], targets[0]))
        state = params, follow.init(params), first
        (params, *_), found = jax.lax.scan(body, state, (xs, targets, keys))
        return found, params

    ((name, values),) = settings.items()
    of_seeds = jax.vmap(course, in_axes=(None, 0, 0, 0))
    keys = jax.random.split(key, len(record.targets))
    run = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None, None)))
    (y, k), params = run(jnp.asarray(values), record.xs, record.targets, keys)
    found = tuple({name: value} for value in values)
    k = None if k is None else np.asarray(k)
    return Course(np.asarray(y), found, k, jax.tree.map(np.asarray, params))


def least_squares(record: Record, decays: tuple[float, ...]) -> Course:
    """Fit a linear model by recursive least squares, for each forgetting factor λ.

    The model predicts the next output y from the last two outputs and inputs.
    """
    xs = np.asarray(record.xs, float)
    before = np.concatenate([xs[:, :1], xs[:, :-1]], axis=1)
    ones = np.ones((*xs.shape[:2], 1))
    with double_precision():

        def course(decay, inputs, targets):
            rule = updates.recursive_least_squares(decay, prior=10.0)

            def body(state, inputs):
                w, rls = state
                x, y = inputs
                return rule.update(w, rls, x, y), x @ w

            w = jnp.zeros(2 * LAGS + 1)
            return jax.lax.scan(body, (w, rule.init(w)), (inputs, targets))[1]

        inputs = jnp.asarray(np.concatenate([xs, before, ones], axis=2))
        targets = jnp.asarray(np.asarray(record.targets, float))
        of_seeds = jax.vmap(course, in_axes=(None, 0, 0))
        run = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None)))
        found = np.asarray(run(jnp.asarray(decays), inputs, targets))
    return Course(found, tuple({"decay": decay} for decay in decays))


def persistence(record: Record) -> Course:
    """Predict the next measurement by the current one."""
    return Course(np.asarray(record.xs[..., 1])[None], ({},))


def informed(record: Record, gains: tuple[tuple[float, float], ...]) -> Course:
    """Run the observer with the plant's true parameters k, for several pairs of gains.

    Args:
      record: records of the plants; the first axis is the seed.
      gains: pairs (gain for the upper level, gain for the lower level).
    """

    def course(gain, xs, k):
        def body(levels, inputs):
            x, k = inputs
            params = {"log_k": jnp.log(k), "gain": jax.scipy.special.logit(gain)}
            return tanks.observe(params, levels, x)

        return jax.lax.scan(body, tanks.zeros(), (xs, k))[1]

    run = jax.vmap(jax.vmap(course, in_axes=(None, 0, 0)), in_axes=(0, None, None))
    found = jax.jit(run)(jnp.array(gains), record.xs, record.k)
    settings = tuple({"gain": lower} for _, lower in gains)
    return Course(np.asarray(found), settings)


def best(course: Course, record: Record, until: int) -> int:
    """Return the index of the setting with the lowest error before the step `until`."""
    errors = course.predictions - np.asarray(record.targets)
    scores = np.mean(np.square(errors[..., :until], dtype=float), axis=(1, 2))
    return int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))


Jobs = dict[str, Callable[[], Course]]


def methods(record: Record, config: Any) -> Jobs:
    """Return {name of the method: function that runs it}."""
    jobs: Jobs = {"persistence": partial(persistence, record)}
    jobs["least squares, λ = 1"] = partial(least_squares, record, (1.0,))
    jobs["least squares, forgetting"] = partial(least_squares, record, config.decays)
    key = jax.random.fold_in(jax.random.key(config.first_seed), 1)
    models = {"observer": observer(), f"gru-{config.units}": gru(config.units)}
    for name, model in models.items():
        for rule in config.rules:
            for update in config.updates:
                adapt, settings = (
                    (solve, {"decay": config.decays})
                    if update == SOLVE
                    else (
                        partial(descend, update, config.decay),
                        {"learning_rate": config.rates},
                    )
                )
                given = record, model, rule, adapt, settings, key
                jobs[f"{name}, {rule} × {update}"] = partial(learn, *given)
    gains = tuple(itertools.product((0.02, 0.05, 0.1, 0.2), (0.1, 0.2, 0.3, 0.5)))
    jobs["observer that is told k"] = partial(informed, record, gains)
    return jobs
