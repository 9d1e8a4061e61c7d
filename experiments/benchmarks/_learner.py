"""Benchmark of a learner that was read from a file: time of one step, and its parts.

The learner is a GRU of 16 units with a linear readout, trained by Adam at every step. A
timed call takes 1000 steps, so a time in ms is a time in µs for each step. The rows of
a group:

- learn: :meth:`bpvariants.training.Learner.learn` in a Python loop;
- predict: the same for `predict`, which does not learn;
- predict_one, learn_one: both methods of `DictLearner`, for features in a dict;
- computation: the same program in a `lax.scan`, without Python between its steps;
- calls: a program with the same inputs and outputs that only adds 1 to each number;
  JAX would return an unchanged input without a call of the program;
- program: the compiled program of `learn`, called without the class `Learner`.

The time of `learn` is about the sum of the computation and the calls. The difference
between `learn` and `program` is the share of the class, which is written in Python. The
floor of `learn`, `learn_one` and `program` is the time of the row "calls", and that of
the rule's least work. Run it on one core: `taskset -c 0 python -m experiments
benchmarks --only learner`.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients, training
from bpvariants.training.learners._file import program, read
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.harness.timing import Foreign, Measured, race
from experiments.networks import online

INPUTS, UNITS, STEPS = 8, 16, 1000
RULES = {"snap, order 1": partial(gradients.snap, order=1), "rtrl": gradients.rtrl}


def learner() -> Groups:
    """Return one group of timings for each rule."""
    return {_title(rule): partial(_times, rule) for rule in RULES}


def _title(rule: str) -> str:
    return f"1000 steps of a learner, {rule}, GRU {UNITS}"


def export(rule: str, path: Path, inputs: int = INPUTS, rate: float = 1e-2) -> None:
    """Write a GRU that learns to predict a number to a file.

    Its learning rate is part of the state, and may be changed after loading.
    """
    network = _network(inputs)
    made = RULES[rule](network.step, lambda y, target: (y[..., 0] - target) ** 2)
    adam = optax.inject_hyperparams(optax.adam)(rate)
    params = network.init(jax.random.key(0))
    example = jnp.zeros(inputs), jnp.zeros(())
    state = made.init(params, network.carry(params), example)
    pair = params, adam.init(params)
    training.export_learner(made, adam, network.step, pair, state, example, path)


def _network(inputs: int = INPUTS) -> online.Network:
    return online.recurrent("gru", inputs, UNITS, 1)


def _times(rule: str, repeats: int) -> list[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gru.learner"
        export(rule, path)
        found, content = training.load_learner(path), read(path)
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(STEPS, INPUTS)).astype(np.float32)
    targets = (xs[:, 0] * xs[:, 1]).astype(np.float32)
    names = [f"feature {i}" for i in range(INPUTS)]
    model = training.DictLearner(found, names)
    dicts = [dict(zip(names, x, strict=True)) for x in xs.tolist()]
    vectors = [jnp.asarray(vector) for vector in content.vectors]
    given = vectors, xs, targets
    entrants: dict[str, Any] = {
        "learn": Foreign(_loop(found.learn, xs, targets)),
        "predict": Foreign(_loop(found.predict, xs)),
        "predict_one": Foreign(_loop(model.predict_one, dicts)),
        "learn_one": Foreign(_loop(model.learn_one, dicts, targets.tolist())),
        "computation": (
            partial(_scan, program(path, content.learn).call),
            given,
        ),
        "calls": Foreign(_calls(_nearly_empty, *given)),
        "program": Foreign(
            _calls(partial(_flat, program(path, content.learn).call), *given)
        ),
    }
    of_cell = jax.eval_shape(lambda: _network().init(jax.random.key(0))["cell"])
    work = _works.online(rule, _works.Run(of_cell, STEPS, 1, UNITS))
    rows = race(_title(rule), entrants, repeats=repeats, work={"computation": work})
    by_name = {row.name: row for row in rows}
    floor = by_name["calls"].ms + by_name["computation"].floor_ms
    called = ("learn", "learn_one", "program")
    return [row._replace(floor_ms=floor) if row.name in called else row for row in rows]


def _loop(function: Callable, *sequences: Any) -> Callable[[], Any]:
    """Return a function that calls `function` for each step, and waits at the end."""

    def run():
        result = None
        for step in zip(*sequences, strict=True):
            result = function(*step)
        return jax.block_until_ready(result)

    return run


def _scan(call, vectors, xs, targets):
    """Take all steps in one compiled program."""

    def body(vectors, step):
        vectors, ys, _ = call(vectors, [step[0]], [step[1]], [])
        return vectors, ys[0]

    return jax.lax.scan(body, vectors, (xs, targets))


def _flat(call, vectors, x, target):
    vectors, ys, value = call(vectors, [x], [target], [])
    return vectors, ys[0], value


def _nearly_empty(vectors, x, target):
    return [vector + 1 for vector in vectors], x[:1] + 1, target + 1


def _calls(function, vectors, xs, targets) -> Callable[[], Any]:
    """Return a loop over calls of a program (vectors, x, target) -> (vectors, …)."""
    compiled = jax.jit(function)

    def run():
        state = vectors
        for x, target in zip(xs, targets, strict=True):
            state, _, _ = compiled(state, x, target)
        return jax.block_until_ready(state)

    return run
