"""Arguments for gradient rules, drawn for each test condition such as padding or NaN.

Arguments drawn for different conditions have equal shapes and dtypes, so that one
compiled program can run with all of them.
"""

import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.matrix.networks import D, M, networks


class Layout(NamedTuple):
    """Batch shape, number of time steps and dtype of a gradient rule's arguments."""

    batch: tuple[int, ...] = (3,)
    length: int = 5
    dtype: str = "float64"

    @property
    def name(self):
        return f"{'x'.join(map(str, self.batch)) or 'one'}-T{self.length}-{self.dtype}"


class Case(NamedTuple):
    """Arguments of a gradient rule after `params`, as NumPy arrays and keys."""

    carry: Any
    xs: Any
    targets: Any
    weights: Any
    mask: Any
    reset: Any
    initial: Any


def floats(function, *trees):
    """Apply a function to the floating leaves of pytrees; keep all other leaves."""
    is_float = lambda leaf: jax.numpy.issubdtype(leaf.dtype, np.floating)
    apply = lambda leaf, *more: function(leaf, *more) if is_float(leaf) else leaf
    return jax.tree.map(apply, *trees)


def seed_of(*names):
    """Return a random seed that depends only on the given names."""
    return zlib.crc32(repr(names).encode())


def draw(name, layout, seed=0) -> Case:
    """Draw float64 arguments without padding and resets, with loss weights of 1."""
    network, shape = networks()[name], (layout.length, *layout.batch)
    numbers = np.random.default_rng(seed_of(name, layout.batch, layout.length, seed))
    xs, targets = numbers.normal(size=(*shape, D)), numbers.normal(size=(*shape, M))
    if network.mixed:
        keys = jax.random.split(jax.random.key(int(numbers.integers(99))), shape)
        tokens = numbers.integers(0, 3, size=shape).astype(np.int32)
        labels = numbers.integers(0, M, size=shape).astype(np.int32)
        xs = {"value": xs, "token": tokens, "key": keys}
        targets = {"aim": targets, "label": labels}
    carries = [network.carry(numbers, *layout.batch) for _ in range(2)]
    return Case(
        carries[0],
        xs,
        targets,
        np.ones(shape),
        np.ones(shape, bool),
        np.zeros(shape, bool),
        carries[1],
    )


def rounded(tree, dtype):
    """Round floating leaves to a dtype, and convert them back to float64."""
    return floats(lambda leaf: np.asarray(leaf, dtype).astype(np.float64), tree)


def cast(tree, dtype):
    return floats(lambda leaf: np.asarray(leaf).astype(dtype), tree)


def spoilt(case, value=np.nan):
    """Replace inputs, targets and loss weights at padded steps; integers by −7."""
    padded = ~case.mask

    def spoil(leaf):
        flags = padded.reshape(padded.shape + (1,) * (leaf.ndim - padded.ndim))
        if jax.numpy.issubdtype(leaf.dtype, np.floating):
            return np.where(flags, value, leaf)
        if jax.numpy.issubdtype(leaf.dtype, np.integer):
            return np.where(flags, np.int32(-7), leaf)
        return leaf

    xs, targets = jax.tree.map(spoil, (case.xs, case.targets))
    weights = np.where(padded, value, case.weights)
    return case._replace(xs=xs, targets=targets, weights=weights)


def without_label(case, value=np.nan):
    """Replace floating targets by `value` where the weight of the loss is 0."""

    def spoil(leaf):
        flags = case.weights == 0
        flags = flags.reshape(flags.shape + (1,) * (leaf.ndim - flags.ndim))
        return np.where(flags, value, leaf)

    return case._replace(targets=floats(spoil, case.targets))


class Maker(NamedTuple):
    """Drawn arguments of a gradient rule, and a random generator for changing them."""

    case: Case
    numbers: np.random.Generator

    def flags(self, probability):
        return self.numbers.random(self.case.mask.shape) < probability

    def positive(self):
        return self.numbers.uniform(0.2, 2.0, size=self.case.mask.shape)

    def time(self):
        """Return the index of the time step, in an array with the shape of the mask."""
        length = self.case.mask.shape[0]
        column = np.arange(length).reshape(-1, *[1] * (self.case.mask.ndim - 1))
        return np.broadcast_to(column, self.case.mask.shape)

    def lengths(self):
        batch = self.case.mask.shape[1:]
        lengths = self.numbers.integers(0, self.case.mask.shape[0] + 1, size=batch)
        if lengths.size:  # The second example has length 0, if there is one.
            lengths.flat[0] = min(2, self.case.mask.shape[0])
        if lengths.size > 1:
            lengths.flat[1] = 0
        return lengths

    def of_one(self):
        """Return an array of flags that are true only for the first example."""
        flags = np.zeros(self.case.mask.shape, bool)
        flags.reshape(len(flags), -1)[:, :1] = True
        return flags


def _everything(maker, part):
    """Draw arguments with padding, resets, loss weights and missing targets."""
    case = maker.case._replace(
        mask=maker.flags(0.75),
        reset=maker.flags(0.3),
        weights=maker.positive() * maker.flags(0.7),
    )
    case = without_label(case, [np.nan, np.inf][part % 2])
    return spoilt(case, [np.nan, -np.inf, np.inf][part % 3])


# Format: {name of a test condition: function from a Maker to a Case}.
CONDITIONS = {
    "plain": lambda m: m.case,
    "zero_carry": lambda m: m.case._replace(carry=floats(np.zeros_like, m.case.carry)),
    "zero_inputs": lambda m: m.case._replace(xs=floats(np.zeros_like, m.case.xs)),
    "large_inputs": lambda m: m.case._replace(
        xs=floats(lambda leaf: 8 * leaf, m.case.xs)
    ),
    "mask_random": lambda m: m.case._replace(mask=m.flags(0.6)),
    "mask_lengths": lambda m: m.case._replace(mask=m.time() < m.lengths()),
    "mask_at_start": lambda m: m.case._replace(mask=m.time() >= m.lengths()),
    "mask_gap": lambda m: m.case._replace(mask=m.time() != len(m.case.mask) // 2),
    "mask_last_only": lambda m: m.case._replace(mask=m.time() == len(m.case.mask) - 1),
    "mask_one_example": lambda m: m.case._replace(mask=m.of_one()),
    "mask_nothing": lambda m: m.case._replace(mask=np.zeros_like(m.case.mask)),
    "reset_random": lambda m: m.case._replace(reset=m.flags(0.4)),
    "reset_first": lambda m: m.case._replace(reset=m.time() == 0),
    "reset_last": lambda m: m.case._replace(reset=m.time() == len(m.case.mask) - 1),
    "reset_always": lambda m: m.case._replace(reset=np.ones_like(m.case.mask)),
    "reset_one_example": lambda m: m.case._replace(
        reset=m.of_one() & (m.time() == len(m.case.mask) // 2)
    ),
    "reset_in_padding": lambda m: (
        lambda mask: m.case._replace(mask=mask, reset=~mask)
    )(m.flags(0.6)),
    "weights_random": lambda m: m.case._replace(weights=m.positive()),
    "weights_last": lambda m: m.case._replace(
        weights=1.0 * (m.time() == len(m.case.mask) - 1)
    ),
    "weights_first": lambda m: m.case._replace(weights=1.0 * (m.time() == 0)),
    "weights_one_example": lambda m: m.case._replace(weights=1.0 * m.of_one()),
    "weights_of_both_signs": lambda m: m.case._replace(
        weights=m.positive() * np.where(m.flags(0.25), -0.5, 2.0)
    ),
    "weights_tiny": lambda m: m.case._replace(weights=1e-30 * m.positive()),
    "weights_huge": lambda m: m.case._replace(weights=1e30 * m.positive()),
    "weights_zero": lambda m: m.case._replace(weights=0.0 * m.case.weights),
    "nan_in_padding": lambda m: spoilt(m.case._replace(mask=m.flags(0.6))),
    "inf_in_padding": lambda m: spoilt(m.case._replace(mask=m.flags(0.6)), np.inf),
    "nan_where_all_is_padding": lambda m: spoilt(
        m.case._replace(mask=np.zeros_like(m.case.mask))
    ),
    "nan_target_of_weight_0": lambda m: without_label(
        m.case._replace(weights=1.0 * m.flags(0.6))
    ),
    "inf_target_of_weight_0": lambda m: without_label(
        m.case._replace(weights=1.0 * m.flags(0.6)), np.inf
    ),
    "nan_target_everywhere": lambda m: without_label(
        m.case._replace(weights=0.0 * m.case.weights)
    ),
} | {f"everything_{k}": lambda m, k=k: _everything(m, k) for k in range(12)}

# Conditions for sequences of one time step, whose first step is also the last one.
ONE_STEP = [
    "plain",
    "zero_carry",
    "large_inputs",
    "mask_random",
    "mask_nothing",
    "reset_random",
    "reset_always",
    "reset_in_padding",
    "weights_random",
    "weights_zero",
    "nan_in_padding",
    "nan_target_of_weight_0",
    *(f"everything_{k}" for k in range(4)),
]
EMPTY = ["plain"]  # conditions for batches without examples


def conditions_of(layout):
    """Return the names of the test conditions to use for a batch shape and length."""
    if 0 in layout.batch:
        return EMPTY
    return ONE_STEP if layout.length == 1 else list(CONDITIONS)


def make(name, layout, condition) -> Case:
    """Draw the arguments for a condition; round them to a dtype, but return float64."""
    seed = seed_of(name, layout.batch, layout.length, condition)
    maker = Maker(draw(name, layout, condition), np.random.default_rng(seed))
    return rounded(CONDITIONS[condition](maker), layout.dtype)
