"""Layer-wise RTRL of a stack: exact within each layer, without the past of others.

Notation, for one example: ℓ_t is the loss of step t. Layer l = 1 … K of a stack has the
parameters θ^l, the carry h^l_t and the output y^l_t, with the input y^0_t = x_t:

    h^l_t, y^l_t = step^l(θ^l, h^l_{t−1}, y^{l−1}_t).

The influence e^l_t of θ^l on the layer's own carry is exact, as in RTRL of one layer:

    e^l_t = ∂h^l_t/∂h^l_{t−1} e^l_{t−1} + ∂h^l_t/∂θ^l.

The learning signal δ^l_t = dℓ_t/dh^l_t passes down through the layers above, within
step t. The gradient δ^l_t e^l_t is computed in the form

    g^l_t = dℓ_t/dθ^l + dℓ_t/dh^l_{t−1} e^l_{t−1},

where both derivatives of ℓ_t are those of step t alone: the old carries of all other
layers are constants. This form includes parameters of a readout, and it takes one
backward pass through the stack for all layers.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax

from bpvariants._carries import as_vectors, floating_leaves, one_example, over_batch
from bpvariants._dtypes import cast_like, widen
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import with_loss
from bpvariants._settings import described
from bpvariants.gradients._stacked import StackedStep
from bpvariants.gradients.online._factors import direct_gradient
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import make_plan
from bpvariants.gradients.online._influence.rule import entering_rows, InfluenceState
from bpvariants.gradients.online._influence.step import (
    add_through,
    linearise,
    next_influence,
    no_influence,
    Rows,
)
from bpvariants.gradients.online._online_step import (
    check_state,
    enter_first_step,
    enter_step,
    OnlineStep,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class LayerwiseRTRLState(NamedTuple):
    """State of :func:`layerwise_rtrl` after step t.

    :class:`InfluenceState` explains how to save a state.

    Attributes:
      carry: carry after step t.
      influence: for each layer, the influence e^l_t of its params on its own carry, in
        the form of the influence in :class:`InfluenceState`.
      initial: carry after a reset.
      layouts: static, for each layer: which rows of the influence are stored.
    """

    carry: PyTree
    influence: tuple[Rows, ...]
    initial: PyTree
    layouts: tuple[Layout, ...]


def layerwise_rtrl(step: Step, loss: Loss) -> OnlineRule:
    """BIASED below the highest recurrent layer: RTRL within each layer of a stack.

        e^l_t = ∂h^l_t/∂h^l_{t−1} e^l_{t−1} + ∂h^l_t/∂θ^l,    g^l_t = δ^l_t e^l_t

    Layer l has the carry h^l_t and the parameters θ^l, and g^l_t is their gradient at
    step t. The influence e^l_t is the exact dh^l_t/dθ^l of the layer, for given inputs
    of the layer. The learning signal δ^l_t is the derivative of the loss of step t with
    respect to h^l_t, through the layers above within step t. The effect of θ^l on later
    losses through the past of the layers above is left out.

    The gradient is exact for the highest layer with a carry, and for all layers above
    it, such as a readout. For the layers below it is biased, also if they have no carry
    themselves: effects that a higher layer remembers are missing.

    Prefer :func:`rtrl` if its memory and time are affordable: it is exact for the whole
    stack. For K layers of n units, :func:`rtrl` stores the influence of each parameter
    on all units of all higher layers. This rule stores the influence on the layer
    itself. If the layers are element-wise, such as `cells.lru`, memory is B·p for B
    examples and p parameters, and an update takes the time of a few steps of the
    network. For a dense layer, memory and time are those of :func:`rtrl` of the layer
    alone.

    The docstring of :func:`rtrl` lists further limits of online rules.

    Args:
      step: the result of :func:`stack`. A readout is a layer with the carry `()`.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is
      :class:`LayerwiseRTRLState`.

    Raises:
      ValueError: if step is not the result of :func:`stack`. In `init` and `update`, in
        the cases in which :func:`rtrl` raises a ValueError.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> twice = gradients.stack([integrate, integrate])
      >>> rule = gradients.layerwise_rtrl(twice, lambda y, target: y - target)
      >>> params, carry = (1.0, 1.0), (jnp.array(0.0), jnp.array(0.0))
      >>> state = rule.init(params, carry, (1.0, 0.0))
      >>> for _ in range(3):
      ...     value, grads, state = rule.update(params, state, 1.0, 0.0)
      >>> [grad.item() for grad in grads]  # exact: 6 and 6; the past 1 + 2 is missing
      [3.0, 6.0]

    References:
      Zucchet et al., "Online learning of long-range dependencies", NeurIPS 2023,
      arXiv:2305.15947.
    """
    if not isinstance(step, StackedStep):
        raise ValueError(
            "step must be the result of gradients.stack([...]), which lists its "
            f"layers; got {described(step)}. For one layer, give "
            "gradients.stack([step]), or use gradients.rtrl, which is exact."
        )
    advance = with_loss(step, loss)

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        run = partial(jax.eval_shape, _inputs_of_layers(step, now))
        layers = list(_layers(step, params, now, run))
        begun = [_begin(theta, layer) for theta, layer in layers]
        rows, layouts = zip(*begun, strict=True)
        return LayerwiseRTRLState(now.start, rows, initial, layouts)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        del key  # this rule draws no random numbers
        check_state("layerwise_rtrl", state, LayerwiseRTRLState)
        carry, influence, initial, layouts = state
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )
        value, new, direct, errors = direct_gradient(now, params)
        layers = list(_layers(step, params, now, _inputs_of_layers(step, now)))
        _check_layers(influence, layouts, layers)
        signals = _signals(errors, layers)
        old = zip(influence, layouts, widen(direct), signals, strict=True)
        found = [
            _advance(theta, layer, *of_layer)
            for (theta, layer), of_layer in zip(layers, old, strict=True)
        ]
        grads, rows = zip(*found, strict=True)
        new, rows = now.kept((new, rows), (carry, influence))
        grads = jax.tree.structure(params).unflatten(jax.tree.leaves(grads))
        state = LayerwiseRTRLState(new, rows, initial, layouts)
        return value, cast_like(grads, params), state

    return OnlineRule(init, update)


def _inputs_of_layers(stack: StackedStep, now: OnlineStep) -> Step:
    """Return a function of a batch: (params, carry, (x, target)) -> y^0, …, y^{K−1}."""
    axes = len(now.batch)

    def inputs_of_layers(params, carry, inputs):
        y, found = inputs[0], []
        for layer, theta, h in zip(stack.layers, params, carry, strict=True):
            found.append(y)
            _, y = layer(theta, h, y)
        return (), found

    run = over_batch(one_example(inputs_of_layers, axes), axes)
    return lambda *arguments: run(*arguments)[1]


def _layers(
    stack: StackedStep, params: PyTree, now: OnlineStep, run: Callable
) -> Iterator[tuple[PyTree, OnlineStep]]:
    """Yield the params of each layer, and its step with its own carry and inputs.

    `run` returns the inputs of all layers, or their shapes. These steps have no loss.
    """
    inputs = run(params, now.start, now.inputs)
    for layer, *given in zip(stack.layers, params, now.start, inputs, strict=True):
        advance = lambda *given, layer=layer: (layer(*given)[0], ())
        advance = with_stored_operands(advance, *given)
        example = one_example(advance, len(now.batch))
        theta, start, y = given
        yield theta, now._replace(example=example, start=start, inputs=y)


def _begin(theta: PyTree, layer: OnlineStep) -> tuple[Rows, Layout]:
    """Return the influence before the first step, zeros, and its layout."""
    if not floating_leaves(layer.start):  # such as a readout
        return [], Layout(0, ())
    layout = make_plan(layer, theta).layout
    return no_influence(layout, layer, theta), layout


def _advance(
    theta: PyTree,
    layer: OnlineStep,
    rows: Rows,
    layout: Layout,
    direct: PyTree,
    signal: jax.Array,
) -> tuple[PyTree, Rows]:
    """Return one layer's gradient g^l_t and influence e^l_t after a step.

    `rows` is e^l_{t−1}, `direct` is dℓ_t/dθ^l, and `signal` is dℓ_t/dh^l_{t−1}.
    """
    if not floating_leaves(layer.start):
        return direct, rows
    plan = make_plan(layer, theta)
    state = InfluenceState(layer.start, rows, layer.start, layout)
    entering = entering_rows("layerwise_rtrl", state, layer, theta, plan.layout)
    new = next_influence(plan, linearise(plan, layer, theta), entering)
    return add_through(direct, layout, signal, entering), new


def _signals(
    errors: list[jax.Array], layers: list[tuple[PyTree, OnlineStep]]
) -> Iterator[jax.Array]:
    """Yield each layer's part of the errors of the whole carry, as [*batch, n]."""
    left = iter(errors)
    for _, layer in layers:
        of_layer = [next(left) for _ in floating_leaves(layer.start)]
        yield as_vectors(of_layer, layer.batch)[0]


def _check_layers(
    influence: tuple[Rows, ...],
    layouts: tuple[Layout, ...],
    layers: list[tuple[PyTree, OnlineStep]],
) -> None:
    if not len(influence) == len(layouts) == len(layers):
        raise ValueError(
            f"state must be of a stack of {len(layers)} layers, got a state of "
            f"{len(influence)} layers. Use rule.init(params, carry, (x, target)) with "
            "the arguments of update."
        )
