"""Programs that must lower for TPUs and for NVIDIA GPUs: rules, updates, solvers, fit.

Each row of a table is a name and a function dtype -> (function, arguments). A new rule
of `rules.py`, or a new update of `updates.py`, is a row here at once.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients, updates
from bpvariants.training.loop._chunk import Recipe, train
from bpvariants.training.loop._state import TrainState
from tests.matrix import equilibrium, static
from tests.matrix.cases import cast, draw, Layout
from tests.matrix.networks import networks
from tests.matrix.programs import RULES
from tests.matrix.selection import default
from tests.matrix.updates import TREES, UPDATES

PLATFORMS = ("tpu", "cuda")
DTYPES = ("float32", "bfloat16")
LAYOUT, SEED = Layout((3,), 5), np.zeros(2, np.uint32)
BOUNDS = {"max_steps": 20}  # the default tolerances; programs are not run
Made = tuple[Callable, tuple]


def key_of(seed: Any) -> jax.Array:
    """Return a key, made within the program, so that its arguments are plain arrays."""
    return jax.random.wrap_key_data(seed)


def zeros(*shape: int, dtype: str) -> np.ndarray:
    return cast(np.zeros(shape), dtype)


def rule(name: str, dtype: str) -> Made:
    """Make a rule of the table, in its default network."""
    row, network_name = RULES[name], default(name).network
    network = networks()[network_name]
    run = row.make(network)

    def call(seed, params, *case):
        return run(params, *case, **({"key": key_of(seed)} if row.drawn else {}))

    params, case = cast((network.params, draw(network_name, LAYOUT)), dtype)
    return call, (SEED, params, *case)


def two_ends(dtype: str) -> Made:
    network = networks()["leaky"]
    case = cast(draw("leaky", LAYOUT), dtype)
    params = cast((network.params, network.params), dtype)

    def value(params, carry, xs):
        step = network.step
        _, (ahead, back) = gradients.bidirectional(
            step, step, params, (carry, carry), xs
        )
        return jnp.sum(ahead.astype(jnp.float32) * back.astype(jnp.float32))

    return jax.grad(value), (params, case.carry, case.xs)


def stream(dtype: str) -> Made:
    network = networks()["leaky"]
    case = cast(draw("leaky", LAYOUT), dtype)
    run = gradients.truncated_bptt(network.step, network.loss, every=2, lookback=4)

    def call(params, carry, xs, targets):
        state = gradients.stream(carry)
        (_, state), _ = run(params, state, xs, targets, initial=carry)
        return run(params, state, xs, targets, initial=carry)

    params = cast(network.params, dtype)
    return call, (params, case.carry, case.xs, case.targets)


def params_of(step: cells.Cell, dtype: str) -> Any:
    """Return zeros with the shapes of the parameters of a cell of the library."""
    init = lambda: step.init(jax.random.key(0), 2, 4, dtype=jnp.dtype(dtype))
    shapes = jax.eval_shape(init)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def cell(name: str, dtype: str) -> Made:
    """Make BPTT of a cell of the library, with a loss that squares its outputs."""
    step = getattr(cells, name)
    loss = lambda y, target: jnp.sum(jnp.real(y - target) ** 2, axis=-1)
    run = gradients.bptt(step, loss)

    def call(params, xs):
        carry = step.carry(params, (3,))
        one = jax.tree.map(lambda x: x[0], xs)
        y = jax.eval_shape(step, params, carry, one)[1]
        return run(params, carry, xs, jnp.zeros((5, *y.shape), y.dtype))

    return call, (params_of(step, dtype), zeros(5, 3, 2, dtype=dtype))


def lstm_cudnn(dtype: str) -> Made:
    def value(params, xs):
        _, ys = cells.lstm_cudnn(params, cells.lstm.carry(params, (3,)), xs)
        return jnp.sum(ys.astype(jnp.float32))

    return jax.grad(value), (params_of(cells.lstm, dtype), zeros(5, 3, 2, dtype=dtype))


def lru_in_parallel(dtype: str) -> Made:
    """Make the gradient of a complex diagonal recurrence, by an associative scan."""

    def value(params, xs):
        carry = cells.lru.carry(params, (3,))
        (_, ys), _ = gradients.parallel_unroll(
            cells.lru, params, carry, xs, method="linear"
        )
        return jnp.sum(ys.astype(jnp.float32))

    params = params_of(cells.lru, dtype)
    return jax.grad(value), (params, zeros(5, 3, 2, dtype=dtype))


def layers(kind: str, dtype: str) -> Made:
    params, feedback = cast(static.drawn_params(), dtype), None
    x, target = (zeros(3, static.WIDTHS[end], dtype=dtype) for end in (0, -1))
    if kind == "backprop":
        run = gradients.backprop(static.LAYERS, static.square)
    else:
        run = gradients.feedback_alignment(static.LAYERS, static.square, kind=kind)
        weights = partial(gradients.alignment_weights, kind=kind)
        feedback = jax.eval_shape(
            lambda seed: weights(key_of(seed), static.LAYERS, params, x), SEED
        )

    def call(seed, params, feedback, x, target):
        more = {} if feedback is None else {"feedback": feedback}
        more |= {"key": key_of(seed)} if kind == "brsf" else {}
        return run(params, x, target, **more)

    return call, (SEED, params, feedback, x, target)


SOLVERS = {
    "relaxation": gradients.solvers.relaxation(0.9, **BOUNDS),
    "anderson": gradients.solvers.anderson(4, 0.9, **BOUNDS),
    "broyden": gradients.solvers.broyden(3, **BOUNDS),
}
ADJOINTS = {
    "relaxation": gradients.adjoints.relaxation(0.9, **BOUNDS),
    "anderson": gradients.adjoints.anderson(3, **BOUNDS),
    "broyden": gradients.adjoints.broyden(4, **BOUNDS),
    "cg": gradients.adjoints.cg(**BOUNDS),
    "neumann": gradients.adjoints.neumann(5),
    "jfb": gradients.adjoints.jfb(),
    "unrolled": gradients.adjoints.unrolled(5),
}


def adjoint_of(name: str) -> Any:
    """Return an adjoint solver by its name; "lineax_X" uses the class lineax.X."""
    if name in ADJOINTS:
        return ADJOINTS[name]
    lineax = importlib.import_module("lineax")
    settings = {"rtol": 1e-3, "atol": 1e-3} if name == "lineax_GMRES" else {}
    solver = getattr(lineax, name.removeprefix("lineax_"))(**settings)
    return gradients.adjoints.linear_solver(solver)


def settles(solver: str, adjoint: str, dtype: str) -> Made:
    """Make the gradient through a fixed point, for a solver and an adjoint solver."""
    adjoint_solver = adjoint_of(adjoint)

    def value(w, init, x):
        h, info = gradients.fixed_point(
            equilibrium.f, w, init, x, batch_ndim=1,
            solver=SOLVERS[solver], adjoint=adjoint_solver,
        )  # fmt: skip
        return jnp.sum(h.astype(jnp.float32) ** 2), info

    state = zeros(equilibrium.BATCH, equilibrium.N, dtype=dtype)
    return jax.grad(value, has_aux=True), (cast(equilibrium.W, dtype), state, state)


def recurrent(solver: str, dtype: str) -> Made:
    run = gradients.recurrent_backprop(
        equilibrium.f, equilibrium.square, solver=SOLVERS[solver]
    )
    state = zeros(equilibrium.BATCH, equilibrium.N, dtype=dtype)
    return run, (cast(equilibrium.W, dtype), state, state, state)


def penalty(dtype: str) -> Made:
    def call(seed, w, h, x):
        of = partial(gradients.jacobian_penalty, equilibrium.f, batch_ndim=1)
        return jax.grad(lambda w: jnp.sum(of(w, h, x, key_of(seed))))(w)

    state = zeros(equilibrium.BATCH, equilibrium.N, dtype=dtype)
    return call, (SEED, cast(equilibrium.W, dtype), state, state)


def update(make: Callable, dtype: str, tree: Any = TREES["nested"]) -> Made:
    """Make two steps of an update from its first state."""
    optimizer = optax.with_extra_args_support(make())
    is_shape = lambda node: isinstance(node, tuple)
    of_shape = lambda shape: zeros(*shape, dtype=dtype)
    params = jax.tree.map(of_shape, tree, is_leaf=is_shape)

    def call(grads, params, value):
        state = optimizer.init(params)
        for _ in range(2):
            moves, state = optimizer.update(grads, state, params, value=value)
        return moves, state

    return call, (params, params, zeros(dtype="float32"))


def least_squares(dtype: str) -> Made:
    solve, sums = (
        updates.recursive_least_squares(0.9),
        updates.discounted_least_squares(0.9),
    )

    def call(w, x, y):
        state = sums.push(sums.init(w), x, y)
        return solve.update(w, solve.init(w), x, y), sums.gradient(w, state)

    return call, tuple(zeros(*shape, dtype=dtype) for shape in [(4, 2), (4,), (2,)])


def replay(dtype: str) -> Made:
    loss = lambda w, x: jnp.sum((x @ w) ** 2)
    rule = updates.replay(loss, decay=0.5, horizon=3)

    def call(w, x):
        state = rule.push(rule.init((x,)), (x,))
        return jax.grad(rule.discounted_loss)(w, state)

    return call, (zeros(4, dtype=dtype), zeros(3, 4, dtype=dtype))


def chunk(looks: str, runs: int | None, dtype: str) -> Made:
    """Make the compiled chunk of steps of `training.fit`, with Rprop on a GRU."""
    network = networks()["gru"]
    optimizer = optax.with_extra_args_support(updates.rprop(0.1))
    recipe = Recipe(
        rule=gradients.bptt(network.step, network.loss),
        update=optimizer,
        sample=lambda key, data: jax.tree.map(
            lambda leaf: jax.random.permutation(key, leaf, axis=1), data
        ),
        stateful=True,
        draws=False,
        nonfinite="skip" if looks == "each" else "ignore",
        owners=(),
    )

    def call(seed, params, carry, xs, targets):
        start = jnp.uint32(0)
        run = partial(train, recipe, looks, 4)
        state = TrainState(params, optimizer.init(params), carry)
        reached, key = (state, jnp.ones((), bool)), key_of(seed)
        if runs is not None:
            copies = lambda leaf: jnp.broadcast_to(leaf, (runs, *leaf.shape))
            reached, key = jax.tree.map(copies, reached), jax.random.split(key, runs)
            run = jax.vmap(run, in_axes=(0, 0, None, None))
        return run(reached, key, start, ((xs, targets), None))

    case = cast(draw("gru", LAYOUT), dtype)
    params = cast(network.params, dtype)
    return call, (SEED, params, case.carry, case.xs, case.targets)


CELLS = ("gru", "lru", "lstm", "min_gru", "rtu", "tanh")
# lineax is an optional package, and not installed everywhere.
HAS_LINEAX = importlib.util.find_spec("lineax") is not None
LINEAX = ("lineax_LU", "lineax_GMRES") if HAS_LINEAX else ()
CHUNKS = [("after", None), ("each", None), ("never", None), ("each", 2)]
TABLE: dict[str, Callable[[str], Made]] = {
    **{f"rule/{name}": partial(rule, name) for name in RULES},
    "rule/bidirectional": two_ends,
    "rule/truncated_stream": stream,
    **{f"cell/{name}": partial(cell, name) for name in CELLS},
    "cell/lru_in_parallel": lru_in_parallel,
    "cell/lstm_cudnn": lstm_cudnn,
    **{f"static/{kind}": partial(layers, kind) for kind in (*static.KINDS, "brsf")},
    **{
        f"fixed_point/{solver}/{adjoint}": partial(settles, solver, adjoint)
        for solver, adjoint in product(SOLVERS, ADJOINTS)
    },
    **{
        f"fixed_point/relaxation/{adjoint}": partial(settles, "relaxation", adjoint)
        for adjoint in LINEAX
    },
    **{f"recurrent_backprop/{name}": partial(recurrent, name) for name in SOLVERS},
    "jacobian_penalty": penalty,
    **{f"update/{name}": partial(update, row.make) for name, row in UPDATES.items()},
    "update/project_spectral_norm": partial(
        update, lambda: updates.project_spectral_norm(0.9), tree=[(3, 2)]
    ),
    "update/least_squares": least_squares,
    "update/replay": replay,
    **{
        f"fit/{looks}{'' if runs is None else '/vmap'}": partial(chunk, looks, runs)
        for looks, runs in [
            ("after", None),
            ("each", None),
            ("never", None),
            ("each", 2),
        ]
    },
}


# (name, dtype, platform) -> words of the error with which it cannot be exported.
_ONLY_FLOAT32 = "params must be float32, the only dtype that lstm_cudnn takes"
# For GPUs, JAX lowers the QR decomposition of lineax.GMRES to a call of cuSOLVER. JAX
# does not promise that later versions have this call, so it refuses to export it.
_CUSOLVER = "custom calls whose targets have no compatibility guarantees"
EXPECTED = {
    **{("cell/lstm_cudnn", "bfloat16", name): _ONLY_FLOAT32 for name in PLATFORMS},
    **{
        ("fixed_point/relaxation/lineax_GMRES", dtype, "cuda"): _CUSOLVER
        for dtype in DTYPES
        if HAS_LINEAX
    },
}


def lower(name: str, dtype: str) -> dict[str, Any]:
    """Lower a program for each platform; return the exported program, or the error."""
    function, arguments = TABLE[name](dtype)
    jitted, found = jax.jit(function), {}
    for platform in PLATFORMS:
        export = jax.export.export(jitted, platforms=[platform])
        try:
            found[platform] = export(*arguments)
        except Exception as error:
            found[platform] = error
    return found
