"""Rules, cells and networks of the study `atlas`, and what is left out, with reasons.

A `Problem` has what one combination of a task, a cell and a rule needs. The static
rules train the feed-forward network of the study `yin_yang`, under the same interface.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.types import PyTree
from experiments import data
from experiments.choices import draws, make_rule
from experiments.networks import online
from experiments.networks.cells import visible
from experiments.online import _atlas_tasks
from experiments.static import _yin_yang_runs as yin_yang
from experiments.through_time import _influence_balancing_network as balancing

CELLS = ("gru", "tanh", "lstm", "lru")
# Names of truncated BPTT have its lookback, then the steps between backward passes.
TRUNCATED = {"tbptt_1_1": (1, 1), "tbptt_4_4": (4, 4), "tbptt_8_4": (8, 4)}
RECURRENT = (
    "bptt", *TRUNCATED, "rtrl", "snap_1", "snap_2", "uoro", "kf_rtrl", "rflo", "eprop",
    "forward_gradient", "pes",
)  # fmt: skip
STATIC = ("backprop", "fa", "dfa", "usf", "brsf", "frsf", "frozen")
RULES = (*RECURRENT, *STATIC)
TASKS = (*_atlas_tasks.TASKS, "yin_yang")
OWN = {"influence": "linear", "yin_yang": "layers"}  # cells of tasks with own networks
HIDDEN = (30,)
BLIND = (
    "other units see the whole carry, so no trace of the past is left, and the "
    "gradient equals that of `truncated_bptt(lookback=1, every=1)`"
)
ALONE = "no unit sees the state of another, so it would be `rtrl`, which is exact"
NO_PRODUCT = (
    "a parameter is not used in a matrix product, so it has no Kronecker factor"
)
LEFT_OUT = {  # {(rule, cell): reason}; it does not apply, or equals another rule
    ("kf_rtrl", "lru"): NO_PRODUCT,
    ("kf_rtrl", "linear"): NO_PRODUCT,
    ("eprop", "tanh"): BLIND,
    ("eprop", "gru"): BLIND,
    ("eprop", "lru"): ALONE,
    ("eprop", "linear"): BLIND,
}
Data = tuple[Any, ...]


class Problem(NamedTuple):
    """Functions of one combination; `constant` are feedback weights, or ()."""

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]  # key -> (params, constant)
    draw: Callable[[jax.Array], Data]  # key -> mini-batch
    # (params, constant, mini-batch, key) -> (loss, gradient)
    estimate: Callable[..., tuple[jax.Array, PyTree]]
    exact: Callable[[PyTree, Data], PyTree]  # (params, mini-batch) -> gradient
    loss: Callable[[PyTree, Data], jax.Array]  # (params, part) -> mean loss
    validation: Data
    test: Data
    trivial: float
    steps: int  # time steps of a sequence; 1 without time
    draws: bool  # whether the rule draws random numbers


def combinations(
    tasks: tuple[str, ...], cells: tuple[str, ...], rules: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return all (task, cell, rule) that are to be run, the first cell first.

    Tasks with their own network come after the first cell, whatever the chosen cells.
    """
    own = [(name, cell) for name, cell in OWN.items() if name in tasks]
    common = [name for name in tasks if name not in OWN]
    pairs = [(name, cell) for cell in cells for name in common]
    places = len(common) if cells else 0
    ordered = [*pairs[:places], *own, *pairs[places:]]
    return [
        (name, cell, rule)
        for name, cell in ordered
        for rule in (STATIC if name == "yin_yang" else RECURRENT)
        if rule in rules and (rule, cell) not in LEFT_OUT
    ]


def label(rule: str) -> str:
    """Return a rule as it is called.

    Example:
      >>> label("tbptt_8_4"), label("rtrl")
      ('truncated_bptt(lookback=8, every=4)', 'rtrl')
    """
    if rule not in TRUNCATED:
        return rule
    lookback, every = TRUNCATED[rule]
    return f"truncated_bptt(lookback={lookback}, every={every})"


@cache
def shared(name: str, cell: str, units: int, batch: int) -> Problem:
    """Return a task's problem with the exact gradient as its rule.

    Its functions are the same objects for all rules, so they are compiled once.
    """
    if name == "yin_yang":
        return _static("backprop")
    task = _atlas_tasks.task(name, batch)
    network = _network(task, cell, units)
    rule = gradients.bptt(network.step, task.loss)
    call = lambda params, part: rule(
        params, network.carry(params, task.batch), part[0], part[1], weights=part[2]
    )

    def loss(params, part):
        xs, targets, weights = part
        start = network.carry(params, weights.shape[1:])
        _, ys = jax.lax.scan(lambda h, x: network.step(params, h, x), start, xs)
        losses = jax.vmap(task.loss)(ys, targets)
        return jnp.sum(losses * weights) / jnp.sum(weights)

    def estimate(params, constant, part, key):
        (value, _), grads = call(params, part)
        return value, grads

    return Problem(
        lambda key: (network.init(key), ()), task.draw, estimate,
        lambda params, part: call(params, part)[1], loss, task.validation, task.test,
        task.trivial, task.steps, False,
    )  # fmt: skip


def problem(name: str, cell: str, rule: str, units: int, batch: int) -> Problem:
    """Return the problem of a task, a cell and a rule."""
    if name == "yin_yang":
        return _static(rule)
    base, task = shared(name, cell, units, batch), _atlas_tasks.task(name, batch)
    network = _network(task, cell, units)
    step = network.step
    if rule == "rflo" and name == "influence":
        step = balancing.leaky_step  # the form that RFLO needs
    settings: dict[str, Any] = {"visible": visible(cell)}
    kind = rule
    if rule in TRUNCATED:
        kind, (lookback, every) = "truncated_bptt", TRUNCATED[rule]
        settings = {"lookback": lookback, "every": every}
    made: Any = make_rule(kind, step, task.loss, **settings)

    def estimate(params, constant, part, key):
        keys = {"key": key} if draws(kind) else {}
        start = network.carry(params, task.batch)
        (value, _), grads = made(
            params, start, part[0], part[1], weights=part[2], **keys
        )
        return value, grads

    return base._replace(estimate=estimate, draws=draws(kind))


def _network(task: _atlas_tasks.Task, cell: str, units: int) -> online.Network:
    """Return the network of a task: a cell with a readout, or the task's own."""
    if cell == "linear":
        return online.Network(
            balancing.step,
            lambda key: jax.random.uniform(key),
            lambda params, batch=(): jnp.ones((*batch, balancing.UNITS)),
        )
    if cell == "lru":
        return online.stacked(cell, 1, task.inputs, units, task.outputs)
    return online.network(cell, task.inputs, units, task.outputs)


def _static(rule: str) -> Problem:
    """Return the Yin-Yang problem: points in the plane of three classes, no time."""
    network = yin_yang.make_network(rule, HIDDEN)
    train, validation, test = (
        tuple(map(jnp.asarray, part)) for part in data.yin_yang()
    )

    def init(key):
        of_params, of_feedback = jax.random.split(key)
        params = network.init(of_params)
        feedback = network.feedback(of_feedback, params)
        return params, () if feedback is None else feedback

    def draw(key):
        rows = jax.random.randint(key, (yin_yang.BATCH,), 0, len(train[1]))
        return train[0][rows], train[1][rows]

    def estimate(params, constant, part, key):
        feedback = None if constant == () else constant  # brsf needs none
        return network.rule(params, feedback, *part, key)

    def exact(params, part):
        return network.exact(params, None, *part, None)[1]

    def loss(params, part):
        return jnp.mean(
            yin_yang.cross_entropy(network.logits(params, part[0]), part[1])
        )

    return Problem(
        init, draw, estimate, exact, loss, validation, test, float(np.log(3)), 1,
        rule == "brsf",
    )  # fmt: skip
