"""Operations of random programs, on vectors [n] of one example.

RFLO ignores derivatives through operations that mix elements. Each operation applies
the function `env.cut` to the operands whose elements it mixes. For reference gradients
of RFLO, `env.cut` is `stop_gradient`; otherwise, it is the identity. These reference
gradients do not depend on how the library classifies primitives.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Operation(NamedTuple):
    """An operation of a random program.

    Attributes:
      kinds: one letter for each operand: "v" for a vector expression, "w" for the name
        of a weight matrix.
      run: function (env, *operands) -> vector.
      of_params: whether the operation uses parameters of the network.
      splits: whether the operation is elementwise.
      for_rflo: whether the operation applies `env.cut` to all values that RFLO ignores.
    """

    kinds: str
    run: Callable[..., jax.Array]
    of_params: bool = False
    splits: bool = False
    for_rflo: bool = True


class Env(NamedTuple):
    """Values that expressions can read, such as vectors and params, and `cut`."""

    vectors: dict[str, Any]
    params: dict[str, Any]
    memory: Any  # [2, n], or None
    count: Any  # [] int, or None
    cut: Callable[[Any], Any]
    gaps: list | None = None  # collects differences between compared values


def evaluate(expression: Any, env: Env) -> jax.Array:
    """Return the value of an expression: a vector's name, or (operation, *operands)."""
    if isinstance(expression, str):
        return env.vectors[expression]
    name, *operands = expression
    operation = OPERATIONS[name]
    operands = [
        weight(env, operand) if kind == "w" else evaluate(operand, env)
        for kind, operand in zip(operation.kinds, operands, strict=True)
    ]
    if env.gaps is not None and name in COMPARING:
        env.gaps.extend(gaps_between(operands))
    return operation.run(env, *operands)


def gaps_between(operands: list[jax.Array]) -> list[float]:
    """Return the nonzero differences between sorted operands and constants."""
    vectors = [np.ravel(v) for v in operands]
    values = np.sort(np.concatenate([*vectors, [-0.4, 0.0, 0.4]]))
    gaps = np.diff(values)
    return gaps[gaps > 0].tolist()


def weight(env: Env, name: str) -> jax.Array:
    """Return a weight matrix [n, n]; "W0T" is the transpose of "W0"."""
    matrix = env.params["W"][int(name[1])]
    return matrix.T if name.endswith("T") else matrix


@jax.custom_jvp
def surrogate(v):
    """Return a step function whose derivative is that of a sigmoid."""
    return (v > 0).astype(v.dtype)


@surrogate.defjvp
def _(primals, tangents):
    (v,) = primals
    slope = jax.nn.sigmoid(v) * jax.nn.sigmoid(-v)
    return surrogate(v), slope * tangents[0]


def same(value: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(value, like.shape)


def highest(v: jax.Array) -> jax.Array:
    """Return the index of the largest element."""
    return jnp.argmax(v)


def layer_norm(env, v):
    of = env.cut(v)
    return (v - same(of.mean(), v)) / jnp.sqrt(0.1 + same(of.var(), v))


def softmax(env, v):
    powers = jnp.exp(v - jax.lax.stop_gradient(same(v.max(), v)))
    return powers / same(env.cut(powers).sum(), v)


def convolve(env, v):
    """Convolve with a kernel of three params, as a convolutional layer does."""
    kernel = env.params["k"].reshape(1, 1, 3)
    image = env.cut(v).reshape(1, 1, -1)
    return jax.lax.conv_general_dilated(image, kernel, (1,), "SAME").reshape(v.shape)


def scatter(env, where, v):
    n = len(v)
    places = (highest(env.cut(where)) + jnp.arange(n) ** 2) % n  # may repeat
    return jnp.zeros_like(v).at[places].add(env.cut(v))


def scatter_max(env, where, v, other):
    return v.at[highest(where)].max(other[0])


def solve(env, matrix, a, b):
    mixed = 2 * jnp.eye(len(a)) + 0.3 * jnp.tanh(matrix * same(env.cut(a), matrix))
    return jnp.linalg.solve(mixed, env.cut(b))


def cholesky(env, a, b):
    a = env.cut(jnp.tanh(a))
    lower = jnp.linalg.cholesky(jnp.eye(len(a)) + a[:, None] * a[None])
    return lower @ env.cut(b)


# These functions are defined at module level, so that JAX compiles them only once for
# all programs.


def turn(state, k):
    u, matrix, v = state
    return (jnp.tanh(u @ matrix + k * v), matrix, v), u


def loop(env, matrix, v):
    v = env.cut(v)
    (u, _, _), _ = jax.lax.scan(turn, (v, matrix, v), jnp.array([0.5, -1.0]))
    return u


def is_large(state):
    return state[0] > 0.317


def halved(state):
    return state[0] / 2, state[1] + 0.25


def count_down(env, v, other):
    """Multiply by a factor that grows with the iterations of a `while` loop."""
    start = jax.lax.stop_gradient(jnp.abs(v).sum()), jnp.array(0.25)
    return jax.lax.while_loop(is_large, halved, start)[1] * other


def reverse(u):
    return 0.5 * u[::-1]


def branch(env, v, other):
    return jax.lax.cond(v[0] > 0, jnp.tanh, reverse, other)


BRANCHES = (
    jnp.sin,
    lambda u: jnp.cumsum(0.3 * u),
    lambda u: same(u.mean(), u),
)


def switch(env, v, other):
    """Apply one of three functions; the carry's counter or the vector v selects it."""
    index = highest(v) if env.count is None else env.count
    return jax.lax.switch(index % 3, BRANCHES, other)


def attend(env, query):
    if env.memory is None:
        return jnp.tanh(query)
    memory, query = env.cut(env.memory), env.cut(query)
    return jax.nn.softmax(memory @ query) @ memory


@jax.checkpoint
def computed_again(matrix, v):
    return jnp.sin(v @ matrix)


def remade(env, matrix, v):
    return computed_again(matrix, env.cut(v))


@jax.jit
def jitted(matrix, v):
    return jnp.maximum(matrix @ v, jnp.sin(v))


def along(function: Callable) -> Callable:
    return lambda env, *vectors: function(*vectors)


def mixing(function: Callable) -> Callable:
    return lambda env, *vectors: function(*map(env.cut, vectors))


def _operations() -> dict[str, Operation]:
    unary = {
        "tanh": jnp.tanh,
        "sin": jnp.sin,
        "sigmoid": jax.nn.sigmoid,
        "relu": jax.nn.relu,
        "softplus": jax.nn.softplus,
        "halve": lambda v: 0.5 * v,
        "clip": lambda v: jnp.clip(v, -0.4, 0.4),
        "surrogate": surrogate,
        "stop": jax.lax.stop_gradient,
    }
    binary = {
        "add": jnp.add,
        "mul": lambda a, b: jnp.tanh(a) * b,
        "div": lambda a, b: a / (1 + b**2),
        "maximum": jnp.maximum,
        "minimum": jnp.minimum,
        "where": lambda a, b: jnp.where(a > b, jnp.sin(a), 0.5 * b),
        "leak": lambda a, b: 0.6 * a + 0.4 * jnp.tanh(b),
    }
    gate = lambda g, a, b: jax.nn.sigmoid(g) * a + jax.nn.sigmoid(-g) * jnp.tanh(b)
    elementwise = {
        **{name: ("v", function) for name, function in unary.items()},
        **{name: ("vv", function) for name, function in binary.items()},
        "gate": ("vvv", gate),
    }
    rearranging = {"flip": lambda v: v[::-1], "roll": lambda v: jnp.roll(v, 1)}
    mixed = {
        "cumsum": ("v", lambda v: jnp.cumsum(0.5 * v)),
        "max": ("v", lambda v: same(v.max(), v)),
        "min": ("v", lambda v: same(v.min(), v)),
        "mean": ("v", lambda v: same(v.mean(), v)),
        "norm": ("v", lambda v: v / jnp.sqrt(1 + same(jnp.sum(v**2), v))),
        "sort": ("v", jnp.sort),
        "top_k": ("v", lambda v: same(jax.lax.top_k(v, 2)[0].sum(), v)),
        "gather": ("vv", lambda a, b: a[jnp.argsort(b)]),
        "pick": ("vv", lambda a, b: same(a[highest(b)], a)),
        "einsum": ("vv", lambda a, b: jnp.einsum("i,j,j->i", a, b, b)),
    }
    return {
        **{
            name: Operation(kinds, along(function), splits=True)
            for name, (kinds, function) in elementwise.items()
        },
        "scale": Operation("v", lambda env, v: env.params["s"] * v, True, splits=True),
        **{name: Operation("v", along(f)) for name, f in rearranging.items()},
        **{name: Operation(kinds, mixing(f)) for name, (kinds, f) in mixed.items()},
        "matmul": Operation("wv", lambda env, W, v: env.cut(v) @ W, True),
        "bilinear": Operation(
            "wvv",
            lambda env, W, a, b: jnp.einsum("i,ij,j->j", *map(env.cut, (a, W, b))),
            True,
        ),
    }


OPERATIONS = _operations() | {
    "layer_norm": Operation("v", layer_norm),
    "softmax": Operation("v", softmax),
    "convolve": Operation("v", convolve, True),
    "cummax": Operation("v", along(jax.lax.cummax), for_rflo=False),
    "scatter": Operation("vv", scatter),
    "scatter_max": Operation("vvv", scatter_max, for_rflo=False),
    "solve": Operation("wvv", solve, True),
    "cholesky": Operation("vv", cholesky),
    "scan": Operation("wv", loop, True, for_rflo=False),
    "while": Operation("vv", count_down),
    "cond": Operation("vv", branch, for_rflo=False),
    "switch": Operation("vv", switch, for_rflo=False),
    "attend": Operation("v", attend),
    "checkpoint": Operation(
        "wv", lambda env, W, v: computed_again(W, env.cut(v)), True
    ),
    "jit": Operation("wv", lambda env, W, v: jitted(W, v), True, for_rflo=False),
}

# Operations that compare elements. If the difference between two compared elements is
# as small as rounding errors, the derivative depends on rounding.
COMPARING = {
    *("relu", "clip", "surrogate", "maximum", "minimum", "where", "max", "min"),
    *("sort", "top_k", "gather", "pick", "cummax", "scatter", "scatter_max"),
    *("cond", "switch", "jit"),
}
