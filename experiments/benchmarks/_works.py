"""Least work of computations that several benchmarks time, counted by hand.

Only operations that every implementation must do are counted: the matrix products of
the network, and for online rules the update of what they store. Elementwise operations
of the network are left out. m is the number of weights in matrices, m_h the number of
those that multiply the carry, p the number of all parameters, n the number of elements
of the carry, and B the number of examples. A product of one example with a weight takes
two operations, a multiplication and a sum.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax

from experiments.harness.timing import Work

BYTES = 4  # of a float32 number


class Run(NamedTuple):
    """A recurrent network that runs over T steps of B examples."""

    params: Any  # arrays or their shapes
    length: int  # T
    batch: int  # B
    units: int  # n
    moved: int = 0  # numbers in inputs and targets, which are read

    @property
    def weights(self) -> int:
        """Return m, the number of weights in matrices."""
        leaves = jax.tree.leaves(self.params)
        return sum(leaf.size for leaf in leaves if leaf.ndim == 2)

    @property
    def numbers(self) -> int:
        """Return p, the number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def recurrent(self) -> int:
        """Return m_h, the number of weights in matrices named "recurrent"."""
        leaves = jax.tree.leaves_with_path(self.params)
        named = lambda path: "'recurrent'" in jax.tree_util.keystr(path)
        return sum(leaf.size for path, leaf in leaves if named(path))

    def work(self, each: float, passed: float = 0) -> Work:
        """Return the work if each step takes `each` operations for each example.

        `passed` is how many numbers of each example a step reads and writes again.
        """
        flops = self.length * self.batch * each
        if passed:
            return Work(flops, 2 * BYTES * self.batch * passed, passes=self.length)
        return Work(flops, BYTES * self.moved)


def outputs(run: Run) -> Work:
    """Return the work of the outputs: one product with each weight."""
    return run.work(2 * run.weights)


def gradient(run: Run) -> Work:
    """Return the work of the gradient with respect to the weights, by BPTT.

    Besides the outputs: products with the transposed recurrent matrices for the error
    signals, and the products that give the gradient of each weight.
    """
    return run.work(2 * (2 * run.weights + run.recurrent))


def online(rule: str, run: Run) -> Work:
    """Return the work of an online rule.

    Each rule computes the outputs. Besides,

    - `rtrl` multiplies the Jacobian by the influence of all parameters, 2 n² p
      operations, and reads and writes the influence, n p numbers;
    - `kf_rtrl` multiplies the Jacobian by a matrix of n², 2 n³ operations;
    - `uoro` computes a product of the step's derivative with a vector from the right,
      one from the left, which also gives the gradient of the weights, and updates its
      vector, which has an element for each parameter: 2 (3 m + m_h + p) operations
      together;
    - other rules keep at least one number for each parameter, which they read, write,
      and multiply by an error signal: 4 p operations.
    """
    n, p, forward = run.units, run.numbers, 2 * run.weights
    if rule == "rtrl":
        return run.work(forward + 2 * n**2 * p, n * p)
    if rule == "kf_rtrl":
        return run.work(forward + 2 * n**3, n**2)
    if rule == "uoro":
        return run.work(forward + 2 * (2 * run.weights + run.recurrent + p), p)
    return run.work(forward + 4 * p, p)


def layers(sizes: Sequence[int], batch: int) -> Work:
    """Return the work of the gradient of a network of dense layers without shortcuts.

    Each layer takes one product for the outputs, and one for the gradient of its
    weights. Each but the first takes one more for the error signals below it.
    """
    of_each = [math.prod(pair) for pair in pairwise(sizes)]
    return Work(2 * batch * (3 * sum(of_each) - of_each[0]))


def times(work: Work, number: float) -> Work:
    """Return the arithmetic of `number` computations, started by one call."""
    return Work(number * work.flops)
