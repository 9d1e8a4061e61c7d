"""Benchmark of RTRL against a bare matrix product, and of approximations against BPTT.

Each step of exact RTRL must compute the matrix product J M, so the time of RTRL is
compared with the time of this product alone. J [B, n, n] is the Jacobian of a time step
with respect to the n units of the carry. M [B, n, p] is the influence of the cell's p
parameters on the carry. Approximations of RTRL are compared with BPTT on the same cell
and sequence. The memory of an online rule hardly grows with the sequence length: only a
loss, a loss weight and a key are stored for each time step.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants import gradients
from bpvariants.types import OnlineRule, Step
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._online_peers import online_peers
from experiments.harness.timing import Entrants, Measured, race, Work
from experiments.networks.cells import CELLS, DENSE, LABELS, visible

SHAPES = [(units, batch) for units in (32, 64, 128) for batch in (1, 16)]
INPUTS = 32
PRODUCTS = ("tanh", "gru")
NAMES = ("tanh", "gru", "lstm", "min_gru", "lru")
LENGTH = 50  # number of time steps of each sequence in comparisons with BPTT
# Largest number of multiplications in a timed call of more than two steps.
PRODUCT_WORK = 2e9
SLOW = 5  # number of times that a call is timed if one call takes seconds
LENGTHS = (100, 1_000, 10_000)
BY_LENGTH = {  # {rule to time at several sequence lengths: cell to use}
    "bptt": "tanh",
    "rtrl": "tanh",
    "snap, order 1": "tanh",
    "rflo": "tanh",
    "uoro": "tanh",
    "kf_rtrl": "tanh",
    "eprop": "lstm",
    "diagonal_rtrl": "min_gru",
}
LENGTH_SHAPE = 32, 1  # (number of units, batch size)


def online() -> Groups:
    """Return all groups of timings of online rules.

    There are four kinds of groups:

    - RTRL, and the matrix product that RTRL computes;
    - BPTT, and approximations of RTRL;
    - one rule on sequences of several lengths;
    - SnAp, and the algorithms of the package braintrace.
    """
    groups: Groups = {}
    for cell in PRODUCTS:
        for units, batch in SHAPES:
            length = _product_length(cell, units, batch)
            group = f"steps of RTRL, {LABELS[cell]}, T {length}, B {batch}, n {units}"
            groups[group] = partial(_product, group, cell, length, units, batch)
    for cell in NAMES:
        for units, batch in SHAPES:
            group = f"gradient, {LABELS[cell]}, T {LENGTH}, B {batch}, n {units}"
            groups[group] = partial(_approximations, group, cell, units, batch)
    units, batch = LENGTH_SHAPE
    for rule, cell in BY_LENGTH.items():
        group = f"by length, {rule}, {LABELS[cell]}, B {batch}, n {units}"
        groups[group] = partial(_by_length, group, rule, cell, units, batch)
    return groups | online_peers()


def _approximations(
    group: str, cell: str, units: int, batch: int, repeats: int
) -> list[Measured]:
    """Time BPTT and the online rules that approximate RTRL, alternately."""
    entrants = _rules(cell, LENGTH, units, batch)
    entrants.pop("rtrl", None)
    work = {name: _work(name, cell, LENGTH, units, batch) for name in entrants}
    return race(group, entrants, repeats=repeats, work=work)


def _work(rule: str, cell: str, length: int, units: int, batch: int) -> Work:
    """Return the least work of BPTT or of an online rule on a sequence."""
    params = _shapes(cell, units)
    moved = length * batch * (INPUTS + units)
    run = _works.Run(params, length, batch, units, moved)
    return _works.gradient(run) if rule == "bptt" else _works.online(rule, run)


def _loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def _cell(name: str, units: int, batch: int) -> tuple[Callable, Any, Any]:
    """Return the step of a cell, its parameters and its initial carry."""
    step = CELLS[name]
    params = step.init(jax.random.key(1), INPUTS, units)
    real = {"complex": False} if name == "lru" else {}  # online rules need a real carry
    return step, params, step.carry(params, (batch,), **real)


def _data(length: int, units: int, batch: int) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0))
    xs = jax.random.normal(keys[0], (length, batch, INPUTS))
    return xs, jax.random.normal(keys[1], (length, batch, units))


def _rules(cell: str, length: int, units: int, batch: int) -> Entrants:
    """Return BPTT, and all online rules that work with the cell, with their arguments.

    Online rules are wrapped, so that one call processes a whole sequence.
    """
    step, params, carry = _cell(cell, units, batch)
    arguments = (params, carry, *_data(length, units, batch))
    key = jax.random.key(2)
    entrants: Entrants = {"bptt": (gradients.bptt(step, _loss), arguments)}
    for name, rule in _online_rules(cell, step).items():
        entrants[name] = gradients.over_sequence(rule), arguments
    at_random = {"uoro": gradients.uoro(step, _loss)}
    if cell in DENSE:
        at_random["kf_rtrl"] = gradients.kf_rtrl(step, _loss)
    for name, online in at_random.items():
        run: Callable[..., Any] = gradients.over_sequence(online)
        entrants[name] = partial(_with_key, run), (key, *arguments)
    return entrants


def _with_key(rule, key, *arguments):
    return rule(*arguments, key=key)


def _online_rules(cell: str, step: Step) -> dict[str, OnlineRule]:
    rules = {
        "snap, order 1": gradients.snap(step, _loss, order=1),
        "rflo": gradients.rflo(step, _loss),
    }
    if cell in DENSE:
        rules["rtrl"] = gradients.rtrl(step, _loss)
    else:
        rules["diagonal_rtrl"] = gradients.diagonal_rtrl(step, _loss)
    if cell == "lstm":  # other cells have no internal part: e-prop keeps no traces
        rules["eprop"] = gradients.eprop(step, _loss, visible=visible(cell))
    return rules


def _shapes(cell: str, units: int) -> Any:
    init = lambda: CELLS[cell].init(jax.random.key(1), INPUTS, units)
    return jax.eval_shape(init)


def _num_params(cell: str, units: int) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(_shapes(cell, units)))


def _product_length(cell: str, units: int, batch: int) -> int:
    """Return the number of time steps of RTRL to time: fewer for larger networks."""
    work = batch * units**2 * _num_params(cell, units)
    # Time at least two steps, because RTRL needs no matrix product in the first step,
    # where the influence of the parameters on the carry is zero.
    return max(2, min(LENGTH, int(PRODUCT_WORK / work)))


def _product(
    group: str, cell: str, length: int, units: int, batch: int, repeats: int
) -> list[Measured]:
    """Time `length` steps of RTRL, and the matrix products J M of these steps alone.

    J is the Jacobian of a step, and M the influence of the parameters on the carry.
    """
    size = _num_params(cell, units)

    def product(jacobian, influence):
        multiply = lambda influence, _: (jacobian @ influence, None)
        return jax.lax.scan(multiply, influence, length=length)[0]

    key = jax.random.key(3)
    jacobian = jax.random.normal(key, (batch, units, units)) / math.sqrt(units)
    arguments = jacobian, jnp.ones((batch, units, size))
    rtrl = _rules(cell, length, units, batch)["rtrl"]
    entrants: Entrants = {"product J M": (product, arguments), "rtrl": rtrl}
    if batch * units**2 * size * length > PRODUCT_WORK:
        repeats = min(repeats, SLOW)
    work = {"rtrl": _work("rtrl", cell, length, units, batch)}
    return race(group, entrants, repeats=repeats, work=work)


def _by_length(
    group: str, rule: str, cell: str, units: int, batch: int, repeats: int
) -> list[Measured]:
    """Time one rule on sequences of several lengths."""
    entrants = {
        f"T {length}": _rules(cell, length, units, batch)[rule] for length in LENGTHS
    }
    lengths = zip(entrants, LENGTHS, strict=True)
    work = {name: _work(rule, cell, length, units, batch) for name, length in lengths}
    rows = race(group, entrants, repeats=min(repeats, SLOW), work=work)
    before, last = rows[-2:]
    slope = math.log(last.ms / before.ms) / math.log(LENGTHS[-1] / LENGTHS[-2])
    return [*rows[:-1], last._replace(note=f"time ∝ T^{slope:.2f}")]
