"""Benchmark of online rules against the package braintrace, on braintrace's GRU.

braintrace's GRU applies the reset gate before a matrix product. Each weight of the
reset gate therefore affects all units within one step. Our SnAp-1 keeps the influence
of such a weight on all units. The package braintrace sets this influence to zero, so
the gradient that braintrace computes for the weights of the reset gate is zero.

In the table, most rows are timings of one network: braintrace's GRU and a linear
readout, with equal weights in all these rows. The notes of these rows show the error of
the gradient, relative to the gradient by BPTT. Rows that name `cells.gru` use a GRU
that has the same number of weights, but applies the reset gate after the matrix
product.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants import cells, gradients
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.harness.timing import Entrants, Foreign, Measured, race

PEER_SHAPES = [(units, batch) for units in (32, 64, 128) for batch in (1, 16)]
INPUTS, OUTPUTS, PEER_LENGTH = 32, 10, 50
MISSING = "not installed: braintrace"
# Rules that store the influence of each weight on all units are timed only if
# (number of units)² · B ≤ WHOLE².
WHOLE = 64


def braintrace() -> Any | None:
    """Return the module braintrace, or None if it is not installed."""
    if importlib.util.find_spec("braintrace") is None:
        return None
    return importlib.import_module("braintrace")


def online_peers() -> Groups:
    """Return one group of timings for each pair (number of units, B) in `PEER_SHAPES`.

    Each timed call computes one gradient.
    """
    groups: Groups = {}
    for units, batch in PEER_SHAPES:
        group = f"GRU of braintrace, T {PEER_LENGTH}, B {batch}, n {units}"
        groups[group] = partial(_race, group, units, batch)
    return groups


def _race(group: str, units: int, batch: int, repeats: int) -> list[Measured]:
    keys = jax.random.split(jax.random.key(0), 4)
    xs = jax.random.normal(keys[0], (PEER_LENGTH, batch, INPUTS))
    targets = jax.random.normal(keys[1], (PEER_LENGTH, batch, OUTPUTS))
    params = _params(keys[2], units)
    whole = units**2 * batch <= WHOLE**2
    arguments = params, jnp.zeros((batch, units)), xs, targets
    rules = _rules(whole)
    _, exact = jax.jit(rules["bptt"])(*arguments)
    entrants: Entrants = {}
    notes = {"snap, order 1, cells.gru": "" if braintrace() else MISSING}
    of_cells = cells.gru.init(keys[3], INPUTS, units)
    of_cells = {"cell": of_cells, "out": params["out"]}
    snap = gradients.over_sequence(gradients.snap(_gru, _loss, order=1))
    entrants["snap, order 1, cells.gru"] = snap, (of_cells, *arguments[1:])
    for name, rule in rules.items():
        entrants[name] = rule, arguments
        notes[name] = _compared(jax.jit(rule)(*arguments)[1], exact)
    for name, run in _by_braintrace(params, xs, targets, whole).items():
        entrants[name] = Foreign(run)
        notes[name] = _compared(run(), exact)
    moved = PEER_LENGTH * batch * (INPUTS + OUTPUTS)
    of_cell = {name: leaf for name, leaf in params.items() if name != "out"}
    run = _works.Run(of_cell, PEER_LENGTH, batch, units, moved)
    work = {name: _works.online(name, run) for name in rules if name != "bptt"}
    work |= {"bptt": _works.gradient(run)}
    ours = run._replace(params=of_cells["cell"])
    work["snap, order 1, cells.gru"] = _works.online("snap, order 1", ours)
    return race(group, entrants, repeats=repeats, notes=notes, work=work)


def _loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def _params(key: jax.Array, units: int) -> dict[str, dict[str, jax.Array]]:
    """Draw the weights of the network, under the names that braintrace gives them."""
    gate = INPUTS + units, units
    shapes = {"Wz": gate, "Wr": gate, "Wh": gate, "out": (units, OUTPUTS)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: {
            "weight": jax.random.normal(key, shape) / jnp.sqrt(shape[0]),
            "bias": jnp.zeros(shape[1]),
        }
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _step(params, h, x):
    """Compute one step of braintrace.nn.GRUCell, followed by braintrace.nn.Linear."""
    layer = lambda name, x: x @ params[name]["weight"] + params[name]["bias"]
    both = jnp.concatenate([x, h], axis=-1)
    z, r = (jax.nn.sigmoid(layer(name, both)) for name in ("Wz", "Wr"))
    candidate = jnp.tanh(layer("Wh", jnp.concatenate([x, r * h], axis=-1)))
    h = (1 - z) * h + z * candidate
    return h, layer("out", h)


def _gru(params, h, x):
    h, y = cells.gru(params["cell"], h, x)
    return h, y @ params["out"]["weight"] + params["out"]["bias"]


def _rules(whole: bool) -> dict[str, Callable]:
    online = {
        "rtrl": gradients.rtrl(_step, _loss),
        "snap, order 1": gradients.snap(_step, _loss, order=1),
    }
    rules = {"bptt": gradients.bptt(_step, _loss)}
    if whole:
        for name, rule in online.items():
            rules[name] = gradients.over_sequence(rule)
    return rules


def _by_braintrace(params, xs, targets, whole) -> dict[str, Callable[[], Any]]:
    """Return {name: function that computes a gradient} for braintrace's algorithms."""
    module = braintrace()
    if module is None:
        return {}
    algorithms = {
        "braintrace D_RTRL": (module.D_RTRL, {}),
        "braintrace ES_D_RTRL": (module.ES_D_RTRL, {"decay_or_rank": 0.9}),
        "braintrace SnAp, n 1": (module.SnAp, {"n": 1}),
    }
    if whole:
        algorithms["braintrace SnAp, n 2"] = module.SnAp, {"n": 2}
    return {
        name: _gradient_by_braintrace(params, xs, targets, *algorithm)
        for name, algorithm in algorithms.items()
    }


def _gradient_by_braintrace(params, xs, targets, algorithm, options):
    module: Any = braintrace()
    brainstate: Any = importlib.import_module("brainstate")
    batch, units = xs.shape[1], params["Wz"]["bias"].size

    class Network(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = module.nn.GRUCell(INPUTS, units)
            self.out = module.nn.Linear(units, OUTPUTS)

        def update(self, x):
            return self.out(self.rnn(x))

    network = Network()
    for path, state in network.states(brainstate.ParamState).items():
        state.value = params[path[-2] if path[0] == "rnn" else path[0]]
    learner = module.compile(network, algorithm, xs[0], batch_size=batch, **options)
    others = learner.states(
        lambda _, state: not isinstance(state, brainstate.ParamState)
    )
    start = {path: state.value for path, state in others.items()}
    loss = lambda x, target: jnp.mean((learner(x) - target) ** 2)

    @brainstate.transform.jit
    def gradient(xs, targets):
        for path, state in others.items():
            state.value = start[path]
        return learner.etrace_grad(xs, targets, step_fn=loss)

    def run():
        grads = jax.block_until_ready(gradient(xs, targets))
        return {
            path[1] if path[0] == "rnn" else path[0]: g for path, g in grads.items()
        }

    return run


def _compared(grads: Any, exact: Any) -> str:
    """Describe a gradient: error relative to `exact`, and layers in which it is 0."""
    off = jax.tree.map(jnp.subtract, grads, exact)
    size = lambda tree: jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(tree)))
    largest = lambda tree: max(jnp.max(jnp.abs(g)) for g in jax.tree.leaves(tree))
    note = f"error {size(off) / size(exact):.0e}"
    zero = [name for name in grads if largest(grads[name]) == 0]
    return f"{note}; zero: {', '.join(zero)}" if zero else note
