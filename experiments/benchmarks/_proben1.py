"""Benchmark of 60 trainings on Proben1: under one `vmap`, and one by one in PyTorch."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments import data
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch
from experiments.harness.timing import Entrants, Foreign, Measured, race, Work
from experiments.resilient import _stopping
from experiments.resilient.proben1 import setup

RUNS, REPEATS = 60, 3  # only 3 repeats, because PyTorch takes a minute for 60 runs
# Rows of the tables in Prechelt's report on Proben1, as pairs (problem, number of the
# table). Both rows are for small networks.
ROWS = [("cancer1", "8"), ("diabetes1", "10")]


def proben1() -> Groups:
    """Return one group of timings for each problem in `ROWS`.

    Each timed call runs 60 trainings, with the same rule for early stopping in
    bpvariants and in PyTorch.
    """
    groups: Groups = {}
    for name, table in ROWS:
        group = f"Proben1 {name}, table {table}, {RUNS} runs"
        groups[group] = partial(_race, group, name, table)
    return groups


def _race(group: str, name: str, table: str, repeats: int) -> Iterator[Measured]:
    keys, problem = jax.random.split(jax.random.key(0), RUNS), data.proben1(name)
    network, settings = setup(table, problem, "irprop_minus")
    errors: dict[str, list[float]] = {}

    def ours():
        outcome = _stopping.train(problem, network, settings, keys)
        errors["ours"] = outcome.test
        return outcome.total

    def theirs():
        runs = [_by_torch(problem, network, settings, i) for i in range(RUNS)]
        errors["theirs"] = runs

    total = ours()  # compile before timing
    entrants: Entrants = {"bpvariants, 60 under vmap": Foreign(ours)}
    work = {name: _work(problem, network, float(np.sum(total))) for name in entrants}
    if torch() is not None:
        entrants["torch, one after another"] = Foreign(theirs)
    rows = race(group, entrants, repeats=min(repeats, REPEATS), work=work)
    for row, values in zip(rows, errors.values(), strict=True):
        note = f"test error {np.mean(values):.2f} ({statistics.stdev(values):.2f})"
        told = note, "" if torch() else "no torch", row.note
        yield row._replace(note="; ".join(filter(None, told)))


def _work(problem, network, epochs: float) -> Work:
    """Return the work of all runs together, in which they train for `epochs` epochs.

    An epoch takes the gradient of the training error, and a fifth of the evaluation of
    the validation error. A weight takes one product for an output, and two for the
    gradient; weights that multiply an input pass no error signal down.
    """
    shapes = network.shapes()
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim == 2)
    of_inputs = sum(
        theta["weights"][0].size
        for layer, theta in enumerate(shapes, start=1)
        if network.sources(layer)[0] == 0
    )
    trained, validated = (len(part.x) for part in (problem.train, problem.validation))
    products = (
        trained * (3 * weights - of_inputs) + validated / _stopping.STRIP * weights
    )
    return Work(2 * epochs * products)


def _by_torch(problem, network, settings, seed) -> float:
    """Train one network by PyTorch's Rprop; return its test error.

    Each weight's initial step size is drawn at random.
    """
    module: Any = torch()
    generator = module.Generator().manual_seed(seed)
    parts = [
        tuple(module.from_numpy(np.ascontiguousarray(array)) for array in part)
        for part in (problem.train, problem.validation, problem.test)
    ]
    uniform = lambda leaf, low, high: module.empty(leaf.shape).uniform_(
        low, high, generator=generator
    )
    limit = settings.weights
    params = jax.tree.map(lambda leaf: uniform(leaf, -limit, limit), network.shapes())
    leaves = [leaf.requires_grad_() for leaf in jax.tree.leaves(params)]
    optimizer = module.optim.Rprop(
        leaves, etas=(0.5, settings.eta_plus), step_sizes=(0.0, 50.0), foreach=True
    )
    for leaf in leaves:
        optimizer.state[leaf] = {
            "step": module.tensor(0.0),
            "prev": module.zeros_like(leaf),
            "step_size": uniform(leaf, *settings.step_sizes),
        }

    def outputs(x):
        layers = [x]
        for layer, theta in enumerate(params, start=1):
            s = theta["bias"]
            for source, weights in zip(
                network.sources(layer), theta["weights"], strict=True
            ):
                s = s + layers[source] @ weights.T
            last = layer == len(params) and network.output == "linear"
            layers.append(s if last else s / (1 + s.abs()))
        return layers[-1]

    error = lambda part: 100 * ((outputs(part[0]) - part[1]) ** 2).mean()
    best, at_best = float("inf"), float("nan")
    for _ in range(0, settings.max_epochs, _stopping.STRIP):
        strip = []
        for _ in range(_stopping.STRIP):
            optimizer.zero_grad()
            loss = error(parts[0])
            loss.backward()
            optimizer.step()
            strip.append(loss.item())
        with module.no_grad():
            now = error(parts[1]).item()
            if now < best:
                best, at_best = now, error(parts[2]).item()
        gl = 100 * (now / best - 1)
        progress = 1000 * (statistics.fmean(strip) / min(strip) - 1)
        if gl > settings.alpha or progress < _stopping.LEAST_PROGRESS:
            break
    return at_best
