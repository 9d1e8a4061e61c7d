"""Tests of reports on updates, memory and operations, with values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import diagnostics

close = np.testing.assert_allclose


def test_update_report_of_known_numbers():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(3), "c": jnp.ones((2, 2))}
    updates = {
        "a": jnp.array([0.3, -0.4]),
        "b": jnp.array([0.0, 0.0, 2.0]),
        "c": jnp.array([[jnp.nan, 1], [jnp.inf, 0]]),
    }
    report = jax.jit(diagnostics.update_report)(updates, params)
    a, b, c = (report.leaves[name] for name in "abc")
    close(a, [0.5, 0.4, 0, 0, 0.1])
    close(b, [2, 2, 2 / 3, 0, np.nan])
    assert (c.nonfinite, c.zeros) == (2, 0.25)
    assert np.isnan(c.norm)
    total = report.total
    assert (total.nonfinite, total.zeros) == (2, 3 / 9)
    good = {name: updates[name] for name in "ab"}
    total = diagnostics.update_report(good, {name: params[name] for name in "ab"}).total
    close(total, [4.25**0.5, 2, 2 / 5, 0, 4.25**0.5 / 5])
    line = next(row for row in report.table().splitlines() if "['b']" in row)
    assert line.split() == ["['b']", "2.000", "2.000", "66.7%", "0", "nan"]


def test_update_report_in_low_precision_and_of_nearly_nothing():
    params = jnp.ones(4, jnp.bfloat16)
    updates = jnp.full(4, 1e-30, jnp.bfloat16)
    total = diagnostics.update_report(updates, params).total
    assert total.norm.dtype == jnp.float32
    close(total.norm, 2e-30, rtol=1e-2)
    close(total.ratio, 1e-30, rtol=1e-2)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (jnp.arange(3), "updates must be a floating array, got int"),
        (jnp.ones(2), r"updates must have the structure and shapes of params, \(3,\)"),
        ([jnp.ones(3)], "updates must have the structure and shapes of params"),
    ],
)
def test_bad_input_of_an_update_report(updates, message):
    with pytest.raises(ValueError, match=message):
        diagnostics.update_report(updates, jnp.ones(3))


def total_of_scan(w, xs):
    body = lambda h, x: (jnp.tanh(h @ w + x), None)
    return jnp.sum(jax.lax.scan(body, xs[0], xs)[0])


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_memory_of_a_program():
    w, xs = shape(16, 16), shape(50, 8, 16)
    forward = diagnostics.memory_report(total_of_scan, w, xs)
    backward = diagnostics.memory_report(jax.grad(total_of_scan), w, xs)
    assert forward.arguments == backward.arguments == 4 * (16 * 16 + 50 * 8 * 16)
    assert (forward.outputs, backward.outputs) == (4, 4 * 16 * 16)
    # The backward pass stores at least the carries of all T = 50 time steps.
    kept = 4 * 50 * 8 * 16
    assert backward.temporaries >= kept > forward.temporaries
    assert forward.total == sum(forward) - 2 * forward.aliased
    rows = [row.split() for row in forward.table().splitlines()]
    assert rows[1] == ["arguments", "26624", "26.0", "KiB"]
    assert [row[0] for row in rows[1:]] == [*forward._fields, "total"]


def test_donated_memory_is_counted_once():
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    report = diagnostics.memory_report(add, shape(1000))
    assert report.aliased == 4000
    assert report.total - report.temporaries - report.code == 4000


def test_cost_of_a_product():
    report = diagnostics.cost_report(
        lambda a, b: jnp.tanh(a @ b), shape(8, 32), shape(32, 16)
    )
    assert 2 * 8 * 32 * 16 <= report.flops < 2.2 * 8 * 32 * 16
    assert report.transcendentals == 8 * 16
    assert report.bytes_accessed >= 4 * (8 * 32 + 32 * 16 + 8 * 16)
    assert report.loops == ()
    assert "loop" not in report.table()


def test_cost_of_a_loop_is_that_of_a_step_and_says_so():
    short, long = (
        diagnostics.cost_report(total_of_scan, shape(16, 16), shape(T, 8, 16))
        for T in (5, 500)
    )
    assert short.loops == (5,)
    assert long.loops == (500,)
    assert short.flops == long.flops
    assert long.table().endswith("loops of 500 steps.")


def test_reports_are_made_while_tracing():
    found = []

    @jax.jit
    def traced(x):
        found.append(diagnostics.memory_report(jnp.sin, x))
        return x

    traced(jnp.ones(10, jnp.float32))
    assert found[0].arguments == 40
