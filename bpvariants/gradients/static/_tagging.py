"""Jaxpr of a function in which Flax modules tag their outputs with names."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from bpvariants._jaxpr.named_values import named_program, NamedProgram
from bpvariants.types import PyTree


def tagged_program(
    function: Callable, arguments: Sequence[Any]
) -> tuple[NamedProgram, list[jax.Array]]:
    """Trace a function so that each Flax module tags its outputs with its name.

    Arguments of the function may be NNX modules. Return the jaxpr and its named values,
    and the arrays that are the arguments of the jaxpr.
    """
    import flax.linen as nn
    from flax import nnx

    is_module = lambda argument: isinstance(argument, nnx.Module)
    split = [nnx.split(each) if is_module(each) else (None, each) for each in arguments]

    def call(*trees):
        made = [
            tree if graphdef is None else _tag(nnx.merge(graphdef, tree))
            for (graphdef, _), tree in zip(split, trees, strict=True)
        ]
        with nn.intercept_methods(_tag_output):
            return function(*made)

    trees = [tree for _, tree in split]
    # For a jitted function that has run before, JAX would reuse a cached jaxpr without
    # tags. A separate tracing context makes JAX trace the function again.
    make_context = getattr(jax, "make_user_context", None)
    with nullcontext() if make_context is None else _context(make_context):
        return named_program(call, *trees), jax.tree.leaves(trees)


def _context(make_context: Callable) -> Any:
    if not _contexts:
        _contexts.append(make_context("plain"))
    return _contexts[0]("layer_deltas")


_contexts: list[Callable] = []


def _tag_output(call, args, kwargs, context):
    """Call a method of a Linen module, and tag the output of the method `__call__`.

    This function is an interceptor for `flax.linen.intercept_methods`.
    """
    output = call(*args, **kwargs)
    if context.method_name != "__call__":
        return output
    module = context.module
    return _tagged(output, "/".join(module.path) or type(module).__name__)


def _tag(root: Any) -> Any:
    """Make each NNX module in `root` tag its output, by changing the module's class."""
    from flax import nnx

    for path, module in list(nnx.iter_graph(root)):  # Flax < 0.12.1 has no iter_modules
        kind: Any = type(module)
        # `callable(kind)` would be True for every class.
        if not isinstance(module, nnx.Module) or not hasattr(kind, "__call__"):  # noqa: B004
            continue
        name = "/".join(map(str, path)) or kind.__name__

        def call(self, *args, _kind=kind, _name=name, **kwargs):
            return _tagged(_kind.__call__(self, *args, **kwargs), _name)

        tagging = type(kind)(kind.__name__, (kind,), {"__call__": call})
        object.__setattr__(module, "__class__", tagging)
    return root


def _tagged(output: PyTree, name: str) -> PyTree:
    tag = lambda leaf: (
        checkpoint_name(leaf, name) if isinstance(leaf, jax.Array) else leaf
    )
    return jax.tree.map(tag, output)
