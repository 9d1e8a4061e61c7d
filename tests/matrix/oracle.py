"""Reference gradients in float64, computed in NumPy from Jacobians of time steps.

Notation, for one example: h_t is the carry of time step t, θ are the p parameters, and
ℓ_t is the loss. The Jacobians are taken with respect to the n floating-point elements
of the carry. A Python loop over time steps skips padding, replaces the carry at resets,
and leaves out losses with weight 0.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from tests.matrix.networks import networks


class Slopes(NamedTuple):
    """Loss, Jacobians and gradients of one time step of one example.

    The loss is a function of the parameters, the new carry and the old carry. The
    fields `direct`, `signal` and `skip` are its gradients with respect to these three.
    """

    loss: Any
    J: Any  # ∂h_t/∂h_{t−1}, [n, n]
    J_apart: Any  # like J, without derivatives through recurrent matrices
    I: Any  # ∂h_t/∂θ, [n, p]  # noqa: E741
    direct: Any
    signal: Any
    skip: Any
    error: Any  # ∂ℓ_t/∂y, [m]; zeros if y is not an array


class Step(NamedTuple):
    """One time step of one example, with its loss weight and derivatives."""

    example: int
    time: int
    restarts: bool
    weight: float
    slopes: Slopes


class Trajectory(NamedTuple):
    """All time steps that are not padding, for each example, and the last carries."""

    steps: list[list[Step]]
    last: Any
    total: float  # sum of all loss weights
    length: int
    num_params: int
    num_units: int


def is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def floats_of(carry):
    return [leaf for leaf in jax.tree.leaves(carry) if is_float(leaf)]


@cache
def linearised(name):
    """Return a jitted function (params, carry, x, target) -> (new carry, Slopes)."""
    network = networks()[name]

    def split(carry):
        leaves, structure = jax.tree.flatten(carry)
        h, unravel = ravel_pytree([leaf for leaf in leaves if is_float(leaf)])

        def join(h):
            found = iter(unravel(h))
            new = [next(found) if is_float(leaf) else leaf for leaf in leaves]
            return structure.unflatten(new)

        return h, join

    @jax.jit
    def run(params, carry, x, target):
        theta, tree_of = ravel_pytree(params)
        old, join_old = split(carry)
        after = network.cell(params, carry, x, lambda value: value)
        _, join_new = split(after)

        def new(theta, h, cut=lambda value: value):
            return split(network.cell(tree_of(theta), join_old(h), x, cut))[0]

        def output(theta, h, old):
            return network.readout(tree_of(theta), join_new(h), join_old(old), x)

        loss = lambda theta, h, old: network.loss(output(theta, h, old), target)
        h, y = new(theta, old), output(theta, split(after)[0], old)
        apart = lambda h: new(theta, h, jax.lax.stop_gradient)
        value, (direct, signal, skip) = jax.value_and_grad(loss, argnums=(0, 1, 2))(
            theta, h, old
        )
        error = jax.grad(network.loss)(y, target)
        I, J = jax.jacobian(new, (0, 1))(theta, old)  # noqa: E741
        J_apart = jax.jacobian(apart)(old)
        return after, Slopes(value, J, J_apart, I, direct, signal, skip, error)

    return run


def at(tree, *places):
    return jax.tree.map(lambda leaf: leaf[places] if places else leaf, tree)


def follow(name, params, case) -> Trajectory:
    """Run the network on each example, and compute the Jacobians of each time step."""
    run = linearised(name)
    length, *batch = case.mask.shape
    steps, last = [], []
    for place in np.ndindex(*batch):
        carry, found = at(case.carry, *place), []
        for t in range(length):
            if not case.mask[(t, *place)]:
                continue
            restarts = bool(case.reset[(t, *place)])
            if restarts:
                carry = at(case.initial, *place)
            x, target = at(case.xs, t, *place), at(case.targets, t, *place)
            carry, slopes = run(params, carry, x, target)
            weight = float(case.weights[(t, *place)])
            found.append(
                Step(len(steps), t, restarts, weight, jax.tree.map(np.asarray, slopes))
            )
        steps.append(found)
        last.append(carry)
    total = sum(step.weight for found in steps for step in found)
    num_examples = max(1, len(last))
    units = sum(leaf.size for leaf in floats_of(case.carry)) // num_examples
    if last:
        shaped = [leaf.reshape((*batch, *leaf.shape[1:])) for leaf in last_of(last)]
    else:
        shaped = numbers_of(case.carry)
    size = ravel_pytree(params)[0].size
    return Trajectory(steps, shaped, total, length, size, units)


def last_of(carries):
    """Stack the carries of several examples, leaf by leaf."""
    return [np.stack(leaves) for leaves in zip(*map(numbers_of, carries), strict=True)]


def numbers_of(carry):
    """Return the leaves of a carry as NumPy arrays; random keys as their integers."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    data = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf
    return [np.asarray(data(leaf)) for leaf in jax.tree.leaves(carry)]


def value_of(trajectory):
    """Return the weighted mean of all losses whose weight is not 0."""
    terms = [
        step.weight * step.slopes.loss
        for found in trajectory.steps
        for step in found
        if step.weight != 0
    ]
    return sum(terms) / trajectory.total if trajectory.total else 0.0


def mean(trajectory, total):
    return total / trajectory.total if trajectory.total else np.zeros_like(total)


def exact(trajectory):
    """Return the gradient by backpropagation through time."""
    return windows(trajectory, [(trajectory.length, 0, 0)])


def truncated(every, lookback):
    """Return a function that computes the gradient of truncated BPTT from a trajectory.

    After every `every` time steps, the errors of the last `every` losses are propagated
    backwards through at most `lookback` steps.
    """

    def grads(trajectory):
        length, last, found = trajectory.length, 0, []
        while last < length:
            end = min(last + every, length)
            found.append((end, last, max(0, end - lookback)))
            last = end
        return windows(trajectory, found)

    return grads


def windows(trajectory, ends):
    """Return the sum of the gradients of several backward passes.

    Each element of `ends` describes one backward pass: the step after the last one, the
    first step whose loss counts, and the first step of the pass.
    """
    total = np.zeros(trajectory.num_params)
    for steps in trajectory.steps:
        for end, counts, begin in ends:
            delta = np.zeros(trajectory.num_units)
            for step in reversed(steps):
                if not begin <= step.time < end:
                    continue
                s = step.slopes
                skip = np.zeros(trajectory.num_units)
                if step.time >= counts and step.weight != 0:
                    total = total + step.weight * s.direct
                    delta = delta + step.weight * s.signal
                    skip = step.weight * s.skip
                total = total + delta @ s.I
                delta = np.zeros_like(delta) if step.restarts else delta @ s.J + skip
    return mean(trajectory, total)


def forwards(through, signal=lambda s: (s.signal, s.skip), kept=None):
    """Return a function that computes a gradient by a recursion of traces.

    The traces are P_t = A_t P_{t−1} + ∂h_t/∂θ with the matrix A_t = through(slopes of
    step t). Entries of P_t where `kept` is False are set to 0.
    """

    def grads(trajectory):
        total = np.zeros(trajectory.num_params)
        for steps in trajectory.steps:
            traces = np.zeros((trajectory.num_units, trajectory.num_params))
            for step in steps:
                s = step.slopes
                traces = np.zeros_like(traces) if step.restarts else traces
                old, traces = traces, through(s) @ traces + s.I
                if kept is not None:
                    traces = np.where(kept, traces, 0)
                if step.weight != 0:
                    to_new, to_old = signal(s)
                    # `to_old` is the gradient with respect to the old carry, whose
                    # traces are `old`. At a reset, these traces are 0.
                    found = s.direct + to_new @ traces + to_old @ old
                    total = total + step.weight * found
        return mean(trajectory, total)

    return grads


def layerwise(layers):
    """Return a function that computes the gradient of layer-wise RTRL.

    `layers` lists for each layer the bool arrays [n] of its units and [p] of its
    parameters. The influence is kept within each layer only. The gradient of a step
    contains all paths within this step, with the old carries of other layers constant.
    """
    same = lambda a, b: sum(np.outer(u[a], u[b]) for u in layers).astype(bool)
    of_units, of_params = same(0, 0), same(0, 1)

    def grads(trajectory):
        total = np.zeros(trajectory.num_params)
        for steps in trajectory.steps:
            influence = np.zeros(of_params.shape)
            for step in steps:
                s = step.slopes
                influence = np.zeros_like(influence) if step.restarts else influence
                old = influence
                influence = (s.J * of_units) @ influence + s.I * of_params
                if step.weight != 0:
                    within = s.direct + s.signal @ s.I
                    found = within + (s.signal @ s.J + s.skip) @ old
                    total = total + step.weight * found
        return mean(trajectory, total)

    return grads


@cache
def pattern(name, order):
    """Return which entries of ∂h/∂θ can be nonzero within `order` time steps.

    An entry counts as nonzero if it is nonzero for any of eight random carries and
    parameters.
    """
    network, numbers = networks()[name], np.random.default_rng(9)
    theta, tree_of = ravel_pytree(network.params)
    found = []
    for _ in range(8):
        params = tree_of(jnp.asarray(numbers.normal(size=theta.size)))
        carry = jax.tree.map(jnp.asarray, network.carry(numbers))
        x, target = numbers.normal(size=2), jnp.zeros(2)
        if network.mixed:
            x = {
                "value": jnp.asarray(x),
                "token": jnp.asarray(int(numbers.integers(3))),
                "key": jax.random.key(int(numbers.integers(99))),
            }
            target = {"aim": target, "label": jnp.asarray(0)}
        _, slopes = linearised(name)(params, carry, x, target)
        found.append((np.asarray(slopes.J) != 0, np.asarray(slopes.I) != 0))
    of_carry, immediate = (np.any(each, axis=0) for each in zip(*found, strict=True))
    kept = immediate
    for _ in range(order - 1):
        kept = immediate | (of_carry.astype(int) @ kept.astype(int) > 0)
    return kept


def seen_by_others(name):
    """Return which floating-point elements of a carry are visible to other units."""
    network = networks()[name]
    carry = network.carry(np.random.default_rng(0))
    shown = {id(leaf) for leaf in jax.tree.leaves(network.visible(carry))}
    flags = [np.full(leaf.size, id(leaf) in shown) for leaf in floats_of(carry)]
    return np.concatenate(flags)
