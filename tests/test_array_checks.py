"""Tests of the checks of array arguments."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import adapters, gradients, training, updates
from bpvariants._checks import check_arrays, check_floating

MODULE = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
WITH_TEXT = {"w": jnp.ones(2), "activation": "tanh"}
rule = jax.value_and_grad(lambda w: (jnp.sum(w["w"] ** 2), None), has_aux=True)
sequence = jnp.ones((3, 2))
USES = {
    "rule": lambda params: gradients.bptt(lambda *_: None, lambda *_: None)(
        params, jnp.zeros(2), sequence, sequence
    ),
    "update": lambda params: updates.rprop(0.1).init(params),
    "fit": lambda params: training.fit(rule, optax.sgd(0.1), params, (), steps=1),
    "read": lambda params: training.read_checkpoint("not there", params),
}


@pytest.mark.parametrize("use", USES)
def test_a_leaf_that_is_no_array_is_named(use):
    named = r"params\.activation must be an array, got .*, a custom_jvp; .*eqx\.filter"
    with pytest.raises(ValueError, match=named):
        USES[use](MODULE)
    with pytest.raises(ValueError, match=r"params\['activation'\] .* got 'tanh', a st"):
        USES[use](WITH_TEXT)


def test_a_leaf_of_a_sequence_that_is_no_array_is_named():
    rule = gradients.bptt(lambda *_: None, lambda *_: None)
    for xs, targets in (((sequence, "a"), sequence), (sequence, (sequence, "a"))):
        with pytest.raises(ValueError, match=r"\[1\] must be an array, got 'a', a str"):
            rule(jnp.ones(2), jnp.zeros(2), xs, targets)


def test_the_remedies_that_are_named_give_params():
    for params in (
        adapters.from_equinox(MODULE)[1],
        eqx.filter(MODULE, eqx.is_inexact_array),
    ):
        check_floating("params", params)
        updates.rprop(0.1).init(params)


@pytest.mark.parametrize(
    "leaf",
    ["float32", jnp.float32, np.dtype("float32"), jnp.tanh, np.array("a"), [object()]],
)
def test_what_only_names_a_dtype_is_no_array(leaf):
    with pytest.raises(ValueError, match=r"params.* must be an array, got "):
        check_arrays("params", leaf)


def test_arrays_and_numbers_pass():
    half = np.ones(2, jnp.bfloat16)
    check_arrays("params", [1, 1.0, True, half, jax.random.key(0), None])
    shape = jax.ShapeDtypeStruct((2,), jax.random.key(0).dtype)
    check_arrays("params", [shape, jax.ShapeDtypeStruct((), jnp.float16)])
    jax.eval_shape(lambda x: check_floating("params", x), half)
