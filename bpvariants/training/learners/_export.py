"""Export of a learner: its two programs and its state, in one file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np
import optax

from bpvariants._checks import (
    check_arrays,
    check_floating,
    check_like,
    check_single_key,
    check_step_function,
    ONLY_ARRAYS,
)
from bpvariants._dtypes import is_key
from bpvariants._settings import check_one_of, check_path, described
from bpvariants.training._placement import mesh_of
from bpvariants.training.learners._file import Content, FORMAT, KIND, serialized, write
from bpvariants.training.learners._layout import as_json, layout_of, packed
from bpvariants.training.learners._ports import describe, specs_of
from bpvariants.training.learners._programs import (
    advance,
    LearnerState,
    make_learn,
    make_predict,
    output,
    Parts,
)
from bpvariants.training.learners._trees import structure_of
from bpvariants.training.loop._fit_checks import as_update, check_not_traced
from bpvariants.training.loop._state import own
from bpvariants.types import OnlineRule, PyTree, Step

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FLAGS = ("weight", "mask", "reset")


def export_learner(
    rule: OnlineRule,
    update: optax.GradientTransformation | optax.MultiSteps,
    step: Step,
    pair: tuple[PyTree, PyTree],
    state: PyTree,
    inputs: tuple[PyTree, PyTree],
    path: str | os.PathLike,
    *,
    key: jax.Array | None = None,
    flags: Mapping[str, Any] | None = None,
    platforms: Sequence[str] | None = None,
) -> None:
    """Write a network that predicts and learns to one file, which needs no code of it.

        y = step(params, state.carry, x)[1]
        value, grads, state = rule.update(params, state, x, target)
        change, opt_state = update.update(grads, opt_state, params, value=value)
        params = params + change

    The file contains these two programs, one that predicts and one that learns from a
    time step, compiled to StableHLO by `jax.export`. It also contains the state: the
    parameters, the states of the update and of the rule, and the key if the rule draws
    random numbers. :func:`load_learner` reads the file, in a process that has neither
    the network nor the rule. The reloaded learner continues bit for bit, if the
    versions of JAX and the kind of processor are the same. Nothing is pickled.

    Use it to take a learner from a notebook to a service. If the network only predicts,
    export its forward pass by `jax.export` itself; to interrupt and resume a training
    in the same code, use the :class:`Checkpoint` of :func:`fit`. Writing the file takes
    as long as tracing the rule twice; the file is as large as the state, plus some tens
    of kilobytes.

    Numbers in `rule` and `update`, such as the 0.01 of `optax.adam(0.01)`, become
    constants of the programs. To change them later, use `optax.inject_hyperparams`: its
    numbers are part of the state, and `Learner.state` can be set. Shapes are constants,
    too; for a batch of another size, export again.

    Args:
      rule: the online rule that learns, such as `gradients.rtrl(step, loss)`.
      update: an optax transformation that turns gradients into changes of params.
      step: one time step of the network, with which `rule` was made.
      pair: (params, opt_state), where opt_state is `update.init(params)` or the state
        after some updates.
      state: the state of the rule, from `rule.init(params, carry, inputs)` or from its
        last update.
      inputs: (x, target) of one time step, as arrays or `jax.ShapeDtypeStruct`s, with
        the shapes [*batch, ...] and dtypes of all later steps. They must be made of
        arrays, dicts with names, lists and tuples.
      path: the file to write.
      key: a `jax.random.key`, for a rule that draws random numbers, and only then. The
        key becomes part of the state, and gives a new key to each step.
      flags: {name: example [*batch]} of those among `weight`, `mask` and `reset` that
        `Learner.learn` shall take, such as {"reset": False}. Their meaning is that of
        an :class:`~bpvariants.types.OnlineRule`. By default, there are none.
      platforms: platforms on which the file shall run: "cpu", "cuda", "rocm", "tpu". By
        default, the platform of this process.

    Raises:
      ValueError: if an argument is not as described, or the programs cannot be
        exported, for example because the step calls Python.
      ImportError: if the package flatbuffers is missing, which `jax.export` needs.

    Example:
      >>> import os, tempfile, jax.numpy as jnp, optax
      >>> from bpvariants import gradients, training
      >>> step = lambda w, h, x: (h + w * x, h + w * x)
      >>> rule = gradients.rtrl(step, lambda y, target: (y - target) ** 2)
      >>> sgd, w, h = optax.sgd(0.1), jnp.array(1.0), jnp.array(0.0)
      >>> inputs = x, target = jnp.array(1.0), jnp.array(3.0)
      >>> path = os.path.join(tempfile.mkdtemp(), "sum.learner")
      >>> state = rule.init(w, h, inputs)
      >>> pair = w, sgd.init(w)
      >>> training.export_learner(rule, sgd, step, pair, state, inputs, path)
      >>> learner = training.load_learner(path)  # in another process, tomorrow
      >>> y, value = learner.learn(1.0, 3.0)
      >>> y.item(), value.item()
      (1.0, 4.0)
      >>> round(learner.state["params"].item(), 6)  # 1 − 0.1 · 2 · (1 − 3)
      1.4
    """
    whole, parts, given, flags = _checked(
        rule, update, step, pair, state, inputs, path, key, flags, platforms
    )
    x, target = given
    layout, structure = layout_of(whole), jax.tree.structure(whole)
    about = {"x": describe("x", x), "target": describe("target", target)}
    about["y"] = describe(
        "y", jax.eval_shape(lambda *a: output(parts, *a), whole, x, flags)
    )
    about["flags"] = {name: describe(name, flag) for name, flag in flags.items()}
    _check_state(parts, whole, x, target, flags)
    platforms = (
        [jax.export.default_export_platform()] if platforms is None else platforms
    )
    reset = [name for name in flags if name == "reset"]
    structures = about["x"]["structure"], about["target"]["structure"]
    predict = make_predict(parts, layout, structure, structures[0], reset)
    learn = make_learn(parts, layout, structure, structures, [*flags])
    vectors = [np.asarray(each) for each in packed(jax.tree.leaves(whole), layout)]
    xs, targets = specs_of(about["x"]), specs_of(about["target"])
    of_flags = {name: specs_of(each)[0] for name, each in about["flags"].items()}
    predict = _exported(
        predict, platforms, vectors, xs, [of_flags[name] for name in reset]
    )
    learn = _exported(learn, platforms, vectors, xs, targets, [*of_flags.values()])
    about = {
        "kind": KIND,
        "format": FORMAT,
        "jax": jax.__version__,
        "calling_convention": learn.calling_convention_version,
        "platforms": [*platforms],
        **about,
        "layout": as_json(layout),
    }
    write(path, Content(about, serialized(predict), serialized(learn), vectors))


def _exported(function: Any, platforms: Sequence[str], *arguments: Any) -> Any:
    specs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    try:
        return jax.export.export(jax.jit(function), platforms=[*platforms])(*specs)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(
            f"step, rule or update cannot be exported for {', '.join(platforms)}: "
            f"{error}. Programs of a file cannot call Python, and use only operations "
            "that XLA knows."
        ) from error


def _checked(rule, update, step, pair, state, inputs, path, key, flags, platforms):
    """Check all arguments; return the state, the parts, (x, target) and the flags."""
    if not isinstance(rule, OnlineRule):
        raise ValueError(
            "rule must be an online rule, such as gradients.rtrl(step, loss), because "
            f"a learner takes one time step at a time; got {described(rule)}."
        )
    update = as_update(update)
    check_step_function(step)
    check_path("path", path)
    params, opt_state = _pair(pair)
    check_floating("params", params)
    if not hasattr(state, "carry"):
        raise ValueError(
            "state must be the state of the rule, as rule.init(params, carry, inputs) "
            f"or rule.update returned it; got {described(state)}."
        )
    if not isinstance(inputs, tuple | list) or len(inputs) != 2:
        raise ValueError(
            f"inputs must be the pair (x, target) of one step, got {described(inputs)}."
        )
    for name, tree in {"opt_state": opt_state, "state": state}.items():
        check_arrays(name, tree, ONLY_ARRAYS)
    for platform in platforms or ():
        check_one_of("platforms", platform, PLATFORMS)
    check_not_traced((params, opt_state, state))
    if mesh_of(params, opt_state, state) is not None:
        raise ValueError(
            "pair and state must be on one device; an exported learner runs on one. "
            "Bring them there by jax.device_put(tree, jax.devices()[0])."
        )
    flags = {} if flags is None else flags
    if not isinstance(flags, Mapping):
        raise ValueError(
            f'flags must be a dict, such as {{"reset": False}}, got {described(flags)}.'
        )
    for name in flags:
        check_one_of("each name in flags", name, FLAGS)
    if "reset" in flags and not hasattr(state, "initial"):
        raise ValueError(
            "flags has reset, but the state of the rule has no field `initial`, the "
            "carry after a reset."
        )
    shapes = lambda tree: jax.eval_shape(lambda tree: tree, tree)
    given = shapes(tuple(inputs))
    for name, tree in zip(("x", "target"), given, strict=True):
        structure_of(name, tree)
    flags = {name: shapes(flag) for name, flag in flags.items()}
    if key is not None:
        check_single_key(key)
        key = key if is_key(key) else jax.random.wrap_key_data(key)
    whole = own(LearnerState(params, opt_state, state, None))
    parts = Parts(rule, update, step)
    _check_key(parts, whole, given, flags, key)
    return whole._replace(key=key), parts, given, flags


def _pair(pair: Any) -> tuple[PyTree, PyTree]:
    if not isinstance(pair, tuple) or len(pair) != 2 or hasattr(pair, "_fields"):
        raise ValueError(
            "pair must be (params, opt_state), with opt_state = update.init(params); "
            f"got {described(pair)}."
        )
    return pair


def _check_key(parts: Parts, state, inputs, flags, key) -> None:
    """Check that a key is given if and only if the rule draws random numbers."""
    try:
        jax.eval_shape(lambda *a: advance(parts, *a), state, *inputs, flags)
        draws = False
    except ValueError as error:
        if "key must be given" not in str(error):
            raise
        draws = True
    if draws and key is None:
        raise ValueError(
            "rule draws random numbers, so it needs a key: give "
            "key=jax.random.key(seed), which becomes part of the learner's state."
        )
    if key is not None and not draws:
        raise ValueError(
            "key was given, but the rule draws no random numbers; leave it out."
        )


def _check_state(parts: Parts, state: LearnerState, x, target, flags) -> None:
    """Check that a step keeps the structure, shapes and dtypes of the state."""
    new, _ = jax.eval_shape(lambda *a: advance(parts, *a), state, x, target, flags)
    names = "the state after a step", "the state before it"
    check_like(names[0], new._replace(key=None), names[1], state._replace(key=None))
