"""Descriptions of random networks, and hypothesis strategies that draw them.

If a test fails, hypothesis prints the description as Python code. To build the network
again, pass this code to `build` in `build.py`. Hypothesis also searches for a shorter
description that fails.
"""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.random_programs.operations import OPERATIONS

Expression = Any  # a name of a vector, or (operation, *operands)
WEIGHTS = ("W0", "W1", "W0T")


@dataclass(frozen=True)
class Program:
    """Description of a recurrent network and the data that it runs on.

    Attributes:
      leaves: the floating leaves of the carry, as (name, expression) pairs. "h0" and
        "h1" are vectors [n]. "line" is a shift register [2, n], to which each step
        appends a vector. "memory" [2, n] has two slots, of which each step overwrites
        one.
      output: an expression for the output, which may read the new carry.
      hidden: an expression for a vector "a" that other expressions may read, or None.
      extras: further leaves of the carry: "count", a counter, and "key", a random key.
      loss: name of the loss function: "square", "log_softmax" or "largest".
      n, T, batch: number of units, number of time steps, and batch shape.
      weights, mask, reset: loss weights, padding mask and resets for each time step and
        example, or None.
      initial: whether the carry after a reset differs from the first carry.
      seed: random seed for params, carry, inputs and targets.
    """

    leaves: tuple[tuple[str, Expression], ...]
    output: Expression
    hidden: Expression | None = None
    extras: tuple[str, ...] = ()
    loss: str = "square"
    n: int = 2
    T: int = 2
    batch: tuple[int, ...] = ()
    weights: tuple | None = None
    mask: tuple | None = None
    reset: tuple | None = None
    initial: bool = False
    seed: int = 0


def operations_of(expression: Expression) -> set[str]:
    """Return the names of all operations in an expression."""
    if expression is None or isinstance(expression, str):
        return set()
    return {expression[0]}.union(*map(operations_of, expression[1:]))


def names_of(expression: Expression) -> set[str]:
    """Return the names of all vectors in an expression."""
    if expression is None or isinstance(expression, str):
        return {expression} - {None}
    name, *operands = expression
    pairs = zip(OPERATIONS[name].kinds, operands, strict=True)
    return set().union(*(names_of(each) for kind, each in pairs if kind == "v"))


def expressions(names: list[str], **properties: bool) -> st.SearchStrategy:
    """Return a strategy for expressions that read the named vectors.

    The expressions contain only operations whose attributes have the given values.
    """
    chosen = {
        name: operation.kinds
        for name, operation in OPERATIONS.items()
        if all(getattr(operation, key) == value for key, value in properties.items())
    }

    def extend(inner):
        part = {"v": inner, "w": st.sampled_from(WEIGHTS)}
        return st.one_of(
            *(
                st.tuples(st.just(name), *(part[kind] for kind in kinds))
                for name, kinds in chosen.items()
            )
        )

    return st.recursive(st.sampled_from(names), extend, max_leaves=3)


def grown(names: list[str], **properties: bool) -> st.SearchStrategy:
    """Return a strategy for expressions that apply at least one operation."""
    top = st.sampled_from(["tanh", "sin", "leak", "gate", "halve"])

    def under(name):
        inner = expressions(names, **properties)
        return st.tuples(st.just(name), *[inner] * len(OPERATIONS[name].kinds))

    return top.flatmap(under)


LAYOUTS = [("h0",), ("h0", "h1"), ("h0", "line"), ("h0", "memory"), ("line",)]
LAYOUTS += [("memory", "h0"), ("h0", "h1", "line"), ("h0", "line", "memory")]
BIASES = ["b0", "b1"]


def read_names(layout: tuple[str, ...], extras: tuple[str, ...]) -> list[str]:
    """Return the names of the input and of the vectors in the old carry."""
    of_leaf = {"h0": ["h0"], "h1": ["h1"], "line": ["oldest", "latest"], "memory": []}
    of_extra = {"count": ["clock"], "key": ["noise"]}
    names = [name for leaf in layout for name in of_leaf[leaf]]
    # The names of the carry's vectors occur twice, so that expressions use them more
    # often.
    return [*names, *names, "x", *(name for each in extras for name in of_extra[each])]


def new_names(layout: tuple[str, ...]) -> list[str]:
    """Return the names of the vectors in the new carry that an output may read."""
    of_leaf = {"h0": ["new_h0"], "h1": ["new_h1"], "line": ["new_oldest"], "memory": []}
    return [name for leaf in layout for name in of_leaf[leaf]]


@st.composite
def anything(draw, **properties):
    """Draw a network.

    The operations that compute its carry have attributes with the given values.
    """
    layout = draw(st.sampled_from(LAYOUTS))
    extras = draw(st.sampled_from([(), ("count",), ("key",), ("count", "key")]))
    names = [*read_names(layout, extras), *BIASES]
    hidden = draw(st.none() | grown(names, **properties))
    names += [] if hidden is None else ["a", "a"]
    leaves = []
    for i, leaf in enumerate(layout):
        known = [*names, *new_names(layout[:i])]
        leaves.append((leaf, draw(grown(known, **properties))))
    output = draw(grown([*new_names(layout), *names]))
    return Program(tuple(leaves), output, hidden, extras)


@st.composite
def elementwise(draw):
    """Draw a network whose units do not read each other's carry."""
    layout = draw(st.sampled_from([("h0",), ("h0", "h1")]))
    of_input = expressions(["x", "b0"])
    leaves = []
    for leaf in layout:
        own = expressions([leaf, "b0", "b1"], splits=True)
        leaves.append((leaf, ("gate", draw(own), draw(own), draw(of_input))))
    output = draw(grown([*new_names(layout), *layout, "x"]))
    return Program(tuple(leaves), output)


@st.composite
def affine(draw):
    """Draw a network with the new carry a h + u, where a and u depend on the input."""
    layout = draw(st.sampled_from([("h0",), ("h0", "h1")]))
    of_input = expressions(["x", "b0", "b1"])
    leaves = [
        (leaf, ("add", ("mul", draw(of_input), leaf), draw(of_input)))
        for leaf in layout
    ]
    output = draw(grown([*new_names(layout), *layout, "x"]))
    return Program(tuple(leaves), output)


@st.composite
def factorised(draw):
    """Draw a network that uses each weight matrix once, as KF-RTRL requires.

    The vector "a" is e₀ W0 + e₁ W1 + b0, with expressions e₀ and e₁ that contain no
    weights.
    """
    layout = draw(st.sampled_from([("h0",), ("h0", "h1"), ("h0", "line")]))
    names = read_names(layout, ())
    factor = expressions(names, of_params=False)
    products = [("matmul", f"W{i}", draw(factor)) for i in (0, 1)]
    hidden = ("add", products[0], ("add", products[1], "b0"))
    leaves = [(leaf, draw(grown(["a", *names], of_params=False))) for leaf in layout]
    output = draw(grown([*new_names(layout), "x", "b1"]))
    return Program(tuple(leaves), output, hidden)


KINDS = {
    "anything": anything(),
    "without_branches": anything(for_rflo=True),
    "elementwise": elementwise(),
    "affine": affine(),
    "factorised": factorised(),
}


@st.composite
def programs(draw, kind: str):
    """Draw a network of the given kind, its sizes, padding, resets and loss weights."""
    network = draw(KINDS[kind])
    T, batch = draw(st.sampled_from([2, 3, 4, 1])), draw(st.sampled_from([(), (2,)]))
    count = batch[0] if batch else 1
    flags = lambda values: (
        st.none() | st.tuples(*[st.tuples(*[st.sampled_from(values)] * count)] * T)
    )
    return Program(
        network.leaves,
        network.output,
        network.hidden,
        network.extras,
        loss=draw(st.sampled_from(["square", "log_softmax", "largest"])),
        n=draw(st.sampled_from([2, 3])),
        T=T,
        batch=batch,
        weights=draw(flags([1.0, 0.0, 2.5])),
        mask=draw(flags([True, False])),
        reset=draw(flags([False, True])),
        initial=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )
