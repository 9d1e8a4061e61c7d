"""Online rules, all of them: no parameter is left without its gradient."""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from bpvariants import gradients

ONLINE = {  # a rule that is added here is held to every network
    "rtrl": gradients.rtrl,
    "snap": partial(gradients.snap, order=1),
    "rflo": gradients.rflo,
    "uoro": gradients.uoro,
    "forward_gradient": gradients.forward_gradient,
    "kf_rtrl": gradients.kf_rtrl,
}
RANDOM = {"uoro", "forward_gradient", "kf_rtrl"}


def test_every_parameter_gets_a_gradient_by_every_rule(make_problem, cell):
    step, loss, (params, carry, xs, targets), _ = make_problem(cell, (2,), T=3)

    @jax.jit  # one program for all, which takes least time to compile
    def all_rules(params):
        found = {"bptt": gradients.bptt(step, loss)(params, carry, xs, targets)}
        for name, make in ONLINE.items():
            if cell == "nested" and name == "kf_rtrl":
                continue  # refuses it: the readout is used twice
            rule = gradients.over_sequence(make(step, loss))
            key = {"key": jax.random.key(0)} if name in RANDOM else {}
            found[name] = rule(params, carry, xs, targets, **key)
        return found

    found = all_rules(params)
    (value, last), want = found["bptt"]
    for name, ((got, carry), grads) in found.items():
        chex.assert_trees_all_close((got, carry), (value, last), rtol=1e-12)
        for (path, grad), exact in zip(
            jax.tree.leaves_with_path(grads), jax.tree.leaves(want), strict=True
        ):
            place = name, jax.tree_util.keystr(path)
            assert jnp.any(exact != 0), place
            assert jnp.any(grad != 0), place


def test_the_value_and_the_carry_of_every_rule_can_be_differentiated(make_problem):
    step, loss, (params, *rest), _ = make_problem("tanh", (), T=3)

    def total(rule, params, **key):
        (value, last), _ = rule(params, *rest, **key)
        return value + sum(map(jnp.sum, jax.tree.leaves(last)))

    @jax.jit
    def all_rules(params):
        found = {}
        for name, make in ONLINE.items():
            key = {"key": jax.random.key(0)} if name in RANDOM else {}
            rule = gradients.over_sequence(make(step, loss))
            found[name] = jax.grad(partial(total, rule, **key))(params)
        return found, jax.grad(partial(total, gradients.bptt(step, loss)))(params)

    found, want = all_rules(params)
    for grads in found.values():
        chex.assert_trees_all_close(grads, want, rtol=1e-9, atol=1e-12)


def test_every_rule_takes_a_batch_of_no_examples(make_problem):
    step, loss, args, _ = make_problem("tanh", (0,), T=2)
    for name, make in ONLINE.items():
        key = {"key": jax.random.key(0)} if name in RANDOM else {}
        (value, _), grads = gradients.over_sequence(make(step, loss))(*args, **key)
        assert value == 0
        chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, args[0]))
