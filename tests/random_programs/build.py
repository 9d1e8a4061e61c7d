"""Build a network, a loss function and data from a description of the network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_programs.grammar import Program
from tests.random_programs.operations import Env, evaluate

LEAVES = ("h0", "h1", "line", "memory", "count", "key")


@dataclass(frozen=True, eq=False)
class Problem:
    """A network with its loss function and its data.

    Attributes:
      program: the description of the random network.
      carry_of: function (params, carry, x, cut=, gaps=) -> new carry, of one example.
        It applies `cut` to operands whose elements are mixed, and adds the differences
        between compared values to the list `gaps`.
      output_of: function (params, new carry, old carry, x, gaps=) -> y, of one example.
      step: time step of the network, for the batch shape of the description.
      loss: loss function, for any number of batch axes.
      args: (params, carry, xs, targets).
      options: weights, mask, reset and initial, as gradient rules take them.
    """

    program: Program
    carry_of: Callable
    output_of: Callable
    step: Callable
    loss: Callable
    args: tuple
    options: dict

    def first_steps(self, length: int) -> "Problem":
        """Return the same problem with only the first `length` time steps."""
        cut = lambda tree: jax.tree.map(lambda leaf: leaf[:length], tree)
        params, carry, xs, targets = self.args
        flags = {k: v if k == "initial" else cut(v) for k, v in self.options.items()}
        return replace(self, args=(params, carry, *cut((xs, targets))), options=flags)


def build(program: Program) -> Problem:
    """Build a problem from its description."""

    def carry_of(params, carry, x, cut=lambda v: v, gaps=None):
        old = flat(carry)
        vectors = old_vectors(program, params, old, x)
        env = Env(vectors, params, old["memory"], old["count"], cut, gaps)
        if program.hidden is not None:
            vectors["a"] = evaluate(program.hidden, env)
        new = advanced(old)
        for name, expression in program.leaves:
            new[name] = updated(name, old, evaluate(expression, env), cut)
            vectors |= new_vectors(new)
        return nested(new)

    def output_of(params, new, old, x, gaps=None):
        old, new, same = flat(old), flat(new), lambda v: v
        vectors = old_vectors(program, params, old, x)
        if program.hidden is not None:
            env = Env(vectors, params, old["memory"], old["count"], same)
            vectors["a"] = evaluate(program.hidden, env)
        vectors |= new_vectors(new)
        env = Env(vectors, params, new["memory"], old["count"], same, gaps)
        return {"y": evaluate(program.output, env), "empty": ()}

    def step(params, carry, x):
        new = carry_of(params, carry, x)
        return new, output_of(params, new, carry, x)

    args, initial = data(program)
    step = jax.vmap(step, (None, 0, 0)) if program.batch else step
    options = {"initial": initial if program.initial else None}
    for name, dtype in {"weights": float, "mask": bool, "reset": bool}.items():
        values = getattr(program, name)
        shape = program.T, *program.batch
        options[name] = None if values is None else np.reshape(values, shape)
        if values is not None:
            options[name] = jnp.asarray(options[name].astype(dtype))
    loss = LOSSES[program.loss]
    return Problem(program, carry_of, output_of, step, loss, args, options)


def nested(leaves: dict[str, Any]) -> Any:
    """Return a carry as a nested pytree, in which missing leaves are None."""
    h0, h1, line, memory, count, key = (leaves[name] for name in LEAVES)
    cells = h0, [h1]
    return {"cells": cells, "line": line, "more": {"m": memory, "empty": ()}} | {
        "extras": (count, key)
    }


def flat(carry: Any) -> dict[str, Any]:
    """Return the leaves of a carry by name; missing leaves are None."""
    (h0, (h1,)), (count, key) = carry["cells"], carry["extras"]
    leaves = h0, h1, carry["line"], carry["more"]["m"], count, key
    return dict(zip(LEAVES, leaves, strict=True))


def old_vectors(program: Program, params: Any, old: dict, x: Any) -> dict[str, Any]:
    """Return by name the input, the biases and the vectors of the old carry."""
    vectors = {"x": x["x"], "b0": params["b"][0], "b1": params["b"][1]}
    vectors |= {"h0": old["h0"], "h1": old["h1"]}
    if old["line"] is not None:
        vectors |= {"oldest": old["line"][0], "latest": old["line"][1]}
    if old["count"] is not None:
        vectors["clock"] = jnp.sin((old["count"] + jnp.arange(program.n)).astype(float))
    if old["key"] is not None:
        key = jax.random.fold_in(old["key"], 1)
        vectors["noise"] = jax.random.normal(key, (program.n,))
    return vectors


def advanced(old: dict[str, Any]) -> dict[str, Any]:
    """Increment a carry's counter and split its random key; keep all other leaves."""
    new = dict(old)
    if old["count"] is not None:
        new["count"] = old["count"] + 1
    if old["key"] is not None:
        new["key"] = jax.random.split(old["key"])[0]
    return new


def updated(name: str, old: dict, value: jax.Array, cut: Callable) -> jax.Array:
    """Return a leaf of the new carry, computed from the value of its expression."""
    if name == "line":
        return jnp.concatenate([old["line"][1:], value[None]])
    if name == "memory" and old["count"] is not None:
        return cut(old["memory"]).at[old["count"] % 2].set(cut(value))
    if name == "memory":
        return jnp.stack([value, 0.7 * old["memory"][0]])
    return value


def new_vectors(new: dict[str, Any]) -> dict[str, Any]:
    """Return by name the vectors of the new carry that expressions may read."""
    vectors = {"new_h0": new["h0"], "new_h1": new["h1"]}
    if new["line"] is not None:
        vectors["new_oldest"] = new["line"][0]
    return vectors


LOSSES = {
    "square": lambda y, target: jnp.sum((y["y"] - target["t"]) ** 2, axis=-1),
    "largest": lambda y, target: jnp.max(jnp.abs(y["y"] - target["t"]), axis=-1),
    "log_softmax": lambda y, target: (
        -jnp.sum(jax.nn.softmax(target["t"]) * jax.nn.log_softmax(y["y"]), axis=-1)
    ),
}


def data(program: Program) -> tuple[tuple, Any]:
    """Return (params, first carry, xs, targets), and the initial carry for resets."""
    random = np.random.default_rng(program.seed)
    n, T, batch = program.n, program.T, program.batch
    normal = lambda *shape: jnp.array(0.8 * random.normal(size=shape))
    params = {
        "W": (normal(n, n), normal(n, n)),
        "b": [normal(n), normal(n)],
        "k": normal(3),
        "s": normal(),
        "none": None,
        "empty": {},
    }
    shapes = {"h0": (n,), "h1": (n,), "line": (2, n), "memory": (2, n)}

    def carry():
        leaves: dict[str, Any] = dict.fromkeys(LEAVES)
        for name, _ in program.leaves:
            leaves[name] = normal(*batch, *shapes[name])
        if "count" in program.extras:
            leaves["count"] = jnp.array(random.integers(5, size=batch))
        if "key" in program.extras:
            key = jax.random.key(program.seed)
            leaves["key"] = jax.random.split(key, batch)
        return nested(leaves)

    first, initial = carry(), carry()
    xs = {"x": normal(T, *batch, n), "none": None}
    return (params, first, xs, {"t": normal(T, *batch, n)}), initial
