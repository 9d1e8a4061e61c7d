"""Tests of the two-phase backward pass: its derivatives and its cost."""

import re
import sys
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import pytest

from bpvariants import gradients
from bpvariants.gradients.through_time import _two_phase


@pytest.fixture
def blocks_of_two(monkeypatch):
    """Use blocks of two time steps: five steps are two blocks and one more step."""
    monkeypatch.setattr(_two_phase, "block_length", lambda length, *_: min(2, length))


def real(tree):
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def derivatives(backward, step, options):
    """Return the derivatives of a loss in params, carry, xs and initial.

    The loss depends on all results of `unroll`.
    """

    def loss(params, carry, xs, initial):
        results = gradients.unroll(
            step, params, carry, xs, **options, initial=initial, backward=backward
        )
        return sum(jnp.sum(jnp.sin(leaf) ** 2) for leaf in real(results)), results

    grad = partial(jax.value_and_grad, argnums=(0, 1, 2, 3), has_aux=True)
    return jax.jit(grad(loss, allow_int=True))


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize(
    ("batch", "T"), [((), 5), ((2, 3), 5), ((3,), 1), ((0,), 5)], ids=str
)
@pytest.mark.fast_rows(2)
def test_derivatives_in_everything_are_those_of_the_scan(make_problem, cell, batch, T):
    step, _, (params, carry, xs, _), options = make_problem(cell, batch, T)
    args = params, carry, xs, options["initial"]
    flags = {name: options[name] for name in ("mask", "reset")}
    want = derivatives("scan", step, flags)(*args)
    got = derivatives("two_phase", step, flags)(*args)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    chex.assert_trees_all_close(real(got), real(want), rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("blocks_of_two")
def test_padding_may_be_nan(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem()
    mask = gradients.mask_from_lengths(jnp.array([4, 1, 0]), 5)
    spoil = lambda leaf: jnp.where(mask[..., None], leaf, jnp.nan)
    rule = jax.jit(gradients.bptt(step, loss, backward="two_phase"))
    want = rule(params, carry, xs, targets, mask=mask)
    got = rule(params, carry, spoil(xs), spoil(targets), mask=mask)
    chex.assert_tree_all_finite(got)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def elman(w, h, x):
    h = jnp.tanh(h @ w + x)
    return h, h


@pytest.mark.usefixtures("blocks_of_two")
def test_what_a_step_closes_over_has_derivatives_too():
    w, xs = jnp.array([[0.3, -0.5], [0.2, 0.7]]), jnp.arange(10.0).reshape(5, 2) / 10

    def loss(backward, scale):
        step = lambda w, h, x: elman(scale * w, h, x)
        h, _ = gradients.unroll(step, w, jnp.ones(2), xs, backward=backward)
        return jnp.sum(h)

    want = jax.grad(partial(loss, "scan"))(1.5)
    got = jax.grad(partial(loss, "two_phase"))(1.5)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


@pytest.mark.slow
def test_second_derivatives_and_maps_are_right():
    w, xs = jnp.array([[0.3, -0.5], [0.2, 0.7]]), jnp.ones((3, 2))
    ends = lambda backward, w: jnp.sum(
        gradients.unroll(elman, w, jnp.ones(2), xs, backward=backward)[0]
    )
    hessian = lambda backward: jax.jacfwd(jax.grad(partial(ends, backward)))(w)
    chex.assert_trees_all_close(hessian("two_phase"), hessian("scan"), rtol=1e-12)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(partial(ends, "two_phase"), (w,), (w,))


def test_sums_over_time_are_wide_where_parameters_are_narrow():
    rule = gradients.bptt(
        lambda w, h, x: (h, w * x), lambda y, target: y, backward="two_phase"
    )
    one, ones = jnp.ones((), jnp.bfloat16), jnp.ones(5000, jnp.bfloat16)
    assert rule(one, one, ones, ones)[1] == 1
    assert _two_phase.block_length(1000, jnp.zeros((3, 2)), True) == 1


def test_what_it_cannot_go_back_through_is_named():
    loss = lambda y, target: (y - target) ** 2
    branches = lambda w, h, x: (
        (jax.lax.cond(x > 0, lambda h: jnp.tanh(w * h), jnp.sin, h),) * 2
    )

    @jax.custom_vjp
    def clipped(h):
        return h

    clipped.defvjp(lambda h: (h, None), lambda _, g: (jnp.clip(g, -1, 1),))
    clips = lambda w, h, x: (clipped(jnp.tanh(w * h + x)),) * 2
    args = 0.5, jnp.array(0.3), jnp.array([1.0, -1.0]), jnp.zeros(2)
    rule = gradients.bptt(clips, loss, backward="two_phase")
    with pytest.raises(ValueError, match="cannot go back through this step"):
        rule(*args)
    rule = gradients.bptt(branches, loss, backward="two_phase")
    # Whether JAX can differentiate these branches depends on whether lineax is
    # imported.
    if "lineax" in sys.modules:
        want = gradients.bptt(branches, loss)(*args)
        chex.assert_trees_all_close(rule(*args), want)
    else:
        with pytest.raises(ValueError, match="cannot go back through this step"):
            rule(*args)


@cache
def compiled(backward, units=64, T=64):
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    rule = gradients.bptt(elman, loss, backward=backward)
    shapes = [(units, units), (8, units), (T, 8, units), (T, 8, units)]
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(rule).lower(*args).compile()


def products_in_loops(program):
    """Count the matrix products in the bodies of all loops of a jaxpr."""
    parts = re.split(r"\n(?=%\S+ \(|ENTRY )", program.as_text())
    parts = {part.split(" ")[0]: part for part in parts if part.startswith("%")}
    inside, new = set(), set(re.findall(r"body=(%[\w.\-]+)", program.as_text()))
    while new:
        inside |= new
        text = "\n".join(parts[name] for name in new)
        new = set(re.findall(r"%[\w.\-]+", text)) & set(parts) - inside
    return sum(parts[name].count(" dot(") for name in inside)


def test_the_backward_loop_of_tanh_has_one_product():
    """Count the products in the backward loop: 2 with a plain scan, 1 with two phases.

    The backward loop of a plain scan has one product for the carry and one for the
    weights. With two phases, only the product for the carry is in the loop.
    """
    assert products_in_loops(compiled("scan")) == 1 + 2
    assert products_in_loops(compiled("two_phase")) == 1 + 1


def test_no_weights_are_stacked_up():
    states = 4 * 64 * 8 * 64  # These are the bytes of the states of all T steps.
    # Weights stacked for all T steps would take 8 times the bytes of the states.
    weights = 4 * 64 * 64 * 64
    used = compiled("two_phase").memory_analysis().temp_size_in_bytes
    assert used < 7.5 * states < weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backward": "two"},
            "backward must be 'scan', 'two_phase' or 're.* got 'two'",
        ),
        ({"backward": "two_phase", "remat": "step"}, "remat must be None"),
    ],
)
def test_mistakes_are_named(make_problem, options, message):
    step, loss, args, _ = make_problem("tanh")
    with pytest.raises(ValueError, match=message):
        gradients.bptt(step, loss, **options)(*args)
    with pytest.raises(ValueError, match=message):
        gradients.unroll(step, *args[:3], **options)
