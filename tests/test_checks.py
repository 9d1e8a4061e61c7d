"""Tests that users' mistakes raise errors that say what to do instead."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from bpvariants import diagnostics, gradients
from tests.test_losses import problem, root, SEQUENCES, step, WEIGHTS

# E-prop warns if all of the carry h is visible to other units, because e-prop then
# stores no trace.
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")
every_rule = pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)


def refuses(message, call, *args, **options):
    with pytest.raises(ValueError, match=message):
        call(*args, **options)


@every_rule
def test_step_and_loss_must_be_functions(make):
    refuses(
        r"step must be a function \(params, carry, x\) .* got None", make, None, root
    )
    refuses("loss must be a function .* got None", make, step, None)
    refuses("step must be a function .* got <class", make, dict, root)


def test_other_places_that_take_functions():
    args = problem()
    refuses("step must be a function", gradients.unroll, None, *args[:3])
    parallel = partial(gradients.parallel_unroll, method="newton")
    refuses("step must be a function", parallel, None, *args[:3])
    refuses("loss must be", gradients.backprop, [(step, jnp.tanh)], None)
    refuses("loss must be", gradients.recurrent_backprop, lambda w, h, x: h, None)
    refuses("step must be a function", diagnostics.gradient_flow, None, root, *args)


@every_rule
def test_a_step_that_returns_its_carry_alone(make):
    pair = r"step must return the pair \(carry, y\)"
    args = problem()
    refuses(f"{pair}, got an array float", make(lambda *a: step(*a)[0], root), *args)
    # Like an LSTM, this step has a carry (h, c).
    both = lambda w, hc, x: (jnp.tanh(hc[0] @ w + x), hc[1])
    _, carry, xs, targets = args
    rule = make(both, root)
    refuses("carry that step .* returns the pair", rule, args[0], (carry, carry), xs,
            targets)  # fmt: skip


@every_rule
def test_batch_major_sequences(make):
    params, carry, xs, targets = problem()
    swap = lambda tree: jnp.swapaxes(tree, 0, 1)
    rule = make(step, root)
    refuses("time-major.*swapaxes", rule, params, carry, swap(xs), swap(targets))
    refuses("time-major.*swapaxes", rule, params, carry, swap(xs), targets)
    # Also check a batch of one example, because its swapped arrays could be broadcast.
    one = carry[:1], xs[:, :1], targets[:, :1]
    refuses("time-major", rule, params, one[0], swap(one[1]), swap(one[2]))


def test_batch_major_inputs_without_a_loss():
    params, carry, xs, _ = problem()
    refuses("time-major", gradients.unroll, step, params, carry, jnp.swapaxes(xs, 0, 1))


@every_rule
def test_weights_that_are_not_for_each_loss(make):
    rule, args = make(step, root), problem()
    refuses("weights must be an array .* got 'last'", rule, *args, "last")
    refuses(r"weights must have .* \[T, \*batch\] = \(4, 2\); got shape \(4,\)",
            rule, *args, WEIGHTS[:, 0])  # fmt: skip
    refuses("mask must be an array .* got 'all'", rule, *args, mask="all")


def test_a_state_that_a_rule_keeps_is_no_carry():
    params, carry, xs, targets = problem()
    stream = gradients.stream(carry)
    online = gradients.rtrl(step, root)
    state = online.init(params, carry, (xs[0], targets[0]))
    for name, make in SEQUENCES.items():
        message = "carry must be the state of the network, got a InfluenceState"
        refuses(message, make(step, root), params, state, xs, targets)
        if "truncated" not in name:
            message = "got a TruncatedStream.*carry.carry"
            refuses(message, make(step, root), params, stream, xs, targets)
    refuses("got a TruncatedStream", gradients.unroll, step, params, stream, xs)


def test_keys():
    args = problem()
    for rule in (gradients.bptt, partial(gradients.truncated_bptt, every=2)):
        call = partial(rule(step, root), *args)
        refuses(
            "key must be left out: .*bptt draws nothing", call, key=jax.random.key(0)
        )
    drawing = [
        gradients.artbp(step, root, truncation=0.5),
        gradients.over_sequence(gradients.uoro(step, root)),
        gradients.over_sequence(gradients.rtrl(step, root)),
    ]
    online = gradients.uoro(step, root)
    state = online.init(*args[:2], (args[2][0], args[3][0]))
    now = args[0], state, args[2][0], args[3][0]
    drawing.append(lambda *_, key: online.update(*now, key=key))
    wrong = {
        "got 3": 3,
        r"key<fry>\[2\]": jax.random.split(jax.random.key(0)),
        r"uint32\[2, 2\]": jax.random.split(jax.random.PRNGKey(0)),
    }
    for message, key in wrong.items():
        for rule in drawing:
            refuses(f"key must be one key .*{message}", rule, *args, key=key)
    # Keys made by jax.random.PRNGKey, the old function, are allowed.
    drawing[0](*args, key=jax.random.PRNGKey(0))


def test_keys_of_diagnostics():
    params, carry, xs, targets = problem()
    args = params, carry, xs, targets
    check = partial(diagnostics.check_gradients, gradients.bptt(step, root), *args)
    refuses("key must be one key .* got 3", check, key=3)
    spectrum = partial(diagnostics.jacobian_spectrum, step, params, carry[0], xs[:, 0])
    refuses("key must be one key .* got 3", spectrum, key=3)


def test_forgetting_factors_are_real():
    refuses("decay must be real", gradients.discounted_weights, 3, 0.5j)
    weights = partial(gradients.discounted_weights, 3, 0.5)
    refuses("learning_rate must be real", weights, learning_rate=1j)


def test_truncation_by_default_is_twice_as_far_as_its_period():
    args = problem()
    short = gradients.truncated_bptt(step, root, every=1)
    want = gradients.truncated_bptt(step, root, every=1, lookback=2)
    assert jnp.array_equal(short(*args)[1], want(*args)[1])


@pytest.mark.parametrize("count", [True, 2.5, 2.0, 0, "2", jnp.array(2)])
def test_counts(count):
    """Check that counts must be integers, and that the error names the argument."""
    loss = root
    make = {
        "every": lambda: gradients.truncated_bptt(step, loss, every=count),
        "lookback": lambda: gradients.truncated_bptt(
            step, loss, every=1, lookback=count
        ),
        "number": lambda: gradients.remat.slots(count),
        "lengths": lambda: gradients.remat.every(count),
        "num_bytes": lambda: gradients.remat.budget(count),
        "directions": lambda: gradients.forward_gradient(step, loss, directions=count),
        "pairs": lambda: gradients.pes(step, loss, pairs=count),
        "window": lambda: gradients.pes(step, loss, window=count),
        "order": lambda: gradients.snap(step, loss, order=count),
        "max_steps": lambda: gradients.newton(max_steps=count),
    }
    if isinstance(count, jax.Array | str):
        # The setting max_steps may be a traced array, or any leaf of a pytree.
        del make["max_steps"]
    for name, call in make.items():
        refuses(f"{name} must be an integer of at least 1", call)


@pytest.mark.parametrize("batch_ndim", [True, 1.0, -1, "1"])
def test_batch_ndim_is_a_count(batch_ndim):
    args = problem()
    parallel = partial(gradients.parallel_unroll, method="newton")
    message = "batch_ndim must be the number of leading axes"
    refuses(message, parallel, step, *args[:3], batch_ndim=batch_ndim)
