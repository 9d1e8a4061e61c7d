"""Limitations that docs/limitations.md lists and that no other test shows.

If one of these tests fails because a limitation is gone, delete the test and its line.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, training, updates


def square(y, target):
    return (y - target) ** 2


@pytest.mark.slow
def test_a_step_that_normalises_over_the_batch():
    """RTRL gives the step one example at a time, whose mean is the example itself."""

    def step(w, h, x):
        h = w * h + x
        return h, h - jnp.mean(h)

    args = jnp.array(0.5), jnp.zeros(2), jnp.array([[1.0, 2.0]] * 2), jnp.zeros((2, 2))
    _, exact = gradients.bptt(step, square)(*args)
    _, one_by_one = gradients.over_sequence(gradients.rtrl(step, square))(*args)
    assert abs(exact) > 0.1
    assert one_by_one == 0


def test_a_step_of_weight_0_whose_output_has_an_infinite_derivative():
    step = lambda w, h, x: (h + x, jnp.sqrt(w * h))  # h = 0 at the first step
    args = jnp.array(1.0), jnp.array(0.0), jnp.array([4.0, 0.0]), jnp.array([0.0, 1.0])
    rule = gradients.bptt(step, square)
    (value, _), grad = rule(*args, weights=jnp.array([0.0, 1.0]))
    assert value == 1
    assert jnp.isnan(grad)
    step = lambda w, h, x: (h + x, jnp.sqrt(w * (h + 1e-6)))
    rule = gradients.bptt(step, square)
    (value, _), grad = rule(*args, weights=jnp.array([0.0, 1.0]))
    # The output is about 2 √w, so the derivative of (2 √w − 1)² at w = 1 is 2.
    np.testing.assert_allclose((value, grad), (1, 2), rtol=1e-5)


@pytest.mark.slow
def test_a_product_of_decays_that_overflows():
    """The factor 10^400 overflows in float32, although h is 0 until the last step."""
    step = lambda decay, h, x: (decay * h + x,) * 2
    xs = jnp.zeros(400, jnp.float32).at[-1].set(1.0)
    args = jnp.float32(10.0), jnp.float32(0.0), xs
    (last, _), info = gradients.parallel_unroll(step, *args, method="linear")
    assert jnp.isnan(last)
    assert not info.converged
    assert gradients.unroll(step, *args)[0] == 1


@pytest.mark.slow
def test_an_influence_of_parameters_that_have_changed():
    """After a change of w, the influence is not ∂h/∂w at the new w."""
    rule = gradients.rtrl(lambda w, h, x: (w * h + x,) * 2, square)
    influence = {}
    for name, ws in {"changed": (0.5, 2.0, 2.0), "new": (2.0, 2.0, 2.0)}.items():
        state = rule.init(jnp.array(ws[0]), jnp.array(1.0), (1.0, 0.0))
        for w in ws:
            _, _, state = rule.update(jnp.array(w), state, 1.0, 0.0)
        influence[name] = state.influence[0].item()
    # h is 1, 1.5, 4 along the changed parameters, and 1, 3, 7 along the new ones.
    assert influence == {"changed": 2 * (2 * 1 + 1.5) + 4, "new": 2 * (2 * 1 + 3) + 7}


@pytest.mark.slow
def test_float32_gradients_agree_to_less_than_float64_gradients():
    step = lambda w, h, x: (jnp.tanh(h @ w + x),) * 2
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
    numbers = 0.5 * draw(0, 4, 4), draw(1, 4), draw(2, 30, 4), draw(3, 30, 4)
    error = {}
    for dtype in (jnp.float32, jnp.float64):
        args = [leaf.astype(dtype) for leaf in numbers]
        _, exact = gradients.bptt(step, loss)(*args)
        _, forward = gradients.over_sequence(gradients.rtrl(step, loss))(*args)
        norm = jnp.linalg.norm
        error[dtype] = (norm(forward - exact) / norm(exact)).item()
    assert error[jnp.float64] < 1e-12
    assert 1e-9 < error[jnp.float32] < 1e-5


def test_a_transformation_that_follows_steps_back():
    """A schedule in the chain scales the step back; `after=` takes it back exactly."""
    halved = optax.scale_by_schedule(lambda count: 0.5**count)
    ends = []
    for optimizer in (
        optax.chain(updates.rprop_plus(0.1), halved),
        updates.rprop_plus(0.1, after=halved),
    ):
        w = jnp.array(1.0)
        state = optimizer.init(w)
        for grad in (1.0, -1.0):
            change, state = optimizer.update(jnp.array(grad), state, w)
            w = optax.apply_updates(w, change)
        ends.append(w.item())
    assert ends == [pytest.approx(0.95), 1]


@pytest.mark.slow
def test_recursive_least_squares_without_varying_inputs():
    rule = updates.recursive_least_squares(0.5)
    w = jnp.zeros(2, jnp.float32)
    x = jnp.array([1.0, 0.0], jnp.float32)  # the second input never varies

    def body(carry, _):
        return rule.update(*carry, x, jnp.float32(1.0)), None

    run = lambda steps: jax.lax.scan(body, (w, rule.init(w)), length=steps)[0][0]
    np.testing.assert_allclose(run(50), [1, 0], atol=1e-5)
    assert jnp.isnan(run(300)).any()


@pytest.mark.slow
def test_a_checkpoint_does_not_notice_other_data(tmp_path):
    objective = lambda w, x: (jnp.sum((w - x) ** 2), None)
    rule = jax.value_and_grad(objective, has_aux=True)
    for steps, x in ((2, 1.0), (4, 5.0)):
        result = training.fit(
            rule,
            optax.sgd(0.25),
            jnp.array(0.0),
            (jnp.array(x),),
            steps=steps,
            chunk=2,
            checkpoint=training.Checkpoint(tmp_path / "run"),
        )
    # Two steps to 1, then two steps to 5: each step halves the distance.
    assert result.params == 5 - (5 - 0.75) / 4
