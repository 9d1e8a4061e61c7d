"""Updates compared in `rprop_vs`, and functions that run them."""

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import updates
from experiments.resilient._rprop_vs_problems import Problem

OURS = ("rprop", "irprop_plus", "rprop_plus", "rprop_minus", "half_back", "grprop")


class Trace(NamedTuple):
    """Curves of all runs, [runs, steps + 1], from before the first update on."""

    values: np.ndarray  # loss E that is minimised
    evaluations: np.ndarray  # number of evaluations of the loss and its gradient so far
    accuracies: np.ndarray | None  # test accuracy in percent, if there is test data


class Method(NamedTuple):
    """An update rule with its settings, and a function that runs it on a problem."""

    name: str
    label: str
    run: Callable[[Problem], Trace]
    rate: float | None = None  # learning rate, if several are tried to find the best


def methods(first_step: float, adam_rates: tuple[float, ...]) -> list[Method]:
    """Return all methods to compare, with PyTorch's Rprop if PyTorch is installed."""
    labels = {"rprop": "rprop (iRprop⁻)", "grprop": "grprop (experimental)"}
    found = [
        Method(
            name,
            f"updates.{labels.get(name, name)}",
            partial(_descend, getattr(updates, name)(first_step)),
        )
        for name in OURS
    ]
    version = importlib.metadata.version("optax")
    peer = partial(_descend, optax.rprop(first_step))
    found.append(Method("optax.rprop", f"optax.rprop {version}", peer))
    torch = find_torch()
    if torch is not None:
        label = f"torch.optim.Rprop {torch.__version__.split('+')[0]}"
        peer = partial(_descend_torch, torch, first_step)
        found.append(Method("torch.optim.Rprop", label, peer))
    found += [
        Method("optax.adam", f"optax.adam({rate:g})", _adam(rate), rate)
        for rate in adam_rates
    ]
    return [*found, Method("optax.lbfgs", "optax.lbfgs()", _search)]


def find_torch() -> Any | None:
    """Return the module torch, or None if it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _adam(rate: float) -> Callable[[Problem], Trace]:
    return partial(_descend, optax.adam(rate))


def _descend(optimizer: optax.GradientTransformation, problem: Problem) -> Trace:
    """Run an update rule that evaluates the loss and its gradient once per update."""
    optimizer = optax.with_extra_args_support(optimizer)

    def run(start, case):
        def step(carry, _):
            w, state = carry
            value, grad = jax.value_and_grad(problem.loss)(w, case)
            change, state = optimizer.update(grad, state, w, value=value)
            return (optax.apply_updates(w, change), state), (value, _accuracy(w))

        carry = start, optimizer.init(start)
        return jax.lax.scan(step, carry, length=problem.steps + 1)[1]

    _accuracy = problem.accuracy or (lambda w: None)
    values, accuracies = jax.jit(jax.vmap(run))(problem.starts, problem.cases)
    return _trace(values, None, accuracies)


def _search(problem: Problem) -> Trace:
    """Run L-BFGS, which may evaluate loss and gradient several times per update."""
    optimizer = optax.lbfgs()

    def run(start_and_case):
        start, case = start_and_case
        loss = lambda w: problem.loss(w, case)
        # The line search of the last update has already computed the gradient at the
        # new weights, so `look` takes this gradient from the state.
        look = optax.value_and_grad_from_state(loss)

        def step(carry, _):
            w, state, taken = carry
            value, grad = look(w, state=state)
            change, state = optimizer.update(
                grad, state, w, value=value, grad=grad, value_fn=loss
            )
            more = optax.tree.get(state, "num_linesearch_steps")
            carry = optax.apply_updates(w, change), state, taken + more
            return carry, (value, taken, _accuracy(w))

        carry = start, optimizer.init(start), jnp.asarray(1)
        return jax.lax.scan(step, carry, length=problem.steps + 1)[1]

    _accuracy = problem.accuracy or (lambda w: None)
    # The runs are computed one after another. Under vmap, in each update all runs would
    # wait for the run with the longest line search.
    together = lambda starts, cases: jax.lax.map(run, (starts, cases))
    return _trace(*jax.jit(together)(problem.starts, problem.cases))


def _descend_torch(torch: Any, first_step: float, problem: Problem) -> Trace:
    """Run PyTorch's Rprop on gradients that are computed by JAX."""
    look = jax.jit(jax.vmap(jax.value_and_grad(problem.loss)))
    measure = jax.jit(jax.vmap(problem.accuracy or (lambda w: None)))
    # Rprop updates each weight separately, so the weights of all runs can be in one
    # array.
    w = torch.from_numpy(np.array(problem.starts))
    optimizer = torch.optim.Rprop([w], lr=first_step)
    values, accuracies = [], []
    for _ in range(problem.steps + 1):
        here = w.numpy().copy()
        value, grad = look(here, problem.cases)
        values.append(value)
        accuracies.append(measure(here))
        w.grad = torch.from_numpy(np.array(grad))
        optimizer.step()
    has = problem.accuracy is not None
    return _trace(
        np.stack(values, axis=1), None, np.stack(accuracies, axis=1) if has else None
    )


def _trace(values: Any, evaluations: Any, accuracies: Any) -> Trace:
    values = np.asarray(values, float)
    if evaluations is None:
        evaluations = np.broadcast_to(1 + np.arange(values.shape[1]), values.shape)
    accuracies = None if accuracies is None else np.asarray(accuracies, float)
    return Trace(values, np.asarray(evaluations), accuracies)
