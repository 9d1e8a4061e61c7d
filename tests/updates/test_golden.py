"""Tests of all updates against golden traces, which were computed by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates
from tests.problems import GOLDEN

FILES = sorted(GOLDEN.glob("*.json"))
TRACES = {
    f"{path.stem}-{k}-{trace['update']}": trace
    for path in FILES
    for k, trace in enumerate(json.loads(path.read_text()).get("traces", []))
}
close = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)


def run(optimizer, grads, values=None):
    optimizer = optax.with_extra_args_support(optimizer)
    grads = jnp.array(grads)
    values = jnp.zeros_like(grads) if values is None else jnp.array(values)

    def body(state, inputs):
        grad, value = inputs
        update, state = optimizer.update(grad, state, value=value)
        return state, update

    return jax.lax.scan(body, optimizer.init(grads[0]), (grads, values))[1]


@pytest.mark.filterwarnings("ignore:forgetting with scale_past=False")
@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_update_reproduces_its_trace(trace):
    optimizer = getattr(updates, trace["update"])(**trace["arguments"])
    close(run(optimizer, trace["grads"], trace.get("values")), trace["updates"])


@pytest.mark.parametrize("name", ["rprop_plus", "rprop_minus", "irprop_plus", "rprop"])
def test_no_update_is_that_of_the_step_before(name):
    # Compare recorded values, because the installed optax may be a later version.
    trace = TRACES["rprop_stale-0-rprop"]
    got = run(getattr(updates, name)(**trace["arguments"]), trace["grads"])
    assert got[0] == -0.1
    assert not np.allclose(got, trace["stale"])
