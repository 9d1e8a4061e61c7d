"""Check that each new carry element is an affine function of its own old value.

The check gives each array of the step's jaxpr a label. An array that does not depend on
the old carry gets None, and an array that is affine in one leaf of the old carry gets
the leaf's index. The label of any other array is the name of an operation that is not
affine or that mixes elements. The check accepts primitives that this file does not
know, although they may not be affine. Therefore, the caller also compares values of the
new carry with an affine function at run time.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._jaxpr.program import called, CALLS, evaluate
from bpvariants.types import PyTree, Step

# fmt: off
# Element-wise primitives that are not affine.
BENDS = {
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "conj", "cos", "cosh", "digamma", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "imag", "integer_pow", "lgamma", "log", "log1p", "logistic",
    "max", "min", "nextafter", "pow", "real", "rem", "round", "rsqrt", "sign", "sin",
    "sinh", "sqrt", "square", "tan", "tanh",
}
# Primitives that combine different elements of an array.
MIXES = {
    "conv_general_dilated", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
    "fft", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum", "sort",
}
# Loops and branches. The check does not read the jaxprs of their bodies, and treats
# their results as independent of the old carry.
LOOPS = {"cond", "scan", "while"}
# fmt: on

# Label of an array in the step's jaxpr. None: the array does not depend on the old
# carry. int: the array is affine in the leaf of the old carry with this index. str: the
# array is affine in no single leaf, because it was computed by the operation with this
# name.
Label = int | str | None


def check_affine(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> None:
    """Raise an error if the new carry cannot be A ⊙ h + u, where h is the old carry.

    The factors A and the summands u may depend on params and x, but not on h.
    """
    why = _why_not_affine(step, params, carry, x)
    if why is not None:
        raise ValueError(
            "method='linear' needs a new carry that is A * carry + u, element by "
            f"element, but {why}. Give method='newton'."
        )


def _why_not_affine(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> str | None:
    """Return the reason why the new carry is not affine in the old carry, or None."""
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(carry)]
    new_carry = lambda params, carry, x: step(params, carry, x)[0]
    jaxpr = jax.make_jaxpr(new_carry)(params, carry, x).jaxpr
    before = len(jax.tree.leaves(params))
    after = len(jaxpr.invars) - before - len(paths)
    labels: list[Label] = [None] * before
    labels += [*range(len(paths)), *[None] * after]
    for leaf, label in enumerate(_follow(jaxpr, labels)):
        if isinstance(label, str):
            return f"the new carry{paths[leaf]} is computed from the old one by {label}"
        if label is not None and label != leaf:
            return f"the new carry{paths[leaf]} depends on the old carry{paths[label]}"
    return None


def _follow(jaxpr: Any, inputs: Sequence[Label]) -> list[Label]:
    def label(equation, labels):
        inner = called(equation, CALLS | {"custom_vjp_call"})
        if inner is not None and len(inner[0].invars) == len(labels):
            return _follow(inner[0], labels)
        return [_label(equation, labels)] * len(equation.outvars)

    constant = [None] * len(jaxpr.constvars)
    return evaluate(jaxpr, constant, inputs, label, of_literal=lambda atom: None)


def _label(equation: Any, labels: list[Label]) -> Label:
    name = equation.primitive.name
    given = [label for label in labels if label is not None]
    for label in given:
        if isinstance(label, str):
            return label
    if not given or name in LOOPS:
        return None
    twice = len(given) > 1
    divides = name == "div" and labels[1] is not None
    decides = name == "select_n" and labels[0] is not None
    floating = all(
        jnp.issubdtype(variable.aval.dtype, jnp.inexact)
        for variable in equation.outvars
    )
    if name in BENDS or name in MIXES or divides or decides or not floating:
        return name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        if twice or any(shape[axis] > 1 for axis in contracted):
            return "a matrix product (dot_general)"
    if name == "mul" and twice:
        return "a product with itself (mul)"
    if len(set(given)) > 1:
        return f"a mixture of its leaves ({name})"
    return given[0]
