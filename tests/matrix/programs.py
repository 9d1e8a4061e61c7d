"""Compiled gradient rules, and checks of their results under all test conditions.

Each check compares one result with a reference gradient, or compares the results of two
calls. Each check has a name, which is printed if the check fails. Compilation takes
most of the time, so each compiled gradient rule is used for many checks.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.flatten_util import ravel_pytree

from tests.matrix import cases, oracle
from tests.matrix.cases import Layout
from tests.matrix.networks import networks
from tests.matrix.rules import ONLINE, THROUGH_TIME

RULES = THROUGH_TIME | ONLINE
# Allowed error, relative to the largest entry of the reference array
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "bfloat16": 0.1}


class Result(NamedTuple):
    """Loss, last carry and gradient from one call of a gradient rule, in NumPy."""

    value: Any
    last: list[Any]  # leaves of the last carry
    grads: Any  # gradient of all p parameters, as one vector


class Program(NamedTuple):
    """A gradient rule for one network and layout, called in one way (see `Way`)."""

    rule: str
    network: str
    layout: Layout = Layout()
    way: str = "jit"

    @property
    def name(self):
        return f"{self.rule}/{self.network}/{self.layout.name}/{self.way}"

    def cells(self) -> list[str]:
        """Return the names of all checks of this compiled gradient rule."""
        claims = list(WAYS[self.way].conditions(self.layout))
        if self.checks_all():
            claims += claims_of(self)
        return [f"{self.name}/{claim}" for claim in claims]

    def checks_all(self) -> bool:
        """Return whether the results of pairs of calls are compared, too."""
        return self.way == "jit" and 0 not in self.layout.batch


class Way(NamedTuple):
    """A way to call gradient rules, such as `vmap`, and conditions to test with it."""

    call: Any  # (rule, key, params of each case, cases) -> results
    conditions: Any = lambda layout: FEW
    sees: Any = lambda case: case  # changes the arguments for the reference gradient


FEW = [
    "plain",
    "mask_random",
    "mask_nothing",
    "reset_random",
    "weights_random",
    "weights_zero",
    "nan_in_padding",
    "nan_target_of_weight_0",
    "everything_0",
    "everything_1",
    "everything_2",
    "everything_3",
]
MASKS = ["plain", *(name for name in cases.CONDITIONS if name.startswith("mask"))]
RESETS = [
    "plain",
    *(
        name
        for name in cases.CONDITIONS
        if name.startswith("reset") and "padding" not in name
    ),
]
WEIGHTS = ["plain", *(name for name in cases.CONDITIONS if name.startswith("weights"))]


def _one_by_one(transform):
    def call(rule, key, params, given):
        run = transform(rule)
        return [run(p, *case, **key) for p, case in zip(params, given, strict=True)]

    return call


def _together(transform):
    def call(rule, key, params, given):
        stack = lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])
        stacked = jax.tree.map(stack, *zip(params, given, strict=True))
        run = lambda p, case: rule(p, *case, **key)
        found = jax.jit(transform(run))(*stacked)
        return [jax.tree.map(lambda leaf: leaf[i], found) for i in range(len(given))]  # noqa: B023

    return call


def _scanned(run):
    body = lambda _, each: (None, run(*each))
    return lambda *stacked: jax.lax.scan(body, None, stacked)[1]


def _donated(rule):
    run = jax.jit(rule, donate_argnums=(0, 1))
    own = lambda tree: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
    return lambda params, carry, *rest, **key: run(
        own(params), own(carry), *rest, **key
    )


def _value_grad(rule):
    """Compute the gradient as JAX's derivative of the value that a rule returns."""

    def run(params, *args, **key):
        of_value = lambda params: rule(params, *args, **key)[0]
        return jax.value_and_grad(of_value, has_aux=True)(params)

    return jax.jit(run)


def _four_devices(rule):
    mesh = jax.sharding.Mesh(jax.devices()[:4], ("data",))
    places = [
        jax.NamedSharding(mesh, jax.P(*axes)) for axes in (["data"], [None, "data"])
    ]
    run = jax.jit(rule)

    def sharded(params, *case, **key):
        case = cases.Case(*case)
        put = lambda name, value: jax.device_put(
            value, places[name not in ("carry", "initial")]
        )
        given = [put(name, value) for name, value in case._asdict().items()]
        return jax.device_get(run(params, *given, **key))

    return sharded


def _only(*names):
    """Call a gradient rule with only the named optional arguments."""

    def transform(rule):
        def run(params, carry, xs, targets, *options, **key):
            options = dict(zip(cases.Case._fields[3:], options, strict=True))
            given = {name: options[name] for name in names}
            return rule(params, carry, xs, targets, **given, **key)

        return jax.jit(run)

    return transform


WAYS = {
    "jit": Way(_one_by_one(jax.jit), cases.conditions_of),
    "eager": Way(_one_by_one(lambda rule: rule), lambda layout: ["everything_0"]),
    "vmap": Way(_together(jax.vmap)),
    "scan": Way(_together(_scanned)),
    "donated": Way(_one_by_one(_donated)),
    "value_grad": Way(_one_by_one(_value_grad)),
    "four_devices": Way(_one_by_one(_four_devices)),
    "only_sequence": Way(_one_by_one(_only()), lambda layout: ["plain"]),
    "only_mask": Way(_one_by_one(_only("mask")), lambda layout: MASKS),
    "only_reset": Way(
        _one_by_one(_only("reset")),
        lambda layout: RESETS,
        lambda case: case._replace(initial=case.carry),
    ),
    "only_weights": Way(_one_by_one(_only("weights")), lambda layout: WEIGHTS),
}


def as_result(found):
    (value, last), grads = found
    flat, _ = ravel_pytree(grads)
    return Result(np.asarray(value), oracle.numbers_of(last), np.asarray(flat))


def key_of(rule, seed=0):
    return {"key": jax.random.key(seed)} if RULES[rule].drawn else {}


def params_of(program, condition) -> Any:
    """Return float64 parameters; under vmap, every second call gets others."""
    params = cases.rounded(networks()[program.network].params, program.layout.dtype)
    second = program.way == "vmap" and FEW.index(condition) % 2
    return jax.tree.map(lambda leaf: 0.75 * leaf, params) if second else params


@cache
def results(program) -> dict[str, Result]:
    """Compile a gradient rule and call it for each of its test conditions."""
    network, dtype = networks()[program.network], program.layout.dtype
    way = WAYS[program.way]
    names = way.conditions(program.layout)
    given = [cases.make(program.network, program.layout, name) for name in names]
    params = [params_of(program, name) for name in names]
    rule = RULES[program.rule].make(network)
    found = way.call(
        rule, key_of(program.rule), cases.cast(params, dtype), cases.cast(given, dtype)
    )
    return dict(zip(names, map(as_result, found), strict=True))


@cache
def wanted(network, layout, condition, way="jit", scaled=False):
    """Run a network without the library, and return the Jacobians of all time steps."""
    case = WAYS[way].sees(cases.make(network, layout, condition))
    params = cases.rounded(networks()[network].params, layout.dtype)
    if scaled:
        params = jax.tree.map(lambda leaf: 0.75 * leaf, params)
    return oracle.follow(network, params, case)


def trajectory_of(program, condition):
    scaled = program.way == "vmap" and FEW.index(condition) % 2 == 1
    way = program.way if program.way == "only_reset" else "jit"
    return wanted(program.network, program.layout, condition, way, scaled)


def assert_near(what, got, want, tolerance):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, wanted {want.shape}"
    scale = np.max(np.abs(want), initial=0)
    error = np.max(np.abs(got - want), initial=0)
    # If the error is NaN, this assertion fails.
    assert error <= tolerance * max(scale, 1e-3), (
        f"{what}: error {error:.2e} at scale {scale:.2e}, {got} for {want}"
    )


def assert_result(program, result, trajectory, grads_of):
    """Compare value, carry and gradient with references.

    The gradient of a random rule has no reference, except for readout parameters, if
    the rule is exact for them.
    """
    tolerance = TOLERANCE[program.layout.dtype]
    assert_near("value", result.value, oracle.value_of(trajectory), tolerance)
    for got, want in zip(result.last, trajectory.last, strict=True):
        exact = not jnp.issubdtype(want.dtype, jnp.floating)
        assert_near("carry", got, want, 0 if exact else tolerance)
    if grads_of is not None:
        want = grads_of(trajectory)
        assert_near("grads", result.grads, want, tolerance)
        return
    grads = np.asarray(result.grads, np.float64)
    assert np.all(np.isfinite(grads)), f"grads: not finite, {grads}"
    counts = any(step.weight != 0 for found in trajectory.steps for step in found)
    assert counts or not np.any(grads), f"grads: nothing counts, but {grads}"
    if RULES[program.rule].exact_alone:
        apart = ~np.any(oracle.pattern(program.network, 1), axis=0)
        assert np.any(apart)
        want = oracle.exact(trajectory)[apart]
        assert_near("grads of readout", grads[apart], want, tolerance)


def oracle_of(program, condition):
    row = RULES[program.rule]
    # In these two cases, no error signal passes from one time step to another.
    alone = program.layout.length == 1 or condition == "reset_always"
    # For every gradient rule, JAX's derivative of the returned value is exact.
    if program.way == "value_grad" or (row.exact_alone and alone):
        return oracle.exact
    return None if row.wants is None else row.wants(program.network)


# Checks that compare the results of two calls. Each is a function (call, case, random
# generator), where call(case, seed=0) returns a Result.


def _same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def _padding_is_ignored(call, case, numbers):
    del numbers
    _same(call(cases.spoilt(case)), call(cases.spoilt(case, 3.5)))


def _resets_in_padding_are_ignored(call, case, numbers):
    flipped = case.reset ^ (~case.mask & (numbers.random(case.mask.shape) < 0.7))
    _same(call(case), call(case._replace(reset=flipped)))


def _initial_matters_only_at_resets(call, case, numbers):
    other = cases.floats(lambda leaf: leaf + numbers.normal(), case.initial)
    case = case._replace(reset=np.zeros_like(case.reset))
    _same(call(case), call(case._replace(initial=other)))


def _scale_of_weights_is_ignored(call, case, numbers):
    del numbers
    _same(call(case), call(case._replace(weights=8 * case.weights)))


def _missing_labels_are_ignored(call, case, numbers):
    del numbers
    got, want = call(cases.without_label(case)), call(cases.without_label(case, -2.0))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-6, atol=1e-12
        )


def _same_numbers_twice(call, case, numbers):
    del numbers
    _same(call(case), call(case))


def _key_matters(call, case, numbers):
    del numbers
    found = [call(case, seed).grads.astype(float) for seed in range(4)]
    assert len({each.tobytes() for each in found}) > 1, "all keys give one gradient"


CLAIMS = {
    "same_numbers_twice": ("everything_3", _same_numbers_twice),
    "padding_is_ignored": ("everything_3", _padding_is_ignored),
    "resets_in_padding_are_ignored": ("everything_3", _resets_in_padding_are_ignored),
    "initial_matters_only_at_resets": ("everything_3", _initial_matters_only_at_resets),
    "scale_of_weights_is_ignored": ("everything_3", _scale_of_weights_is_ignored),
    "missing_labels_are_ignored": ("everything_3", _missing_labels_are_ignored),
    "key_matters": ("weights_random", _key_matters),
    # These two checks have no function here; `_check_all` makes them.
    "dtypes": None,
    "traced_once": None,
}


def claims_of(program) -> list[str]:
    """Return the names of the checks that compare the results of two calls."""
    row = RULES[program.rule]
    draws = row.wants is None and not (row.exact_alone and program.layout.length == 1)
    return [name for name in CLAIMS if name != "key_matters" or draws]


def check(program) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each check, with an error message or None."""
    if program.checks_all():
        yield from _check_all(program)
    else:
        yield from _check_conditions(program, results(program))


def _check_conditions(program, found):
    for condition in WAYS[program.way].conditions(program.layout):
        trajectory = trajectory_of(program, condition)
        grads_of = oracle_of(program, condition)
        wrong = _wrong(assert_result, program, found[condition], trajectory, grads_of)
        yield f"{program.name}/{condition}", wrong


def _wrong(claim, *args):
    try:
        claim(*args)
    except AssertionError as error:
        return str(error).strip()[:400]
    return None


@cache
def _compiled(program):
    """Compile a gradient rule for the checks that compare the results of two calls.

    Return a function that calls it, a list with one entry for each trace, and a
    function that returns the results as JAX arrays.
    """
    network, dtype, traces = networks()[program.network], program.layout.dtype, []
    rule = RULES[program.rule].make(network)

    @jax.jit
    def run(params, *case, **key):
        traces.append(1)
        return rule(params, *case, **key)

    params = cases.cast(params_of(program, "plain"), dtype)
    raw = lambda case, seed=0: run(
        params, *cases.cast(case, dtype), **key_of(program.rule, seed)
    )
    return (lambda *args: as_result(raw(*args))), traces, raw


DEFAULT_RESULTS = {}


def _check_all(program):
    call, traces, raw = _compiled(program)
    case_of = lambda name: cases.make(program.network, program.layout, name)
    names = cases.conditions_of(program.layout)
    found = {name: call(case_of(name)) for name in names}
    DEFAULT_RESULTS[program] = found
    yield from _check_conditions(program, found)
    for number, name in enumerate(claims_of(program)):
        if CLAIMS[name] is not None:
            condition, function = CLAIMS[name]
            numbers = np.random.default_rng(number)
            wrong = _wrong(function, call, case_of(condition), numbers)
            yield f"{program.name}/{name}", wrong
    (value, last), grads = raw(case_of("plain"))
    yield f"{program.name}/dtypes", _wrong(_check_dtypes, program, value, last, grads)
    once = None if len(traces) == 1 else f"traced {len(traces)} times"
    yield f"{program.name}/traced_once", once


def _check_dtypes(program, value, last, grads):
    kind = program.layout.dtype
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    assert value.shape == ()
    assert value.dtype == np.promote_types(dtype, np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {dtype}
    case = cases.make(program.network, program.layout, "plain")
    given = cases.cast(case.carry, dtype)
    kinds = lambda tree: [(leaf.dtype, leaf.shape) for leaf in jax.tree.leaves(tree)]
    assert kinds(last) == kinds(given)
    assert jax.tree.structure(last) == jax.tree.structure(given)
