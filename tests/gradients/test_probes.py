"""Tests on two small networks, P and F, with values computed without this library."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from tests.problems import GOLDEN

P = json.loads((GOLDEN / "probe_p.json").read_text())
F = json.loads((GOLDEN / "probe_f.json").read_text())
close = lambda got, want, tol: chex.assert_trees_all_close(got, want, rtol=0, atol=tol)


def half_square(y, target):
    return jnp.sum((y - target) ** 2, axis=-1) / 2


@pytest.mark.parametrize("name", ["bptt", "rtrl"])
def test_probe_p(make_probe, name):
    step, loss, args, _ = make_probe()
    rules = {
        "bptt": gradients.bptt(step, loss),
        "rtrl": gradients.over_sequence(gradients.rtrl(step, loss)),
    }
    (value, last), grads = jax.jit(rules[name])(*args)
    close(6 * value, P["value"], 1e-11)
    close(last, jnp.array(P["last"]), 1e-11)
    want = [jnp.array(P[name]) for name in ("dW", "dU", "db")]
    close([6 * g for g in grads], want, 1e-9)


def test_probe_p_initial_state(make_probe):
    step, _, (params, h0, xs, targets), _ = make_probe()
    loss = lambda h0: jnp.sum(
        half_square(gradients.unroll(step, params, h0, xs)[1], targets)
    )
    close(jax.grad(loss)(h0), jnp.array(P["dh0"]), 1e-9)


@pytest.mark.parametrize("case", P["truncated"], ids=str)
@pytest.mark.fast_rows(3)
def test_probe_p_truncated(make_probe, case):
    step, _, args, _ = make_probe()
    settings = {"every": case["every"], "lookback": case["lookback"]}
    rule = gradients.truncated_bptt(step, half_square, **settings)
    exact = jax.flatten_util.ravel_pytree(gradients.bptt(step, half_square)(*args)[1])
    got = jax.flatten_util.ravel_pytree(rule(*args)[1])
    error = jnp.linalg.norm(got[0] - exact[0]) / jnp.linalg.norm(exact[0])
    close(error, case["error"], 1e-12 if case["error"] == 0 else 5e-7)


def probe_f():
    return tuple(jnp.array(F[name]) for name in ("V", "x", "t"))


def settle(V, h, x):
    return jnp.tanh(V @ h + x)


def test_probe_f():
    V, x, t = probe_f()
    tight = {"tol": 1e-14, "max_steps": 300}

    def energy(V, x):
        h, info = gradients.fixed_point(settle, V, jnp.zeros(3), x, **tight)
        return half_square(h, t), (h, info)

    (value, (h, info)), grads = jax.value_and_grad(energy, (0, 1), has_aux=True)(V, x)
    close(h, jnp.array(F["h"]), 1e-11)
    close(value, F["value"], 1e-11)
    close(grads, (jnp.array(F["dV"]), jnp.array(F["dx"])), 1e-9)
    assert info.converged
    np.testing.assert_allclose(info.spectral_radius, F["spectral_radius"], rtol=0.02)

    rule = gradients.recurrent_backprop(settle, half_square, **tight)
    (value, equilibrium), grad = rule(V, jnp.zeros(3), x, t)
    close((value, equilibrium.h, grad), (F["value"], h, grads[0]), 1e-11)
    assert equilibrium.adjoint.converged


@pytest.mark.parametrize("terms", F["neumann"])
@pytest.mark.fast_rows(2)
def test_probe_f_neumann(terms):
    V, x, t = probe_f()
    rule = gradients.recurrent_backprop(
        settle, half_square, tol=1e-13, adjoint=gradients.adjoints.neumann(int(terms))
    )
    (_, equilibrium), grad = rule(V, jnp.zeros(3), x, t)
    want = jnp.array(F["dV"])
    error = jnp.linalg.norm(grad - want) / jnp.linalg.norm(want)
    np.testing.assert_allclose(error, F["neumann"][terms], rtol=2e-4)
    # After K terms of the Neumann series, the residual of the adjoint equation z = Jᵀ z
    # + b is (Jᵀ)^{K+1} b.
    h = equilibrium.h
    jacobian = (1 - h[:, None] ** 2) * V
    b = h - t
    residual = jnp.linalg.matrix_power(jacobian.T, int(terms) + 1) @ b
    want = jnp.linalg.norm(residual) / jnp.linalg.norm(b)
    np.testing.assert_allclose(equilibrium.adjoint.residual, want, rtol=1e-10)


@pytest.mark.parametrize("damping", F["forward"])
def test_probe_f_relaxation(damping):
    V, x, _ = probe_f()
    # This tolerance on ‖f(h) − h‖ / ‖h‖ equals a tolerance of 1e-10 on the damped step.
    tol = 1e-10 / float(damping) / jnp.linalg.norm(jnp.array(F["h"])).item()
    _, info = gradients.fixed_point(
        settle, V, jnp.zeros(3), x, damping=float(damping), tol=tol
    )
    # The reference number of iterations does not include the last one, which only
    # confirms convergence.
    assert info.steps == F["forward"][damping] + 1
