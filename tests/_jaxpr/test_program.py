"""Tests of the evaluation of jaxprs while tracing."""

import jax
import jax.numpy as jnp

from bpvariants import gradients
from bpvariants._jaxpr import linearisation, rearrangements
from bpvariants._jaxpr.program import evaluated_on_cpu


def test_primitives_run_at_once_while_tracing():
    @jax.jit
    def traced(x):
        with evaluated_on_cpu():
            one = jnp.cos(jnp.float32(0))
            assert float(one) == 1  # a tracer has no value
            assert {device.platform for device in one.devices()} == {"cpu"}
        return x + one

    assert traced(jnp.float32(1)) == 2


def test_planning_does_not_use_the_default_device(monkeypatch):
    used = set()

    def watch(module):
        run = module.run_equation

        def watched(*args, **options):
            results = run(*args, **options)
            used.update(*(result.devices() for result in results))
            return results

        monkeypatch.setattr(module, "run_equation", watched)

    watch(linearisation)
    watch(rearrangements)
    W, h = jnp.ones((3, 3)), jnp.ones(3)
    mask = (jnp.arange(9).reshape(3, 3) > 3).astype(float)

    def step(W, h, x):
        h = jnp.tanh(h @ (W * jnp.sort(mask[::-1], axis=0)) + x)
        return h, h

    rule = gradients.snap(step, lambda y, target: jnp.sum(y) - target, order=1)
    first, second = jax.devices()[:2]
    with jax.default_device(second):  # takes the place of an accelerator
        jax.eval_shape(rule.init, W, h, (h, jnp.zeros(())))
    assert used == {first}
