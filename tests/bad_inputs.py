r"""Table of wrong calls, with the class and the words of the error of each.

`ROWS` is text. A row is three parts: what the user did, in plain English; the call;
and the class of the error with words that its message must have, in this order, with …
between them. "[slow]" marks calls that compile much, and "[network]" errors that come
from within the user's own functions.

    python -m tests.bad_inputs

writes docs/mistakes.md, the page that shows each call with its whole message.
"""

import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile
import textwrap
import traceback
import warnings
from typing import NamedTuple

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "mistakes.md"

NAMES = """\
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from bpvariants import adapters, cells, diagnostics, gradients, training, updates

key = jax.random.key(0)
draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
swap = lambda sequence: jnp.swapaxes(sequence, 0, 1)


def step(params, carry, x):
    h = jnp.tanh(carry @ params + x)
    return h, h


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


class Paper:  # a step whose method `unroll` has nothing to do with sequences
    __call__ = staticmethod(step)
    unroll = staticmethod(lambda metres=1.0: metres)


class WithoutCarry:  # a step whose method `unroll` returns the outputs alone
    __call__ = staticmethod(step)
    unroll = staticmethod(lambda *arguments: arguments[2])


params, carry = draw(0, 3, 3), jnp.zeros((2, 3))
xs, targets = draw(1, 4, 2, 3), draw(2, 4, 2, 3)  # T = 4 steps, 2 examples
args, (x, target) = (params, carry, xs, targets), (xs[0], targets[0])
flags = jnp.ones((4, 2), bool)
integer_loss = optax.softmax_cross_entropy_with_integer_labels

bptt = gradients.bptt(step, loss)
truncated = gradients.truncated_bptt(step, loss, every=2)
artbp = gradients.artbp(step, loss, truncation=0.1)
over = gradients.over_sequence
rtrl, uoro = gradients.rtrl(step, loss), gradients.uoro(step, loss)
state = rtrl.init(params, carry, (x, target))
drawn = uoro.init(params, carry, (x, target))
begun = lambda: truncated(params, gradients.stream(carry), xs, targets)[0][1]
adaptive = gradients.AdaptiveFeedback
twice = gradients.bptt(gradients.stack([step, step]), loss)

f = lambda params, h, x: jnp.tanh(0.1 * h @ params + x)  # a map with a fixed point
phi = lambda params, h, x: jnp.sum(h * (x + 0.1 * h @ params), axis=-1)  # a primitive
layers = [(lambda w, y: y @ w, jnp.tanh), (lambda w, y: y @ w, lambda s: s)]
weights = draw(3, 3, 5), draw(4, 5, 3)
feedback = gradients.alignment_weights(key, layers, weights, x)
backprop = gradients.backprop(layers, loss)
align = lambda kind: gradients.feedback_alignment(layers, loss, kind=kind)
image, kernel = jnp.ones((2, 8, 3)), jnp.ones((3, 3, 4))

tree, grads = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2))}
sgd, adam, rprop = optax.sgd(0.1), optax.adam(0.1), updates.rprop(0.1)
irprop = updates.irprop_plus(0.1)
rls, memory = updates.recursive_least_squares(0.9), updates.replay(loss, 0.5)

square = lambda w, x: (jnp.mean((w - x) ** 2), None)
rule, w, batch = jax.value_and_grad(square, has_aux=True), jnp.zeros(2), (jnp.ones(2),)
fit = lambda data=batch, **options: training.fit(
    rule, options.pop("update", sgd), w, data, **{"steps": 1} | options
)
saved = lambda folder, **options: training.Checkpoint(folder, **options)


def export(**options):
    given = {"rule": rtrl, "update": sgd, "step": step, "path": "a", "state": state}
    given |= {"pair": (params, sgd.init(params)), "inputs": (x, target)}
    training.export_learner(**given | options)


def make_run(config, key):
    advance = lambda w, t: (w - config["rate"] * w, {"loss": w**2})
    return jax.random.normal(key), advance


def sweep(make=make_run, configs=({"rate": 0.1},), seeds=(0,), **options):
    return training.sweep(make, configs, seeds, **{"steps": 2} | options)


gru = cells.gru.init(key, 3, 4)
rest = cells.lif.carry(cells.lif.init(key, 3, 4), (2,))
lstm, pair = cells.lstm.init(key, 3, 4), (jnp.zeros((2, 4)), jnp.zeros((2, 4)))
cell = eqx.nn.GRUCell(3, 3, key=key)
quality = lambda rule, **options: diagnostics.gradient_quality(
    rule, step, loss, *args, **options
)
sketched = lambda step: over(gradients.sketched_rtrl(step, loss, rank=1))
flow = lambda **options: diagnostics.gradient_flow(step, loss, *args, **options)
bounds = lambda **options: diagnostics.adaptive_truncation(step, loss, *args, **options)
spectrum = lambda **options: diagnostics.jacobian_spectrum(
    step, params, carry[0], xs[:, 0], **options
)
"""

STUDIES = """\
from experiments.applications.forecast.user_csv import read_series
from experiments.data._wav import read_wav
from experiments.data.tables import read_columns
from experiments.harness.options import known, within
from experiments.harness.study import Study


def csv(text, *arguments, **options):
    (folder / "data.csv").write_text(text)
    return read_columns(folder / "data.csv", *arguments, **options)


def wav(content):
    (folder / "sound.wav").write_bytes(content)
    return read_wav(folder / "sound.wav", 8000)
"""

ROWS = r"""
# Steps

The step is None.
    gradients.bptt(None, loss)
    ValueError: step must be a function (params, carry, x) -> (carry, y) … got None
The step is the name of a cell.
    gradients.rtrl("gru", loss)
    ValueError: step must be a function … got 'gru'
The step is the class of a cell.
    gradients.bptt(nn.GRUCell, loss)
    ValueError: step must be a function … the class GRUCell … module.apply
The step is a Linen module, instead of its method `apply`.
    gradients.bptt(nn.GRUCell(3), loss)
    ValueError: step must be a function … a GRUCell … Linen module … module.apply
The step is an NNX module. [slow]
    gradients.bptt(nnx.GRUCell(3, 3, rngs=nnx.Rngs(0)), loss)(*args)
    ValueError: step cannot be called as step(params, carry, x) … adapters.from_nnx
The step is an Equinox module. [slow]
    gradients.bptt(cell, loss)(*args)
    ValueError: step cannot be called as step(params, carry, x) … from_equinox
The step and the loss are swapped.
    gradients.bptt(loss, step)(*args)
    ValueError: step cannot be called as step(params, carry, x) … takes 2 positional
The step has no argument for the params.
    gradients.bptt(lambda carry, x: (carry, carry), loss)(*args)
    ValueError: step cannot be called as step(params, carry, x) … takes 2
The step has a method `unroll` that does not run a sequence.
    gradients.bptt(Paper(), loss)(*args)
    ValueError: step.unroll cannot be called as … If the unroll of a Paper … rename it
The step has a method `unroll` that returns the outputs without the carry.
    gradients.unroll(WithoutCarry(), params, carry, xs)
    ValueError: step.unroll … returned an array float32[4, 2, 3] … return (carry, ys)
The step is a gradient rule.
    gradients.bptt(bptt, loss)(*args)
    ValueError: step cannot be called as step(params, carry, x) … 'targets'
The step returns its carry alone.
    gradients.bptt(lambda params, h, x: h, loss)(*args)
    ValueError: step must return the pair (carry, y) … float32[2, 3] … return it twice
The step returns nothing.
    gradients.bptt(lambda params, h, x: None, loss)(*args)
    ValueError: step must return the pair (carry, y), got None
The step returns three values.
    gradients.unroll(lambda params, h, x: (h, h, h), params, carry, xs)
    ValueError: step must return the pair (carry, y), got a tuple of 3
The step changes the shape of the carry.
    gradients.bptt(lambda params, h, x: (h[:, :2], h), loss)(*args)
    ValueError: the carry that step returns … float32[2, 3] … got float32[2, 2]
The step changes the dtype of the carry.
    gradients.bptt(lambda params, h, x: (h.astype("bfloat16"), h), loss)(*args)
    ValueError: the carry that step returns … float32[2, 3] … got bfloat16[2, 3]
The step of a loop has a Python `if` on an array. [network]
    gradients.unroll(lambda p, h, x: (h if h.sum() > 0 else x, h), params, carry, xs)
    TracerBoolConversionError: traced array … raised this error at the first time step
The carry is missing, and the step needs it. [network]
    bptt(params, None, xs, targets)
    TypeError: NoneType … at the first time step: carry has leaves of shapes []
A step is forgotten in a list of steps.
    gradients.stack([step, None])
    ValueError: steps[1] must be a function (params, carry, x) -> (carry, y), got None
A stack is made of a step, instead of a list.
    gradients.stack(step)
    ValueError: steps must be a list of functions … give [step]
A stack has no layers.
    gradients.stack([])
    ValueError: steps must have at least one layer
A stack has a Linen module.
    gradients.stack([step, nn.GRUCell(3)])
    ValueError: steps[1] must be a function … Linen module … module.apply
A stack of two layers is given the params of one.
    twice(params, (carry, carry), xs, targets)
    ValueError: params must be a tuple with one entry for each of the 2 stacked layers
A stack of two layers is given a list of carries.
    twice((params, params), [carry, carry], xs, targets)
    ValueError: carry must be a tuple … 2 stacked layers, got a list of 2

# Losses

The loss is None.
    gradients.truncated_bptt(step, None, every=2)
    ValueError: loss must be a function (y, target) -> losses [*batch], got None
The loss is the name of a loss.
    gradients.uoro(step, "mse")
    ValueError: loss must be a function (y, target) -> losses [*batch], got 'mse'
The loss takes one argument.
    gradients.bptt(step, lambda y: y)(*args)
    ValueError: loss cannot be called as loss(y, target) … takes 1 positional
The loss returns nothing.
    gradients.bptt(step, lambda y, target: None)(*args)
    ValueError: loss must return one array of losses [*batch], got a NoneType
The loss returns an auxiliary value too.
    gradients.bptt(step, lambda y, target: (loss(y, target), y))(*args)
    ValueError: loss must return one array of losses [*batch], got a tuple
The loss counts mistakes, so it is an integer.
    gradients.bptt(step, lambda y, target: jnp.argmax(y, -1))(*args)
    ValueError: loss must give floating numbers, got int32 … gradients.pes
The loss is bool.
    over(gradients.forward_gradient(step, lambda y, t: loss(y, t) > 1))(*args, key=key)
    ValueError: loss must give floating numbers, got bool … gradients.pes
The loss is complex.
    over(gradients.rtrl(step, lambda y, target: 1j * loss(y, target)))(*args)
    ValueError: loss must give real numbers, got complex64 … jnp.abs
An elementwise loss of optax is not summed over the features.
    gradients.bptt(step, optax.squared_error)(*args, jnp.ones((4, 2)))
    ValueError: weights must have one entry for each loss … (4, 2, 3) … got shape (4, 2)
The targets of the loss have other batch axes than the inputs.
    bptt(params, carry, xs, targets[:, :1])
    ValueError: loss must give one number for each example … target of shape (1, 3)
Class numbers are floating. [network]
    gradients.bptt(step, integer_loss)(*args)
    TypeError: integer … raised this error at the first time step … inputs

# Sequences

The sequences are batch-major.
    bptt(params, carry, swap(xs), swap(targets))
    ValueError: do not fit together … [(2, 3)] … [(4, 3), (4, 3)] … time-major
The inputs are batch-major, and the targets are not.
    bptt(params, carry, swap(xs), targets)
    ValueError: targets must have 2 time steps … got shape (4, 2, 3) … swapaxes
The inputs are batch-major, in a rule that runs online.
    over(rtrl)(params, carry, swap(xs), swap(targets))
    ValueError: do not fit together … time-major … swapaxes
The inputs are batch-major, without a loss.
    gradients.unroll(step, params, carry, swap(xs))
    ValueError: do not fit together … time-major … swapaxes
The inputs are one step, not a sequence.
    bptt(params, carry, xs[0], targets[0])
    ValueError: loss must give one number for each example … time-major
The sequence has no steps.
    bptt(params, carry, xs[:0], targets[:0])
    ValueError: xs must have arrays whose first axis is time, T > 0; got shapes [(0,
There are no inputs.
    bptt(params, carry, None, targets)
    ValueError: xs must have arrays … needs no input, give jnp.zeros((T, *batch, 0))
The inputs are lists of numbers.
    bptt(params, carry, xs.tolist(), targets)
    ValueError: xs must have arrays … shapes [(), (), … jnp.asarray(xs)
The inputs are the name of a file.
    bptt(params, carry, "data.csv", targets)
    ValueError: xs must be an array, got 'data.csv', a str
The inputs are text.
    bptt(params, carry, np.array(["one", "two"]), targets)
    ValueError: xs must be an array … a ndarray
A target is the name of a class.
    bptt(params, carry, xs, (targets, "cat"))
    ValueError: targets[1] must be an array, got 'cat', a str
The targets are a step short.
    bptt(params, carry, xs, targets[:-1])
    ValueError: targets must have 4 time steps … as xs has; got shape (3, 2, 3)
The carry and the inputs are swapped.
    bptt(params, xs, carry, targets)
    ValueError: targets must have 2 time steps on its first axis, as xs has
The params and the carry are swapped.
    bptt(carry, params, xs, targets)
    ValueError: do not fit together … carry has leaves of shapes [(3, 3)]
The carry has no batch axis.
    bptt(params, carry[0], xs, targets)
    ValueError: the carry that step returns … float32[3]; got float32[2, 3]
The carry is of one example, the inputs of two.
    bptt(params, carry[:1], xs, targets)
    ValueError: the carry that step returns … float32[1, 3]; got float32[2, 3]
The carry is the name of an initial state.
    bptt(params, "zeros", xs, targets)
    ValueError: carry must be an array, got 'zeros', a str
The carry is of integers.
    bptt(params, carry.astype(int), xs, targets)
    ValueError: the carry that step returns … int32[2, 3]; got float32[2, 3]
The targets are forgotten.
    bptt(params, carry, xs)
    TypeError: missing 1 required positional argument: 'targets'

# Params

The params are empty.
    bptt({}, carry, xs, targets)
    ValueError: params has no arrays; give a pytree of floating arrays
The params are None.
    over(rtrl)(None, carry, xs, targets)
    ValueError: params has no arrays
The params hold the name of an activation.
    bptt({"w": params, "activation": "tanh"}, carry, xs, targets)
    ValueError: params['activation'] must be an array, got 'tanh', a str … close over
The params hold a function.
    bptt([params, jnp.tanh], carry, xs, targets)
    ValueError: params[1] must be an array … close over … adapters.from_equinox
The params are an Equinox model, with its activation. [slow]
    bptt(eqx.nn.MLP(3, 3, 4, 1, key=key), carry, xs, targets)
    ValueError: params.activation must be an array … from_equinox … eqx.filter
The params are the name of a file.
    gradients.unroll(step, "weights.npz", carry, xs)
    ValueError: params must be an array, got 'weights.npz', a str
The params are integers.
    bptt(params.astype(int), carry, xs, targets)
    ValueError: params must be a floating array, got int32 … .astype(jnp.float32)
The params are bool.
    truncated(params > 0, carry, xs, targets)
    ValueError: params must be a floating array, got bool … .astype(jnp.float32)
The params are a random key.
    bptt(key, carry, xs, targets)
    ValueError: params must be a floating array, got key
The params are complex, in a rule that runs online.
    rtrl.init(params.astype(complex), carry, (x, target))
    ValueError: params must be real, got complex64 … two arrays
The carry is complex, in a rule that runs online.
    rtrl.init(params, carry.astype(complex), (x, target))
    ValueError: carry must be real, got complex64 … two arrays

# Weights, masks and resets

The weights are a word.
    bptt(*args, "last")
    ValueError: weights must be an array … .at[-1].set(1) for the last alone; got 'last'
The weights have no batch axis.
    bptt(*args, jnp.ones(4))
    ValueError: weights must have one entry for each loss … (4, 2); got shape (4,)
The weights have no batch axis, in a rule that runs online. [slow]
    over(rtrl)(*args, jnp.ones(4))
    ValueError: weights must have one entry for each loss … (4, 2); got shape (4,)
The weights are batch-major.
    bptt(*args, jnp.ones((2, 4)))
    ValueError: weights must have 4 time steps … got shape (2, 4) … swapaxes
The weights are one number.
    bptt(*args, weights=0.5)
    ValueError: weights must have 4 time steps … got shape ()
The weights are lists of different lengths.
    bptt(*args, weights=[[1, 2], [3]])
    ValueError: weights must be an array with one entry for each loss
The weights are complex.
    bptt(*args, jnp.ones((4, 2)) * 1j)
    ValueError: weights must be real, got complex64
The name of the argument is `weight`.
    bptt(*args, weight=jnp.ones((4, 2)))
    TypeError: unexpected keyword argument 'weight'
The weight of one step has the wrong shape.
    rtrl.update(params, state, x, target, weight=jnp.ones(3))
    ValueError: weight must have one entry for each loss … (2,); got shape (3,)
The mask is of floats.
    bptt(*args, mask=jnp.ones((4, 2)))
    ValueError: mask must be bool, got float32; use `mask != 0`
The mask of one step is of floats.
    rtrl.update(params, state, x, target, mask=jnp.ones(2))
    ValueError: mask must be bool, got float32; use `mask != 0`
The mask is a word.
    gradients.unroll(step, params, carry, xs, mask="all")
    ValueError: mask must be an array with one entry for each loss; got 'all'
The mask has no batch axis.
    bptt(*args, mask=flags[:, 0])
    ValueError: mask must have one entry for each loss … (4, 2); got shape (4,)
The mask is True.
    bptt(*args, mask=True)
    ValueError: mask must have 4 time steps on its first axis … got shape ()
The lengths of sequences are given as the mask.
    bptt(*args, mask=[4, 3])
    ValueError: mask must have 4 time steps on its first axis … got shape (2,)
The resets are integers.
    bptt(*args, reset=jnp.ones((4, 2), int))
    ValueError: reset must be bool, got int32; use `reset != 0`
The resets have no time axis.
    truncated(*args, reset=flags[0])
    ValueError: reset must have 4 time steps on its first axis … got shape (2,)
The resets have an axis too many.
    bptt(*args, reset=flags[..., None])
    ValueError: reset must have one entry for each loss … got shape (4, 2, 1)
The carry after a reset has no batch axis.
    bptt(*args, initial=jnp.zeros(3))
    ValueError: initial must have the structure, shapes and dtypes of carry … float32[3]
The carry after a reset has another dtype.
    bptt(*args, initial=carry.astype(jnp.bfloat16))
    ValueError: initial must have … dtypes of carry, float32[2, 3]; got bfloat16[2, 3]
The carry after a reset is a word.
    gradients.unroll(step, params, carry, xs, initial="zeros")
    ValueError: initial must be an array, got 'zeros', a str
The mask and the resets have different shapes.
    gradients.bidirectional(
        step, step, (params, params), (carry, carry), xs, mask=flags, reset=flags[:, 0]
    )
    ValueError: mask and reset must both have shape [T, *batch] … (4, 2) and (4,)
A length is not a whole number.
    gradients.mask_from_lengths(jnp.array([2.7, 1.0]), 4)
    ValueError: lengths must be integers from 0 to num_steps = 4, got float32 … 2.7
A length is negative.
    gradients.mask_from_lengths([-1, 2], 4)
    ValueError: lengths must be integers from 0 to num_steps = 4, got -1
A length is greater than the number of steps.
    gradients.mask_from_lengths([9, 2], 4)
    ValueError: lengths must be integers from 0 to num_steps = 4, got 9
The lengths are bool.
    gradients.mask_from_lengths([True, False], 4)
    ValueError: lengths must be integers from 0 to num_steps = 4, got bool
A last step is after the end.
    gradients.last_step_weights([9, 2], 4)
    ValueError: lengths must be integers from 0 to num_steps = 4, got 9
The number of steps of last steps is missing.
    gradients.last_step_weights([2, 1], None)
    ValueError: num_steps must be an integer of at least 1, got None
The lengths and the number of steps are swapped.
    gradients.mask_from_lengths(4, [2, 1])
    ValueError: num_steps must be an integer of at least 1, got [2, 1]
Done flags are numbers.
    gradients.resets_from_dones(jnp.zeros((4, 2)))
    ValueError: dones must be bool, got float32; use `dones != 0`
There are no done flags.
    gradients.resets_from_dones(None)
    ValueError: dones must be [T, *batch] flags, got None
The done flag is that of one step.
    gradients.resets_from_dones(True)
    ValueError: dones must be [T, *batch] … got shape () … the previous step returned
The last done of the chunk before is that of another number of environments.
    gradients.resets_from_dones(flags, first=jnp.ones(3, bool))
    ValueError: first must be one flag, or one for each example, (2,) … first=dones[-1]
A forgetting factor of losses is above 1.
    gradients.discounted_weights(4, 1.5)
    ValueError: 0 <= decay <= 1, got 1.5
A forgetting factor of losses is NaN.
    gradients.discounted_weights(4, float("nan"))
    ValueError: 0 <= decay <= 1, got nan
A forgetting factor of losses is text.
    gradients.discounted_weights(4, "0.5")
    ValueError: decay must be a number, got '0.5'
There is a forgetting factor of losses for each example.
    gradients.discounted_weights(4, jnp.array([0.5, 0.6]))
    ValueError: decay must be one number, got an array float32[2]
The forgetting factor of losses and the number of steps are swapped.
    gradients.discounted_weights(0.5, 4)
    ValueError: num_steps must be an integer of at least 1, got 0.5
The learning rate in weights is negative.
    gradients.discounted_weights(4, 0.5, learning_rate=-1)
    ValueError: learning_rate >= 0, got -1 … negate the loss

# Random keys

A rule that draws gets no key.
    artbp(*args)
    ValueError: key must be given, as a keyword … rule(..., key=jax.random.key(0))
A rule that draws online gets no key.
    over(uoro)(*args)
    ValueError: key must be given, as a keyword, because uoro draws at random
A step of a rule that draws gets no key.
    uoro.update(params, drawn, x, target)
    ValueError: key must be given … rule.update(..., key=jax.random.key(0))
The key is a seed.
    artbp(*args, key=3)
    ValueError: key must be one key of jax.random, such as jax.random.key(0); got 3
The key of a rule that does not draw is text.
    over(rtrl)(*args, key="seed")
    ValueError: key must be one key of jax.random … got 'seed'
The key is several keys.
    artbp(*args, key=jax.random.split(key, 4))
    ValueError: key must be one key of jax.random … got an array key<fry>[4]
A rule that does not draw gets a key.
    bptt(*args, key=key)
    ValueError: key must be left out: bptt draws nothing at random
Truncated backpropagation gets a key.
    truncated(*args, key=key)
    ValueError: key must be left out: truncated_bptt draws nothing at random
The key of feedback weights is a seed.
    gradients.random_feedback(0, x, carry)
    ValueError: key must be one key of jax.random … got 0
The key of feedback alignment is a seed.
    align("brsf")(weights, x, target, key=3)
    ValueError: key must be one key of jax.random … got 3
The key of a cell is a seed.
    cells.gru.init(0, 3, 4)
    ValueError: key must be one key of jax.random … got 0
The key of a check is a seed.
    diagnostics.check_gradients(bptt, *args, key=3)
    ValueError: key must be one key of jax.random … got 3

# Memory of backward passes

The policy of recomputation is misspelled.
    gradients.bptt(step, loss, remat="steps")
    ValueError: remat must be None, 'step', gradients.remat.every(k) … got 'steps'
The policy of recomputation is True.
    gradients.bptt(step, loss, remat=True)
    ValueError: remat must be None, 'step', gradients.remat.every(k) … got True
The policy of recomputation is a number.
    gradients.artbp(step, loss, truncation=0.1, remat=3)
    ValueError: remat must be None, 'step', gradients.remat.every(k) … got 3
The policy of recomputation is a function without its setting.
    gradients.unroll(step, params, carry, xs, remat=gradients.remat.slots)
    ValueError: remat must be None, 'step' … gradients.remat.slots(m) … function slots
The direction of the backward pass is misspelled.
    gradients.bptt(step, loss, backward="two-phase")
    ValueError: backward must be 'scan', 'two_phase' or 'reversible', got 'two-phase'
Two ways to save memory are combined.
    gradients.bptt(step, loss, remat="step", backward="two_phase")
    ValueError: remat must be None with backward='two_phase' … got 'step' … 'scan'
A reversible backward pass gets a step without an inverse.
    gradients.bptt(step, loss, backward="reversible")
    ValueError: step must have a method inverse(params, carry, x) … remat.slots(m)
A reversible backward pass gets a remat policy.
    gradients.bptt(step, loss, remat="step", backward="reversible")
    ValueError: remat must be None with backward='reversible' … got 'step' … 'scan'
The number of slots is 0.
    gradients.remat.slots(0)
    ValueError: number must be an integer of at least 1, got 0
The number of slots is not whole.
    gradients.remat.slots(2.5)
    ValueError: number must be an integer of at least 1, got 2.5
The number of steps between carries on the host is 0.
    gradients.remat.offload(every=0)
    ValueError: every must be an integer of at least 1, got 0
The number of steps between carries on the host has no name.
    gradients.remat.offload(10)
    TypeError: offload() takes 0 positional arguments but 1 was given
The lengths of stretches grow.
    gradients.remat.every(7, 9)
    ValueError: lengths must be at least one integer, each smaller … got (7, 9)
The lengths of stretches are a list.
    gradients.remat.every([20, 5])
    ValueError: lengths must be an integer of at least 1, got [20, 5]
The budget is text.
    gradients.remat.budget("1GB")
    ValueError: num_bytes must be an integer of at least 1, got '1GB'
The budget is a float.
    gradients.remat.budget(1e9)
    ValueError: num_bytes must be an integer of at least 1, got 1000000000.0
The budget is too small.
    gradients.bptt(step, loss, remat=gradients.remat.budget(1))(*args)
    ValueError: budget must be at least … bytes for 4 steps … got 1
The cost of a budget is asked for without the sizes of a step.
    gradients.remat.predicted_cost(10, gradients.remat.budget(100))
    ValueError: size must be given with a budget … gradients.remat.step_bytes

# Truncated and random backpropagation

The period is missing.
    gradients.truncated_bptt(step, loss)
    TypeError: missing 1 required keyword-only argument: 'every'
The period is 0.
    gradients.truncated_bptt(step, loss, every=0)
    ValueError: every must be an integer of at least 1, got 0
The period is negative.
    gradients.truncated_bptt(step, loss, every=-2)
    ValueError: every must be an integer of at least 1, got -2
The period is not a whole number.
    gradients.truncated_bptt(step, loss, every=2.5)
    ValueError: every must be an integer of at least 1, got 2.5
The period is True.
    gradients.truncated_bptt(step, loss, every=True)
    ValueError: every must be an integer of at least 1, got True
The period is text.
    gradients.truncated_bptt(step, loss, every="2")
    ValueError: every must be an integer of at least 1, got '2'
The period is an array.
    gradients.truncated_bptt(step, loss, every=jnp.array(2))
    ValueError: every must be an integer of at least 1, got Array(2
The lookback is shorter than the period.
    gradients.truncated_bptt(step, loss, every=10, lookback=5)
    ValueError: lookback must be at least every … lookback=5 and every=10
The update is a learning rate.
    gradients.truncated_bptt(step, loss, every=2, update=0.1)
    ValueError: update must be an optax.GradientTransformation … got 0.1
The update is a function of optax that was not called.
    over(rtrl, update=optax.sgd)
    ValueError: update must be an optax.GradientTransformation … function sgd
A rule with an update gets params without the update's state.
    gradients.truncated_bptt(step, loss, every=2, update=sgd)(*args)
    ValueError: params must be the pair (params, opt_state) … update.init(params)
A rule with an update gets the state of another optimizer.
    over(rtrl, update=rprop)((params, adam.init(params)), carry, xs, targets)
    ValueError: params must be the pair … ScaleByRpropState … got … ScaleByAdamState
A stream is given to a rule that has no streams.
    bptt(params, gradients.stream(carry), xs, targets)
    ValueError: carry must be the state of the network, got a TruncatedStream
A stream is made of a stream.
    gradients.stream(gradients.stream(carry))
    ValueError: carry must be the state of a network, got a stream
A stream is made of a word.
    gradients.stream("zeros")
    ValueError: carry must be an array, got 'zeros', a str
The state of an online rule is given as a carry.
    truncated(params, state, xs, targets)
    ValueError: carry must be the state of the network, got a InfluenceState
A stream goes on with another period. [slow]
    gradients.truncated_bptt(step, loss, every=1)(params, begun(), xs, targets)
    ValueError: every=2 and lookback=4 … every=1 and lookback=2 … gradients.stream
A cut is certain.
    gradients.artbp(step, loss, truncation=1)
    ValueError: truncation must be a probability within 0 <= truncation < 1, got 1
The probability of a cut is negative.
    gradients.artbp(step, loss, truncation=-0.1)
    ValueError: truncation must be a probability within 0 <= truncation < 1, got -0.1
The probability of a cut is NaN.
    gradients.artbp(step, loss, truncation=float("nan"))
    ValueError: truncation must be a probability within 0 <= truncation < 1, got nan
The probability of a cut is text.
    gradients.artbp(step, loss, truncation="0.1")
    ValueError: truncation must be a number, got '0.1'; it is a probability
The probability of a cut is None.
    gradients.artbp(step, loss, truncation=None)
    ValueError: truncation must be a number, got None
Random segments are too short on average.
    gradients.growing_truncation(1, 3)
    ValueError: mean_length must be greater than … = 2, got 1
The tail of random segments is too heavy.
    gradients.growing_truncation(100, 2)
    ValueError: alpha must be greater than 2, got 2
The mean length of random segments is text.
    gradients.growing_truncation("long", 3)
    ValueError: mean_length must be a number, got 'long'

# Parallel and bidirectional networks

The method is misspelled.
    gradients.parallel_unroll(step, params, carry, xs, method="newtons")
    ValueError: method must be 'auto', 'linear', 'newton' or a value … got 'newtons'
The method is a class without its settings.
    gradients.parallel_unroll(step, params, carry, xs, method=gradients.newton)
    ValueError: method must be 'auto', 'linear', 'newton' or a value … max_steps=20
The network is not linear in its carry.
    gradients.parallel_unroll(step, params, carry, xs, method="linear")
    ValueError: method='linear' needs a new carry that is A * carry + u … 'newton'
The number of batch axes is too large.
    gradients.parallel_unroll(step, params, carry, xs, method="newton", batch_ndim=3)
    ValueError: batch_ndim must be the number of leading axes … got 3
The number of batch axes is a float.
    gradients.parallel_unroll(step, params, carry, xs, method="newton", batch_ndim=1.0)
    ValueError: batch_ndim must be the number of leading axes … got 1.0
The guess has no time axis.
    gradients.parallel_unroll(step, params, carry, xs, method="newton", guess=carry)
    ValueError: guess must have … the carries [T, *batch, ...] … got float32[2, 3]
The guess is a word.
    gradients.parallel_unroll(step, params, carry, xs, method="newton", guess="zeros")
    ValueError: guess must be an array, got 'zeros', a str
The method "linear" gets a guess.
    gradients.parallel_unroll(step, params, carry, xs, method="linear", guess=xs)
    ValueError: guess must be left out with method="linear"
The carry of Newton's method is of integers.
    gradients.parallel_unroll(step, params, carry.astype(int), xs, method="newton")
    ValueError: carry must be floating … got int32 … use unroll
The kind of Jacobian is misspelled.
    gradients.newton(jacobian="diag")
    ValueError: jacobian must be 'full', 'diagonal' or 'blocks', got 'diag'
The tolerance of Newton's method is negative.
    gradients.newton(tol=-1)
    ValueError: tol must be positive, such as 1e-5, got -1
The tolerance of Newton's method is text.
    gradients.parallel_unroll(
        step, params, carry, xs, method=gradients.newton(tol="small")
    )
    ValueError: tol must be a number, got 'small'
Newton's method may take no step.
    gradients.newton(max_steps=0)
    ValueError: max_steps must be an integer of at least 1, got 0
Newton's step is shrunk below 0.
    gradients.newton(shrink=2)
    ValueError: shrink must be from 0, Newton's method, to 1 … got 2
Two directions get the params of one.
    gradients.bidirectional(step, step, params, (carry, carry), xs)
    ValueError: params must be a pair, of forward_step and of backward_step
Two directions get one carry.
    gradients.bidirectional(step, step, (params, params), carry, xs)
    ValueError: carries must be a pair, of forward_step and of backward_step
The step of one direction is None.
    gradients.bidirectional(step, None, (params, params), (carry, carry), xs)
    ValueError: for backward_step: step must be a function … got None

# Online rules

An online rule is called like a rule for sequences.
    rtrl(*args)
    TypeError: an online rule cannot be called … gradients.over_sequence(rule)
A step is given, instead of an online rule.
    over(step)
    ValueError: online must be an OnlineRule, such as gradients.rtrl(step, loss)
An online rule is made without its functions.
    over(gradients.rtrl)
    ValueError: online must be an OnlineRule, such as gradients.rtrl(step, loss)
`init` gets no inputs.
    rtrl.init(params, carry)
    TypeError: missing 1 required positional argument: 'inputs'
`init` gets the input without the target.
    rtrl.init(params, carry, x)
    ValueError: inputs must be the pair (x, target) of one step … float32[2, 3]
`init` gets a sequence, instead of one step.
    rtrl.init(params, carry, (xs, targets))
    ValueError: the carry that step returns … got float32[4, 2, 3]
`init` gets a word as the carry.
    rtrl.init(params, "zeros", (x, target))
    ValueError: carry must be an array, got 'zeros', a str
`update` gets the carry, instead of the rule's state.
    rtrl.update(params, carry, x, target)
    ValueError: state must be what rtrl's init or update returned … rule.init(
`update` gets the state of another rule.
    rtrl.update(params, drawn, x, target)
    ValueError: state must be what rtrl's init or update returned, got UOROState
`update` gets the params and the state swapped.
    rtrl.update(state, params, x, target)
    ValueError: state must be what rtrl's init or update returned
`update` gets a sequence.
    rtrl.update(params, state, xs, targets)
    ValueError: the carry that step returns … got float32[4, 2, 3]
A rule that keeps its state gets a carry.
    over(rtrl, keep_state=True)(*args)
    ValueError: carry must be the state of the online rule when keep_state=True
A rule that keeps its state gets the carry after a reset.
    over(rtrl, keep_state=True)(params, state, xs, targets, initial=carry)
    ValueError: initial must be given to the init of the online rule
`keep_state` is a word.
    over(rtrl, keep_state="yes")
    ValueError: keep_state must be True or False, got 'yes'
The period of updates is given without an update.
    over(rtrl, every=2)
    ValueError: every=2 is the number of steps between updates … update=optax.sgd(0.1)
The order of SnAp is 0.
    gradients.snap(step, loss, order=0)
    ValueError: order must be an integer of at least 1, got 0 … gradients.rtrl
The order of SnAp is missing.
    gradients.snap(step, loss)
    TypeError: missing 1 required keyword-only argument: 'order'
The visible part of e-prop is not a function.
    gradients.eprop(step, loss, visible=0)
    ValueError: visible must be a function from the carry … got 0
The visible part of e-prop is computed.
    gradients.eprop(step, loss, visible=lambda h: -h).init(params, carry, (x, target))
    ValueError: visible must pick leaves of the carry as they are
Nothing is visible to e-prop.
    gradients.eprop(step, loss, visible=lambda h: ()).init(params, carry, (x, target))
    ValueError: visible must pick leaves … it picked none … gradients.rtrl
The kind of feedback is misspelled.
    gradients.rflo(step, loss, feedback="random")
    ValueError: feedback must be 'symmetric', weights … gradients.random_feedback
Feedback weights have the wrong shape.
    over(gradients.rflo(step, loss, feedback=jnp.ones((3, 2))))(*args)
    ValueError: feedback must have an array of shape [*m, *n] = (3, 3) … got (3, 2)
The learning rate of feedback weights is text.
    over(gradients.rflo(step, loss, feedback=adaptive(params, "fast")))(*args)
    ValueError: feedback.learning_rate must be an array, got 'fast', a str
The learning signal is not a function.
    gradients.rflo(step, loss, signal=0.5)
    ValueError: signal must be a function (y, target) -> learning signal
The learning signal has the wrong shape.
    over(gradients.rflo(step, loss, signal=lambda y, target: 1.0))(*args)
    ValueError: signal must return the structure and shapes … [(2, 3)] … got [()]
The number of random directions is 0.
    gradients.forward_gradient(step, loss, directions=0)
    ValueError: directions must be an integer of at least 1, got 0
The distribution of random directions is unknown.
    gradients.forward_gradient(step, loss, distribution="uniform")
    ValueError: distribution must be one of ['normal', 'rademacher'], got 'uniform'
The number of antithetic pairs is 0.
    gradients.pes(step, loss, pairs=0)
    ValueError: pairs must be an integer of at least 1, got 0
Perturbations have no size.
    gradients.pes(step, loss, sigma=0)
    ValueError: sigma must be positive, got 0
The size of perturbations is NaN.
    gradients.pes(step, loss, sigma=float("nan"))
    ValueError: sigma must be positive, got nan
The size of perturbations is text.
    gradients.pes(step, loss, sigma="small")
    ValueError: sigma must be an array, got 'small' … a positive number
The network uses a weight twice, which KF-RTRL cannot factorise.
    over(gradients.kf_rtrl(lambda p, h, x: (h @ p**2 + x, h), loss))(*args, key=key)
    ValueError: params does not factorise … Use gradients.rtrl, snap or uoro
The loss of KF-RTRL is summed over the batch.
    over(gradients.kf_rtrl(step, lambda y, target: jnp.sum(y)))(*args, key=key)
    ValueError: loss must give one loss for each example … sum over the features alone
The network of layer-wise RTRL is not a stack.
    gradients.layerwise_rtrl(step, loss)
    ValueError: step must be the result of gradients.stack([...]) … gradients.rtrl
The network of layer-wise RTRL is a list of layers.
    gradients.layerwise_rtrl([step, step], loss)
    ValueError: step must be the result of gradients.stack([...]) … got a list of 2
The rank of sketched RTRL is 0.
    gradients.sketched_rtrl(step, loss, rank=0)
    ValueError: rank must be
The network of sketched RTRL uses a weight twice.
    sketched(lambda p, h, x: (h @ p**2 + x, h))(*args)
    ValueError: params does not factorise … Use gradients.rtrl, snap or uoro
The units of a network for diagonal RTRL see each other.
    gradients.diagonal_rtrl(step, loss).init(params, carry, (x, target))
    ValueError: step must be element-wise in its carry … gradients.rtrl

# Networks that settle

The solver is the name of a solver.
    gradients.fixed_point(f, params, carry, x, solver="newton")
    ValueError: solver must be a value such as gradients.solvers.relaxation
The solver is a class without its settings.
    gradients.fixed_point(f, params, carry, x, solver=gradients.solvers.anderson)
    ValueError: solver must be a value … got anderson, which must be called
The solver that is chosen for each example is damped.
    gradients.fixed_point(f, params, carry, x, solver="auto", damping=0.5)
    ValueError: damping must be left out with solver="auto", got 0.5
The tolerance of the solver that is chosen for each example is 0.
    gradients.solvers.auto(tol=0.0)
    ValueError: tol must be positive, such as 1e-5, got 0.0
The adjoint is the name of an adjoint.
    gradients.fixed_point(f, params, carry, x, adjoint="cg")
    ValueError: adjoint must be a value such as gradients.adjoints.relaxation
The initial state is a word.
    gradients.fixed_point(f, params, "zeros", x)
    ValueError: init must be an array, got 'zeros', a str
There is no initial state.
    gradients.fixed_point(f, params, None, x)
    ValueError: init has no arrays; give a pytree of floating arrays
The initial state is of integers.
    gradients.fixed_point(f, params, carry.astype(int), x)
    ValueError: init must be a floating array, got int32
The map returns a pair, like a step.
    gradients.fixed_point(lambda w, h, x: (h, h), params, carry, x)
    ValueError: f must return the state alone, like init … got a tuple of 2
The number of batch axes of a state is too large.
    gradients.fixed_point(f, params, carry, x, batch_ndim=5)
    ValueError: batch_ndim must be the number of leading axes … init … got 5
The tolerance of a solver is negative.
    gradients.solvers.relaxation(tol=-1)
    ValueError: tol must be positive, such as 1e-5, got -1
The damping of a solver is above 1.
    gradients.solvers.relaxation(damping=2)
    ValueError: damping must satisfy 0 < damping <= 1, got 2
A solver may take no step.
    gradients.solvers.anderson(max_steps=0)
    ValueError: max_steps must be an integer of at least 1, got 0
The number of terms of an adjoint is not whole.
    gradients.adjoints.neumann(2.5)
    ValueError: terms must be an integer of at least 0, got 2.5
The initial state is wider than the state of the map.
    gradients.fixed_point(f, params, jnp.zeros((2, 5)), x)
    ValueError: f(params, init, x) cannot be evaluated … init must have the shapes
The map returns a narrower state than it gets.
    gradients.fixed_point(lambda w, h, x: h[:, :2], params, carry, x)
    ValueError: the result of f must have … of init, float32[2, 3]; got float32[2, 2]
The map is missing.
    gradients.fixed_point(None, params, carry, x)
    ValueError: f must be a function (params, h, x) -> h, got None
The params of a map are a word.
    gradients.fixed_point(f, "params", carry, x)
    ValueError: params must be an array, got 'params', a str
The input of a map is a word.
    gradients.fixed_point(f, params, carry, "x")
    ValueError: x must be an array, got 'x', a str
The policy for failures has a typo.
    gradients.fixed_point(f, params, carry, x, on_failure="ignor")
    ValueError: on_failure must be 'nan', 'truncate' or 'ignore', got 'ignor'
The policy for failures of recurrent backpropagation has a typo.
    gradients.recurrent_backprop(f, loss, on_failure="NaN")
    ValueError: on_failure must be 'nan', 'truncate' or 'ignore', got 'NaN'
The map of recurrent backpropagation is missing.
    gradients.recurrent_backprop(None, loss)
    ValueError: f must be a function (params, h, x) -> h, got None
The readout of recurrent backpropagation is a word.
    gradients.recurrent_backprop(f, loss, readout="h")
    ValueError: readout must be a function (params, h) -> y, got 'h'
The nudging of equilibrium propagation is zero.
    gradients.equilibrium_propagation(phi, loss, beta=0)
    ValueError: beta must be a positive number, such as 0.1, got 0
The nudging of equilibrium propagation is negative.
    gradients.equilibrium_propagation(phi, loss, beta=-0.1)
    ValueError: beta must be a positive number … symmetric=True
The nudged phase of equilibrium propagation has no steps.
    gradients.equilibrium_propagation(phi, loss, nudged_steps=0)
    ValueError: nudged_steps must be an integer of at least 1, got 0
Equilibrium propagation gets the next state instead of the primitive function.
    gradients.equilibrium_propagation(f, loss)(params, carry, x, target)
    ValueError: function must return Φ, one floating number … give kind="map"
The clamping of coupled learning is zero.
    gradients.coupled_learning(phi, lambda h: h, eta=0)
    ValueError: eta must be a positive number, such as 0.1, got 0 … symmetric=True
The clamped phase of coupled learning has no steps.
    gradients.coupled_learning(phi, lambda h: h, clamped_steps=0)
    ValueError: clamped_steps must be an integer of at least 1, got 0
The outputs of coupled learning are given as an index.
    gradients.coupled_learning(phi, 0)
    ValueError: outputs must be a function h -> y, got 0
The outputs of coupled learning are computed from the state.
    gradients.coupled_learning(phi, jnp.tanh)(params, carry, x, target)
    ValueError: outputs must select different elements … equilibrium_propagation
Coupled learning gets the next state instead of the primitive function.
    gradients.coupled_learning(f, lambda h: h)(params, carry, x, target)
    ValueError: function must return Φ, one number for each example … Sum Φ over
The target of coupled learning lacks the other outputs.
    gradients.coupled_learning(phi, lambda h: h)(params, carry, x, target[:, :1])
    ValueError: target must have the structure … outputs(init)
The solver of lineax is missing.
    gradients.adjoints.linear_solver(None)
    ValueError: solver must be a solver of lineax … got None … gradients.adjoints.cg()
The solver of lineax is a name.
    gradients.adjoints.linear_solver("LU")
    ValueError: solver must be a solver of lineax … got 'LU'
The tolerance of a solver is text.
    gradients.solvers.relaxation(tol="a")
    ValueError: tol must be a number, got 'a'; to keep the default, leave tol out
The tolerance of a solver is None.
    gradients.fixed_point(
        f, params, carry, x, solver=gradients.solvers.relaxation(tol=None)
    )
    ValueError: tol must be a number, got None; leave tol out for the default
The damping of a solver is text.
    gradients.fixed_point(f, params, carry, x, damping="half")
    ValueError: damping must be a number, got 'half'; to keep the default
The number of steps of a solver is text.
    gradients.solvers.anderson(max_steps="many")
    ValueError: max_steps must be a number, got 'many'
The ridge of an adjoint is text.
    gradients.adjoints.cg(ridge="small")
    ValueError: ridge must be a number, got 'small'
The damping of a reversible iteration is 1.
    gradients.adjoints.reversible(1)
    ValueError: beta must satisfy 0 < beta < 1, got 1 … cannot be recovered. Try 0.5
The damping of a reversible iteration is an array.
    gradients.adjoints.reversible(jnp.array(0.5))
    ValueError: beta must be a Python number, known while tracing
The state of a reversible iteration has an unknown kind.
    gradients.adjoints.reversible(0.5, state="exact")
    ValueError: state must be one of ['floating', 'fixed_point'], got 'exact'.
A reversible iteration gets a solver.
    gradients.fixed_point(
        f, params, carry, x, tol=1e-3, adjoint=gradients.adjoints.reversible(0.5)
    )
    ValueError: tol must be left out with adjoint=reversible(…) … its own solver
The map of a penalty is missing.
    gradients.jacobian_penalty(None, params, carry, x, key)
    ValueError: f must be a function (params, h, x) -> h, got None
The key of a penalty is a number.
    gradients.jacobian_penalty(f, params, carry, x, key=3)
    ValueError: key must be one key of jax.random, such as jax.random.key(0); got 3
The target has other batch axes than the state.
    gradients.recurrent_backprop(f, loss)(params, carry, x, target[:1])
    ValueError: loss must give one number for each example … target of shape (1, 3)

# Networks of layers

A cell is given, instead of layers.
    gradients.feedback_alignment(cells.gru, loss)
    ValueError: layers must be a sequence of (function, activation) … gradients.bptt
The layers are None.
    gradients.backprop(None, loss)
    ValueError: layers must be a sequence of (function, activation) pairs … got None
The layers and the loss are swapped.
    gradients.backprop(loss, layers)
    ValueError: layers must be a sequence of (function, activation) pairs
There are no layers.
    gradients.backprop([], loss)
    ValueError: layers must have at least one (function, activation) pair
A layer has no activation.
    gradients.backprop([layers[0][0]], loss)
    ValueError: layers[0] must be a pair of functions … may be lambda s: s
An activation is a name.
    gradients.backprop([(layers[0][0], "tanh")], loss)
    ValueError: layers[0] must be a pair of functions … 'tanh'
The params of a layer are missing.
    backprop(weights[:1], x, target)
    ValueError: params must have one entry for each layer; got 1 for 2 layers
The params of layers are a dict.
    backprop({"a": weights[0], "b": weights[1]}, x, target)
    ValueError: params must be a tuple or a list, with one entry for each … got dict
The params of layers are in the wrong order.
    backprop(weights[::-1], x, target)
    ValueError: the function of layers[0] must take params[0], of shapes [(5, 3)], and x
The params of a layer hold a name.
    backprop((weights[0], "tanh"), x, target)
    ValueError: params[1] must be an array, got 'tanh', a str
The input of layers is text.
    backprop(weights, "image.png", target)
    ValueError: x must be an array, got 'image.png', a str
The target of layers is text.
    backprop(weights, x, "cat")
    ValueError: target must be an array, got 'cat', a str
The weights of examples have the wrong length.
    backprop(weights, x, target, jnp.ones(3))
    ValueError: weights must have one entry for each loss … (2,); got shape (3,)
An activation returns integers.
    gradients.backprop([(layers[0][0], jnp.argmax)], loss)(weights[:1], x, target)
    ValueError: layers[0]: the activation output must be a floating array, got int32
The kind of feedback alignment is in capitals.
    align("FA")
    ValueError: kind must be one of fa, dfa, usf, brsf, frsf; got 'FA'
The scale of feedback is unknown.
    gradients.feedback_alignment(layers, loss, kind="usf", scale="lecun")
    ValueError: scale must be 'xavier', 'kaiming' or a number; got 'lecun'
The initializer is a name.
    gradients.feedback_alignment(layers, loss, kind="brsf", initializer="glorot")
    ValueError: initializer must be a function (key, shape, dtype) … got 'glorot'
Feedback weights are missing.
    align("fa")(weights, x, target)
    ValueError: feedback is missing for 'fa': give gradients.alignment_weights(
Feedback weights are a word.
    align("fa")(weights, x, target, feedback="random")
    ValueError: feedback must have one entry for each of the 2 layers … got 'random'
Feedback weights have the shape of another layer.
    align("fa")(weights, x, target, feedback=(None, weights[0]))
    ValueError: feedback[1] must be like params[1] … (5, 3) … got shape (3, 5)
Feedback weights of "fa" are given to "dfa".
    align("dfa")(weights, x, target, feedback=feedback)
    ValueError: feedback must be None for the last layer … kind='dfa'
Feedback weights are given to a kind without them.
    align("usf")(weights, x, target, feedback=feedback)
    ValueError: feedback must be left out for 'usf'
The key of "brsf" is missing.
    align("brsf")(weights, x, target)
    ValueError: key is missing for 'brsf': give a jax.random.key
The key and the layers are swapped.
    gradients.alignment_weights(layers, key, weights, x)
    ValueError: key must be one key of jax.random
The number of batch axes of layers is too large. [slow]
    gradients.alignment_weights(key, layers, weights, x, kind="dfa", batch_ndim=5)
    ValueError: batch_ndim must be the number of leading axes … got 5
The weights of a dense layer do not fit its input.
    gradients.feedback_dense(x, params[:2], feedback=params[:2])
    ValueError: w must have shape [n, m] for x of [*batch, n]; got (2, 3) and (2, 3)
The bias of a dense layer has the wrong length.
    gradients.feedback_dense(x, params, jnp.zeros(2), feedback=params)
    ValueError: b must have one number for each unit, shape (3,); got (2,)
The feedback of a dense layer is missing.
    gradients.feedback_dense(x, params)
    ValueError: feedback must have the shape of the weights, (3, 3) … got None
The kind of feedback of a dense layer is unknown.
    gradients.feedback_dense(x, params, feedback=params, kind="dfa")
    ValueError: kind must be one of fa, usf, brsf, frsf; got 'dfa'
The kernel of a convolution has other channels than the input.
    gradients.feedback_conv(image, kernel[:, :2], feedback=kernel[:, :2])
    ValueError: w must have shape [*window, n, m] … got (3, 2, 4) and (2, 8, 3)
The strides of a convolution have an entry too many.
    gradients.feedback_conv(image, kernel, feedback=kernel, strides=(2, 2))
    ValueError: strides must be an integer of at least 1 … 1 spatial axes; got (2, 2)
The stride of a convolution is 0.
    gradients.feedback_conv(image, kernel, feedback=kernel, strides=0)
    ValueError: strides must be an integer of at least 1 … got 0
Deltas are asked of None.
    gradients.layer_deltas(None, x)
    ValueError: function must be a function (*arguments) -> loss, got None
Deltas are asked of a function that returns an array.
    gradients.layer_deltas(lambda w: w @ w, params)
    ValueError: function must return one floating number … got float32[3,3]
Deltas are asked of a function without names.
    gradients.layer_deltas(lambda w: w.sum(), params)
    ValueError: function has no named intermediates … checkpoint_name
Deltas are asked at the name of a file.
    gradients.layer_deltas(lambda w: w.sum(), "weights.npz")
    ValueError: arguments[0] must be an array, got 'weights.npz', a str

# Updates

The first step size is 0.
    updates.rprop(0)
    ValueError: rprop needs learning_rate > 0, got 0 … 0.01 is usual
The first step size is negative.
    updates.rprop_minus(-0.1)
    ValueError: rprop_minus needs learning_rate > 0, got -0.1
The first step size is NaN.
    updates.rprop(float("nan"))
    ValueError: rprop needs learning_rate > 0, got nan
The first step size is text.
    updates.rprop("0.1")
    ValueError: learning_rate must be a number, got '0.1'
The first step size is True.
    updates.rprop(True)
    ValueError: learning_rate must be a number, got True
The first step size is complex.
    updates.rprop(1j)
    ValueError: learning_rate must be a number, got 1j
The first step size is a schedule.
    updates.rprop(optax.constant_schedule(0.1))
    ValueError: learning_rate must be a number, got the schedule … first step size
The learning rate has PyTorch's name.
    updates.rprop(lr=0.1)
    TypeError: no argument lr, as in PyTorch, got lr=0.1; use learning_rate
The factors have PyTorch's name.
    updates.rprop(etas=(0.5, 1.2))
    TypeError: no argument etas, as in PyTorch … use eta_minus and eta_plus
The bounds of step sizes have PyTorch's name.
    updates.rprop(step_sizes=(1e-6, 50))
    TypeError: no argument step_sizes … use min_step_size and max_step_size
Forgetting is given a momentum.
    updates.forgetting(0.1, momentum=0.9)
    TypeError: no argument momentum, as in PyTorch, got momentum=0.9; use decay
The factors are swapped.
    updates.rprop(0.1, 1.2, 0.5)
    ValueError: 0 < eta_minus < 1 < eta_plus, got eta_minus=1.2 and eta_plus=0.5
A factor is NaN.
    updates.rprop(0.1, eta_plus=float("nan"))
    ValueError: 0 < eta_minus < 1 < eta_plus … eta_plus=nan; 0.5 and 1.2 are usual
The bounds of step sizes are swapped.
    updates.rprop(0.1, min_step_size=1, max_step_size=0.5)
    ValueError: 0 <= min_step_size <= max_step_size … swap them
The layout of the state is unknown.
    updates.rprop(0.1, state="int4")
    ValueError: state must be one of ['float32', 'int8_sign' … got 'int4'
The weight decay is negative.
    updates.rprop(0.1, weight_decay=-0.1)
    ValueError: weight_decay must be at least 0, got -0.1
The weight decay is a dict.
    updates.rprop(0.1, weight_decay={"w": 0.1})
    ValueError: weight_decay must be a number for all params … optax.masked
The variant of Rprop is unknown.
    updates.scale_by_rprop(0.1, variant="rprop")
    ValueError: variant must be one of ['rprop_plus' … got 'rprop'
A learning rate for one array has the wrong name.
    updates.rprop({"v": 0.1}).init(tree)
    ValueError: learning_rate must be a number or a pytree like params … params['w']
A learning rate for one array has the wrong shape.
    updates.rprop({"w": jnp.ones(3)}).init(tree)
    ValueError: learning_rate['w'] must be a number or of the shape (2, 2)
The params of an optimizer hold a name.
    rprop.init({"w": jnp.ones(2), "name": "layer"})
    ValueError: params['name'] must be an array, got 'layer', a str
The params of an optimizer are integers.
    rprop.init({"w": jnp.arange(3)})
    ValueError: params['w'] must be a floating array, got int32
The params of Rprop are complex.
    rprop.init({"w": jnp.ones(2, complex)})
    ValueError: params['w'] must be real … split_real_and_imaginary
The state is of Adam.
    rprop.update(grads, adam.init(tree), tree)
    ValueError: state must be the state of rprop … got ScaleByAdamState
The state is missing.
    rprop.update(grads, None, tree)
    ValueError: state must be the state of rprop … got None … optimizer.init(params)
The params are given as the state.
    rprop.update(grads, tree)
    ValueError: state must be the state of rprop … got dict … optimizer.init(params)
The state is of another variant of Rprop.
    irprop.update(grads, rprop.init(tree), tree, value=1.0)
    ValueError: state must be of this optimizer, irprop_plus … without a last value
A gradient is missing.
    rprop.update({}, rprop.init(tree))
    ValueError: grads must have the leaves of the params … an array ['w']
A gradient has the wrong shape.
    rprop.update({"w": jnp.ones((3, 3))}, rprop.init(tree))
    ValueError: grads['w'] must be of shape (2, 2) … got (3, 3)
A gradient would broadcast.
    rprop.update({"w": jnp.ones((1, 2))}, rprop.init(tree))
    ValueError: grads['w'] must be of shape (2, 2) … got (1, 2)
A gradient is of integers.
    rprop.update({"w": jnp.ones((2, 2), int)}, rprop.init(tree))
    ValueError: grads['w'] must be a floating array, got int32
A gradient is complex.
    rprop.update({"w": jnp.ones((2, 2), complex)}, rprop.init(tree))
    ValueError: grads['w'] must be real, as params are, got complex64
The value and the gradients are given together.
    rprop.update((jnp.array(1.0), grads), rprop.init(tree))
    ValueError: grads must have the leaves of the params that init was given
iRprop⁺ gets no loss.
    irprop.update(grads, irprop.init(tree), tree)
    ValueError: irprop_plus needs value … value=value
iRprop⁺ gets the loss of each example.
    irprop.update(grads, irprop.init(tree), tree, value=jnp.ones(3))
    ValueError: irprop_plus needs a value of shape () … got shape (3,) … mean loss
iRprop⁺ gets text as the loss.
    irprop.update(grads, irprop.init(tree), tree, value="small")
    ValueError: value must be a number, got 'small'; give the loss
A transformation of steps is a number.
    updates.irprop_plus(0.1, after=0.5)
    ValueError: after must be an optax.GradientTransformation … got 0.5
A transformation of steps was not called.
    updates.rprop_plus(0.1, after=optax.clip)
    ValueError: after must be an optax.GradientTransformation … function clip
Weight decay is used without params.
    updates.rprop(0.1, weight_decay=0.1).update(
        grads, updates.rprop(0.1, weight_decay=0.1).init(tree)
    )
    ValueError: rprop with weight_decay needs params … update(grads, state, params)
The Manhattan rule has no step length.
    updates.manhattan()
    TypeError: missing 1 required positional argument: 'learning_rate'
The step length of the Manhattan rule is negative.
    updates.manhattan(-0.1)
    ValueError: manhattan needs learning_rate >= 0, got -0.1
GRprop's choice is unknown.
    updates.grprop(choose="all")
    ValueError: choose must be 'sag' or 'slr', got 'all'
GRprop's δ is negative.
    updates.grprop(delta=-1)
    ValueError: delta must be positive, got -1; 1e-6 is usual
GRprop gets a learning rate for each array.
    updates.grprop({"w": 0.1})
    ValueError: learning_rate must be a number, got {'w': 0.1}
The decay of averages is 1.
    updates.probabilistic_rprop(ema_decay=1)
    ValueError: 0 <= ema_decay < 1, got 1
The adaptation of step sizes is unknown.
    updates.probabilistic_rprop(adapt="cubic")
    ValueError: adapt must be one of ['exponential', 'linear', 'step'], got 'cubic'
The forgetting factor is 1.
    updates.forgetting(0.1, 1.0)
    ValueError: forgetting needs 0 <= decay < 1, got 1.0
The forgetting factor is NaN.
    updates.forgetting(0.1, float("nan"))
    ValueError: forgetting needs 0 <= decay < 1, got nan
The forgetting factor is text.
    updates.forgetting(0.1, "0.9")
    ValueError: decay must be a number, got '0.9'
The learning rate of forgetting is negative.
    updates.forgetting(-0.1, 0.9)
    ValueError: forgetting needs learning_rate >= 0, got -0.1 … negate the loss
Two forms of forgetting are combined.
    updates.forgetting(0.1, 0.9, scale_past=False, normalise=True)
    ValueError: normalise=True cannot be combined with scale_past=False
The form of forgetting is a word.
    updates.forgetting(0.1, 0.9, scale_past="no")
    ValueError: scale_past must be True or False, got 'no'
The factor of the current gradient is text.
    updates.scale_by_forgetting(0.9, "all")
    ValueError: current must be a number, got 'all'
The effective step of a schedule is asked for.
    updates.effective_step(optax.constant_schedule(0.1), 0.9)
    ValueError: learning_rate must be a number or an array, got a schedule
The loss of replay is None.
    updates.replay(None, 0.9)
    ValueError: loss must be a function (params, *batch) -> loss, got None
The horizon of replay is not whole.
    updates.replay(loss, 0.9, horizon=2.5)
    ValueError: horizon must be an integer of at least 1, got 2.5
The horizon of replay is True.
    updates.replay(loss, 0.9, horizon=True)
    ValueError: horizon must be an integer of at least 1, got True
The tolerance of replay is 0.
    updates.replay(loss, 0.9, tol=0)
    ValueError: tol must be within 0 < tol < 1, got 0
The forgetting factor of replay is an array.
    updates.replay(loss, jnp.array(0.9))
    ValueError: decay is an array … pass it as horizon
The batch of replay is one array.
    memory.init(jnp.ones(2))
    ValueError: batch must be a tuple … give (batch,)
The batches of replay differ in shape.
    memory.push(memory.init((jnp.ones(2),)), (jnp.ones(3),))
    ValueError: batch must have the structure, shapes and dtypes of the batch that init
The forgetting factor of least squares is 0.
    updates.recursive_least_squares(0)
    ValueError: recursive_least_squares needs 0 < decay <= 1, got 0
The prior of least squares is negative.
    updates.recursive_least_squares(0.9, prior=-1)
    ValueError: prior must be positive, got -1
The weights of least squares are a dict.
    rls.init(tree)
    ValueError: w must be one array [d] or [d, *outputs] … a bias is the weight
An example of least squares has the wrong length. [slow]
    rls.update(jnp.ones(3), rls.init(jnp.ones(3)), jnp.ones(2), 1.0)
    ValueError: x must be of shape (3,) … got (2,) … one at a time
The limit of the spectral norm is 0.
    updates.project_spectral_norm(0)
    ValueError: limit must be positive, got 0
The iterations of a projection are not whole.
    updates.project_spectral_norm(steps=2.5)
    ValueError: steps must be an integer of at least 1, got 2.5; 30 is usual
A projection gets no params. [slow]
    updates.project_spectral_norm().update(
        grads, updates.project_spectral_norm().init(tree)
    )
    ValueError: project_spectral_norm needs params … update(grads, state, params)
A report is asked of another optimizer's state.
    updates.rprop_report(sgd.init(tree))
    ValueError: state must have a ScaleByRpropState in it
The bound of a report is text.
    updates.rprop_report(rprop.init(tree), min_step_size="small")
    ValueError: min_step_size must be a number, got 'small'

# Training

The rule is None.
    training.fit(None, sgd, w, batch, steps=1)
    ValueError: rule must be a function (params, *batch) -> ((value, aux), grads)
The rule runs online.
    training.fit(rtrl, sgd, params, args[1:], steps=1)
    ValueError: rule must be a function … gradients.over_sequence(rule)
The rule is the loss function.
    training.fit(lambda w, x: jnp.mean((w - x) ** 2), sgd, w, batch, steps=1)
    ValueError: rule must return ((value, aux), grads) … has_aux=True
The rule returns no auxiliary value.
    training.fit(jax.value_and_grad(lambda w, x: w @ x), sgd, w, batch, steps=1)
    ValueError: rule must return ((value, aux), grads) … has_aux=True
The rule and the update are swapped.
    training.fit(sgd, rule, w, batch, steps=1)
    ValueError: rule must be a function … GradientTransformationExtraArgs
The update is a function of optax that was not called.
    fit(update=optax.sgd)
    ValueError: update must be an optax.GradientTransformation … function sgd
The update is a learning rate.
    fit(update=0.1)
    ValueError: update must be an optax.GradientTransformation … got 0.1
The params of a training hold a name.
    training.fit(rule, sgd, {"w": "zeros"}, batch, steps=1)
    ValueError: params['w'] must be an array, got 'zeros', a str
A training has no params.
    training.fit(rule, sgd, {}, batch, steps=1)
    ValueError: params has no arrays to train
The params and the data are swapped.
    training.fit(rule, sgd, batch, w, steps=1)
    ValueError: data must be a tuple, the batch of every step … give (array,)
The data are None.
    fit(None)
    ValueError: data must be a tuple, an iterable of tuples, or a function … got None
The data are one array, not a batch.
    fit(jnp.ones((5, 2)))
    ValueError: data must be a tuple … an array float32[2] as a batch … give (array,)
The data are a dict, and no batches are drawn from it.
    fit({"x": jnp.ones(2)})
    ValueError: data must be a tuple … got 'x' as a batch … give sample=
The data hold a word.
    fit(("cat",))
    ValueError: data[0] must be an array, got 'cat', a str
A batch has an entry too few.
    fit(())
    ValueError: rule cannot be called … rule(params, *batch), here with a batch of 0
A batch has an entry too many.
    fit((jnp.ones(2), jnp.ones(2)))
    ValueError: rule cannot be called … here with a batch of 2 entries
A generator of batches has been used before.
    fit(iter([]))
    ValueError: data has no batch … A generator can be used once only
Batches have different shapes.
    fit([(jnp.ones(2),), (jnp.ones(3),)], steps=2)
    ValueError: data must be batches of equal shapes … ((2,),) and ((3,),)
A function of the step returns no batches.
    fit(lambda step: None)
    ValueError: data must return an iterable of batches … returned None
A function of the step takes no step.
    fit(lambda: [batch])
    ValueError: data cannot be called as data(step)
The carry of a rule for sequences is missing.
    training.fit(bptt, sgd, params, (xs, targets), steps=1)
    ValueError: rule cannot be called … 'targets' … give carry=
The carry is given twice.
    training.fit(bptt, sgd, params, args[1:], steps=1, carry=carry)
    ValueError: targets must have … a batch must not hold it
The number of steps is None.
    fit(steps=None)
    ValueError: steps must be an integer of at least 1, got None
The number of steps is 0.
    fit(steps=0)
    ValueError: steps must be an integer of at least 1, got 0
The number of steps is not whole.
    fit(steps=2.5)
    ValueError: steps must be an integer of at least 1, got 2.5
The number of steps is True.
    fit(steps=True)
    ValueError: steps must be an integer of at least 1, got True
The size of a chunk is None.
    fit(chunk=None)
    ValueError: chunk must be an integer of at least 1, got None
Several runs get the params of one.
    fit(runs=3)
    ValueError: params must have a first axis of runs=3 … jax.vmap(init)(keys)
The number of epochs is given.
    fit(epochs=3)
    TypeError: unexpected keyword argument 'epochs'
The function that draws batches is a number.
    fit(sample=3)
    ValueError: sample must be a function (key, data) -> batch, got 3
The function that draws batches has no key.
    fit(sample=lambda key, data: data)
    ValueError: sample was given without key … key=jax.random.key(seed)
The function that draws batches takes no key.
    fit(sample=lambda data: data, key=key)
    ValueError: sample cannot be called as sample(key, data)
The function that draws batches returns an array.
    fit(sample=lambda key, data: data[0], key=key)
    ValueError: sample must return a tuple, the batch … float32[2]
A key is given, and nothing draws.
    fit(key=key)
    ValueError: key was given, but the rule takes no key … Leave key out
A key is given, but is withheld from the rule.
    fit(key=key, draws=False)
    ValueError: key was given, but with draws=False … nothing draws from it
A rule that draws has no key.
    training.fit(over(uoro), sgd, params, args[1:], steps=1)
    ValueError: rule draws random numbers … give fit key=jax.random.key(seed)
A rule draws, but its key is missing.
    fit(draws=True)
    ValueError: draws=True was given without key
A rule does not draw, but gets a key.
    fit(draws=True, key=key)
    ValueError: rule cannot be called … 'key' … give draws=False
The key of a training is a seed.
    fit(draws=True, key=3)
    ValueError: key must be a single key, such as jax.random.key(seed), got 3
The log is the name of a file.
    fit(log="log.jsonl")
    ValueError: log must be a function (step, metrics) … training.JsonLog(path)
The log takes one argument.
    fit(log=lambda step: None)
    ValueError: log cannot be called as log(step, metrics) … takes 1 positional
The condition to stop returns nothing.
    fit(stop=lambda step, metrics: None)
    ValueError: stop must return True or False … got None
The condition to stop is a number.
    fit(stop=0.1)
    ValueError: stop must be a function (step, metrics), got 0.1
The treatment of NaN is unknown.
    fit(nonfinite="warn")
    ValueError: nonfinite must be one of ['raise', 'skip', 'stop', 'ignore'], got 'warn'
The progress is a function.
    fit(progress=print)
    ValueError: progress must be True or False
The search for NaN is not a function.
    fit(diagnose=True)
    ValueError: diagnose must be a function (params, *batch) … training.diagnosis
The search for NaN is given, but NaN is skipped.
    fit(diagnose=training.diagnosis(step, loss), nonfinite="skip")
    ValueError: diagnose was given, but with nonfinite='skip' nothing calls it
The search for NaN has no step.
    training.diagnosis(None, loss)
    ValueError: step must be a function … got None
A training is called within jit.
    jax.jit(lambda w: training.fit(rule, sgd, w, batch, steps=1).params)(w)
    ValueError: fit was called with arrays that jax.jit, vmap or grad traces
The data have NaN. [slow]
    fit((jnp.array([1.0, jnp.nan]),))
    NonFiniteError: step 0 was not finite … grads (1) … training.diagnosis(step, loss)

# Comparison of rules

There is no rule to compare.
    training.compare({}, sgd, params, args[1:], steps=1)
    ValueError: rules must be a dict of at least one rule … got a dict of 0
The rules have no names.
    training.compare([bptt], sgd, params, args[1:], steps=1)
    ValueError: rules must be a dict of at least one rule … got a list of 1
The exact rule is not one of the rules.
    training.compare({"bptt": bptt}, sgd, params, args[1:], steps=1, exact="rtrl")
    ValueError: exact must be the name of a rule, one of ['bptt'], got 'rtrl'
The batches to compare by can be read only once.
    training.compare({"bptt": bptt}, sgd, params, iter([args[1:]]), steps=1)
    ValueError: data must be a tuple, a list of batches … read only once
A rule to compare draws, and there is no key.
    training.compare({"uoro": uoro}, sgd, params, args[1:], steps=1)
    ValueError: key must be given

# Files of a training

The params are saved to no path.
    training.save("", params)
    ValueError: path must be a path, got ''
The params to save hold a word.
    training.save(folder, {"w": w, "name": "tanh"})
    ValueError: params['name'] must be an array, got 'tanh'
The params to save are empty.
    training.save(folder, {})
    ValueError: params has no arrays to save
The folder of saved params is a file.
    ((folder / "a").touch(), training.save(folder / "a", w))
    ValueError: path runs/a is a file; give a folder that does not exist
The folder of saved params holds something else.
    ((folder / "a").touch(), training.save(folder, w))
    ValueError: path runs holds files that training.save has not written, such as a
The permission to overwrite is a word.
    training.save(folder, w, overwrite="yes")
    ValueError: overwrite must be True or False, got 'yes'
Params are saved twice to one folder. [slow]
    [training.save(folder, w) for _ in range(2)]
    ValueError: path runs holds saved params … overwrite=True
Params are saved over the checkpoints of a training. [slow]
    (fit(checkpoint=saved(folder)), training.save(folder, w, overwrite=True))
    ValueError: path runs holds files that training.save has not written
Params are loaded that were not saved.
    training.load(folder / "model")
    ValueError: path runs/model does not exist
Params are loaded from an empty folder.
    training.load(folder)
    ValueError: path runs holds no params of training.save
Params are loaded with another shape. [slow]
    (training.save(folder, w), training.load(folder, jnp.ones(3)))
    ValueError: like does not match the saved params … float32[2] and is float32[3]
Params are loaded with another structure. [slow]
    (training.save(folder, tree), training.load(folder, w))
    ValueError: like does not match the saved params … ['w'] was … and is not there
Params with a container of one's own are loaded without it. [slow]
    (training.save(folder, state), training.load(folder))
    ValueError: path runs holds params with random keys, or … give like=

The checkpoints are the name of a folder.
    fit(checkpoint="runs")
    ValueError: checkpoint must be a training.Checkpoint(directory), got 'runs'
The folder of checkpoints is a number.
    training.Checkpoint(3)
    ValueError: directory must be a path … got 3
The folder of checkpoints is empty text.
    training.Checkpoint("")
    ValueError: directory must be a path … got ''
The name of the folder is not UTF-8.
    training.Checkpoint("\udcff")
    ValueError: directory must have a name in UTF-8
The period of checkpoints is 0.
    saved(folder, every=0)
    ValueError: every must be an integer of at least 1, got 0
The number of checkpoints to keep is a word.
    saved(folder, keep="all")
    ValueError: keep must be an integer of at least 1, got 'all'
The score of the best checkpoint is a number.
    saved(folder, best=3)
    ValueError: best must be the name of a metric … got 3
The score of the best checkpoint is no metric.
    fit(checkpoint=saved(folder, best="accuracy"))
    ValueError: best must be one of ['skipped', 'value', 'values'], got 'accuracy'
The score of the best checkpoint is text.
    fit(checkpoint=saved(folder, best=lambda metrics: "good"))
    ValueError: best must be a function metrics -> number … returned 'good'
The resumption is a word.
    saved(folder, resume="yes")
    ValueError: resume must be True or False, got 'yes'
The settings of a training are not JSON.
    saved(folder, config={(1, 2): 3})
    ValueError: config must be a dict that JSON can hold
The folder of checkpoints cannot be made.
    fit(checkpoint=saved("/proc/runs"))
    ValueError: directory /proc/runs cannot be written to … Choose another directory
The folder of checkpoints is a file.
    ((folder / "a").touch(), fit(checkpoint=saved(folder / "a")))
    ValueError: directory runs/a cannot be written to … Choose another directory
A resumed training has fewer steps. [slow]
    (fit(steps=2, checkpoint=saved(folder)), fit(checkpoint=saved(folder)))
    ValueError: steps=1 is less than 2, the step of the checkpoint
A new training gets the folder of another. [slow]
    (fit(checkpoint=saved(folder)), fit(checkpoint=saved(folder, resume=False)))
    ValueError: directory runs holds checkpoints … resume=True
A resumed training has another update. [slow]
    (fit(checkpoint=saved(folder)), fit(update=adam, checkpoint=saved(folder)))
    ValueError: checkpoint: runs/1 is from a different training … state.opt_state
Two trainings write to one folder.
    [stack.enter_context(training.locked(folder)) for _ in range(2)]
    ValueError: directory runs is in use … choose another directory
A checkpoint is read with other params. [slow]
    (fit(checkpoint=saved(folder)), training.read_checkpoint(folder, jnp.ones(3)))
    ValueError: params do not match the checkpoint … float32[2] and is float32[3]
A checkpoint is read from an empty folder.
    training.read_checkpoint(folder, w)
    ValueError: directory runs holds no checkpoint that can be read
The folder and the params are swapped.
    training.read_checkpoint(w, folder)
    ValueError: directory must be a path … got Array([0., 0.]
The path of a log is a number.
    training.JsonLog(3)
    ValueError: path must be a path … got 3
The path of a log is a folder.
    fit(log=training.JsonLog(folder))
    ValueError: path runs cannot be written to: Is a directory. Choose another path
The path of a log cannot be written to.
    fit(log=training.JsonLog("/proc/runs/log.jsonl"))
    ValueError: path /proc/runs/log.jsonl cannot be written to … Choose another path
The path of a log has the lines of another training.
    [fit(log=training.JsonLog(folder / "log.jsonl")) for _ in range(2)]
    ValueError: path runs/log.jsonl holds lines of another training … delete the file
The entries of a log are text.
    fit(log=training.JsonLog(folder / "log.jsonl", more=lambda step, metrics: "good"))
    ValueError: more must return a dict of entries … it returned 'good'
The path to lock is a number.
    stack.enter_context(training.locked(3))
    ValueError: directory must be a path … got 3

# Learners in files

The rule of a learner needs whole sequences.
    export(rule=bptt)
    ValueError: rule must be an online rule, such as gradients.rtrl … got a function
The state of the update is missing.
    export(pair=params)
    ValueError: pair must be (params, opt_state) … got an array float32[3, 3]
The state of the rule is the carry.
    export(state=carry)
    ValueError: state must be the state of the rule … got an array float32[2, 3]
The target is missing.
    export(inputs=x)
    ValueError: inputs must be the pair (x, target) of one step, got an array
A rule that draws random numbers is exported without a key.
    export(rule=uoro, state=drawn)
    ValueError: rule draws random numbers … key=jax.random.key(seed)
A rule that draws no random numbers is exported with a key.
    export(key=key)
    ValueError: key was given, but the rule draws no random numbers; leave it out
A flag has a name that does not exist.
    export(flags={"resets": False})
    ValueError: each name in flags must be one of ['weight', 'mask', 'reset'], got
The flags are a list.
    export(flags=["reset"])
    ValueError: flags must be a dict, such as {"reset": False}, got a list of 1
A platform has a name that does not exist.
    export(platforms=["gpu"])
    ValueError: platforms must be one of ['cpu', 'cuda', 'rocm', 'tpu'], got 'gpu'
The file of a learner is a number.
    export(path=3)
    ValueError: path must be a path, got 3
The inputs of a learner are an object.
    export(inputs=(jax.tree_util.Partial(step, x), target))
    ValueError: x must be made of arrays, dicts with names, lists and tuples … Partial
The file of a learner does not exist.
    training.load_learner(folder / "gru.learner")
    ValueError: path: there is no file runs/gru.learner
The file of a learner is a text.
    ((folder / "a").write_text("a text"), training.load_learner(folder / "a"))
    ValueError: path: runs/a is not a file that training.export_learner … no zip archive
A learner with features is made from a file name.
    training.DictLearner("gru.learner", ["wind", "rain"])
    ValueError: learner must be a Learner, as training.load_learner returns it; got

# Sweeps

The function that makes a run is None.
    sweep(None)
    ValueError: make_run must be a function (config, key) -> (state, advance), got None
The function that makes a run takes no key.
    sweep(lambda config: make_run(config, key))
    ValueError: make_run cannot be called as make_run(config, key)
The function that makes a run returns a number.
    sweep(lambda config, key: 3)
    ValueError: make_run must return (state, advance) … got 3
The state of a run holds a word.
    sweep(lambda config, key: ("zeros", make_run(config, key)[1]))
    ValueError: the state of make_run must be a pytree of arrays … state is 'zeros'
A step of a run returns no metrics.
    sweep(lambda config, key: (w, lambda state, t: state))
    ValueError: advance must return (state, metrics) with a dict of metrics
A metric is an array.
    sweep(lambda config, key: (w, lambda state, t: (state, {"loss": state})))
    ValueError: advance must give metrics that are real scalars … 'loss'
A step of a run changes the shape of the state.
    sweep(lambda config, key: (w, lambda state, t: (state[:1], {"loss": state[0]})))
    ValueError: the state that advance returns … float32[2]; got float32[1]
The configs are one config.
    sweep(configs={"rate": 0.1})
    ValueError: configs must be a list with a dict … got {'rate': 0.1}
There are no configs.
    sweep(configs=[])
    ValueError: configs is empty
A config is a number.
    sweep(configs=[0.1])
    ValueError: configs[0] must be a dict, a dataclass or a NamedTuple, got 0.1
Configs have different fields.
    sweep(configs=[{"rate": 0.1}, {"lr": 0.1}])
    ValueError: configs must all have the same fields … lr, rate
A field of a config is a list.
    sweep(configs=[{"rate": [0.1]}])
    ValueError: configs[0]['rate'] must be a finite float … got [0.1]
A field of a config is NaN.
    sweep(configs=[{"rate": float("nan")}])
    ValueError: configs[0]['rate'] must be a finite float … got nan
A field has the name of a column.
    sweep(configs=[{"seed": 0.1}])
    ValueError: configs[0] has a field 'seed'; names must be strings other than seed
A config is given twice.
    sweep(configs=[{"rate": 0.1}, {"rate": 0.1}])
    ValueError: configs[1] is configs[0] again … give several seeds
The seeds are a number.
    sweep(seeds=3)
    ValueError: seeds must be a sequence, not empty, got 3 … range(10)
A seed is given twice.
    sweep(seeds=[0, 0])
    ValueError: seeds has 0 twice
A seed is a float.
    sweep(seeds=[0.5])
    ValueError: seeds has 0.5 in it
The number of steps of a sweep is None.
    sweep(steps=None)
    ValueError: steps must be an integer of at least 1, got None
The devices are a number.
    sweep(devices=3)
    ValueError: devices must be a list of devices, such as jax.devices(), got 3
The devices are a name.
    sweep(devices="cpu")
    ValueError: devices must be a list of devices, such as jax.devices(), got 'cpu'
The memory of a sweep is too small.
    sweep(max_bytes=1)
    ValueError: max_bytes=1 is less than the
The condition to end a run is a word.
    sweep(stop="loss")
    ValueError: stop must be a function or None, got 'loss'
The condition to end a run gives a metric.
    sweep(stop=lambda metrics: metrics["loss"])
    ValueError: stop must give one bool … got an array float32[]
The condition to end a run names an unknown metric. [network]
    sweep(stop=lambda metrics: metrics["accuracy"] > 0.9)
    KeyError: accuracy … stop is given the metrics loss
The wish for curves is a word.
    sweep(curves="no")
    ValueError: curves must be True or False, got 'no'
The path of a sweep is a folder.
    sweep(path=folder)
    ValueError: path runs cannot be written to … Give another path
The path of a sweep cannot be written to.
    sweep(path="/proc/runs/rows.jsonl")
    ValueError: path /proc/runs/rows.jsonl cannot be written to
The path of a sweep is another kind of file.
    ((folder / "rows").write_text("loss,rate\n"), sweep(path=folder / "rows"))
    ValueError: path runs/rows is not a table of a sweep: line 1 is not JSON
The path of a sweep has runs of another length. [slow]
    (sweep(path=folder / "rows"), sweep(path=folder / "rows", steps=3))
    ValueError: path runs/rows has runs of steps=2 (line 1), but steps=3 was given

# Cells and adapters

A cell has no units.
    cells.gru.init(key, 3, 0)
    ValueError: units must be an integer of at least 1, got 0
The number of inputs is a float.
    cells.lstm.init(key, 3.0, 4)
    ValueError: inputs must be an integer of at least 0, got 3.0
The key of a cell is missing.
    cells.gru.init(3, 4)
    TypeError: missing 1 required positional argument: 'units'
The dtype of a cell is of integers.
    cells.min_gru.init(key, 3, 4, dtype=int)
    ValueError: dtype must be a floating dtype, such as jnp.float32
The dtype of a cell is unknown.
    cells.tanh.init(key, 3, 4, dtype="half-float")
    ValueError: dtype must be a floating dtype … got 'half-float'
The batch shape is a number.
    cells.gru.carry(gru, 5)
    ValueError: batch_shape must be a tuple of integers … such as (32,) or (); got 5
The carry is made from a batch shape alone.
    cells.gru.carry((5,))
    ValueError: params must be what cells.gru.init(key, inputs, units) returns
The input of a cell has the wrong width.
    cells.gru(gru, cells.gru.carry(gru, (2,)), jnp.ones((2, 5)))
    ValueError: x must be an array [*batch, 3] … inputs=3, units=4 … float32[2, 5]
The carry of a cell has the wrong width.
    cells.gru(gru, jnp.zeros((2, 5)), jnp.ones((2, 3)))
    ValueError: carry must be an array [*batch, 4], as cells.gru.carry(params
The carry of an LSTM is one array.
    gradients.bptt(cells.lstm, loss)(lstm, jnp.zeros((2, 4)), xs, targets)
    ValueError: carry must be (c, h), two arrays [*batch, 4], as cells.lstm.carry
The params are of another cell.
    cells.gru(lstm, jnp.zeros((2, 4)), x)
    ValueError: params must be what cells.gru.init … ['candidate_bias']; got the keys
The params of a GRU are given to a network of tanh.
    cells.tanh(gru, jnp.zeros((2, 4)), x)
    ValueError: params must be what cells.tanh.init … got shape (4, 12)
The radii of eigenvalues are swapped. [slow]
    cells.lru.init(key, 3, 4, min_radius=0.9, max_radius=0.5)
    ValueError: 0 ≤ min_radius < max_radius < 1 … got 0.9 and 0.5
A radius of eigenvalues is text.
    cells.rtu.init(key, 3, 4, max_radius="one")
    ValueError: max_radius must be a number, got 'one'
The carry of a linear recurrent unit has the wrong width. [slow]
    cells.lru(cells.lru.init(key, 3, 4), jnp.zeros((2, 5), complex), x)
    ValueError: carry must be an array [*batch, 4], as cells.lru.carry(params
A time constant is negative.
    cells.lif(cells.lif.init(key, 3, 4), rest, x, tau=-20.0)
    ValueError: tau must be positive, got -20.0; it is a number of time steps
A surrogate derivative is a name.
    cells.lif(cells.lif.init(key, 3, 4), rest, x, surrogate="triangular")
    ValueError: surrogate must be a function (u) -> … got 'triangular'
Potentials are in bfloat16.
    cells.lif(
        cells.lif.init(key, 3, 4),
        jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), rest),
        x,
    )
    ValueError: carry must be float32 or wider, got bfloat16: a potential near
A kernel is of another kind.
    cells.gru.with_kernel("triton")
    ValueError: kernel must be 'pallas', got 'triton'
The platform of interpret mode is a switch.
    cells.lstm.with_kernel("pallas", interpret=True)
    ValueError: interpret must be None, 'tpu' or 'gpu', the platform … got True
A kernel gets two dtypes.
    gradients.unroll(
        cells.lstm.with_kernel("pallas"), lstm, pair, xs.astype(jnp.bfloat16)
    )
    ValueError: params, carry and xs of cells.lstm with kernel='pallas' must all have
cuDNN's LSTM gets one step.
    cells.lstm_cudnn(lstm, pair, x)
    ValueError: xs must have shape [T, B, d] with T > 0 and d = 3 … got (2, 3)
cuDNN's LSTM gets another dtype.
    cells.lstm_cudnn(lstm, pair, xs.astype(jnp.bfloat16))
    ValueError: xs must be float32, the only dtype that lstm_cudnn takes; got bfloat16
cuDNN's LSTM gets one array as the carry.
    cells.lstm_cudnn(lstm, jnp.zeros((2, 4)), xs)
    ValueError: carry must be (c, h), two arrays [B, n] = (2, 4)
A length of cuDNN's LSTM is too large.
    cells.lstm_cudnn(lstm, pair, xs, lengths=jnp.array([1, 9]))
    ValueError: lengths must be integers from 0 to len(xs) = 4, got 9
The lengths of cuDNN's LSTM are floats.
    cells.lstm_cudnn(lstm, pair, xs, lengths=jnp.array([1.5, 2.0]))
    ValueError: lengths must be integers from 0 to len(xs) = 4, got float32
The adapter of NNX gets a Linen module.
    adapters.from_nnx(nn.GRUCell(3))
    ValueError: module must be a flax.nnx.Module, got a GRUCell … module.apply
The adapter of NNX gets a class.
    adapters.from_nnx(nnx.GRUCell)
    ValueError: module must be a flax.nnx.Module, got the class GRUCell … nnx.Rngs(0)
The adapter of Equinox gets an NNX module. [slow]
    adapters.from_equinox(nnx.GRUCell(3, 3, rngs=nnx.Rngs(0)))
    ValueError: module must be an equinox.Module, got a GRUCell … adapters.from_nnx
The adapter of Equinox gets a function.
    adapters.from_equinox(step)
    ValueError: module must be an equinox.Module, got a function
The call of an Equinox module is a name.
    adapters.from_equinox(cell, call="step")
    ValueError: call must be a function (module, carry, x) -> (carry, y), got 'step'

# Diagnostics

The gradient of an online rule is checked.
    diagnostics.check_gradients(rtrl, *args, key=key)
    ValueError: rule must be a function that returns (value, grads) … over_sequence
A check of gradients has no key.
    diagnostics.check_gradients(bptt, *args)
    TypeError: missing 1 required keyword-only argument: 'key'
The number of directions of a check is 0.
    diagnostics.check_gradients(bptt, *args, key=key, directions=0)
    ValueError: directions must be an integer of at least 1, got 0
The step of finite differences is text.
    diagnostics.check_gradients(bptt, *args, key=key, step="small")
    ValueError: step must be a number, got 'small'; 1e-6 suits float64
A checked function returns an array as its value.
    diagnostics.check_gradients(lambda w: (w, w), params, key=key)
    ValueError: rule must return one real number as its value, got shape (3, 3)
A checked function returns no gradient.
    diagnostics.check_gradients(lambda w: w, params, key=key)
    ValueError: rule must return (value, grads) … jax.value_and_grad
A rule is compared with an online rule. [slow]
    diagnostics.compare(bptt, rtrl, *args)
    ValueError: rule_b must be a function that returns (value, grads) … over_sequence
The gradients that are compared have different shapes. [slow]
    diagnostics.compare(bptt, lambda *args: (jnp.ones(()), jnp.ones(2)), *args)
    ValueError: the gradient that rule_b returns must have … float32[3, 3] … float32[2]
The quality of None is asked for.
    quality(None)
    ValueError: rule must be a gradient rule or an online rule … got None
The keys of draws are one key. [slow]
    quality(uoro, keys=key)
    ValueError: keys must have one axis, with a key for each draw … jax.random.split
The keys of draws are a number. [slow]
    quality(uoro, keys=3)
    ValueError: keys must be an array of keys, such as jax.random.split(key, 100), got 3
The number of draws at a time is given without keys. [slow]
    quality(rtrl, at_once=2)
    ValueError: at_once is the number of keys to use at a time … leave at_once out
The reference is a name.
    quality(rtrl, reference="bptt")
    ValueError: reference must be a gradient rule or an online rule … got 'bptt'
The number of samples is 0.
    flow(samples=0)
    ValueError: samples must be an integer of at least 1, got 0
The lag is longer than the sequence.
    flow(tau=9)
    ValueError: tau must be an integer from 0 to 3, the largest lag; got 9
The tolerance of a lookback is above 1.
    flow(tolerance=2)
    ValueError: tolerance must be between 0 and 1, got 2
The tolerance of a lookback is text.
    flow(tolerance="small")
    ValueError: tolerance must be a number, got 'small'
The bias of a truncation is 0.
    bounds(bias=0, tau=1)
    ValueError: bias must be positive, got 0; give 0.1, for example
The bias of a truncation is text.
    bounds(bias="small", tau=1)
    ValueError: bias must be a number, got 'small'; give 0.1
The lookback is longer than the sequence.
    bounds(bias=0.1, tau=1, max_lookback=9)
    ValueError: max_lookback must be an integer from 2 to 4 … got 9
The fit of a decay is unknown.
    bounds(bias=0.1, tau=1, fit="mean")
    ValueError: fit must be 'least_squares' or 'max', got 'mean'
There are more exponents than units.
    spectrum(exponents=9)
    ValueError: exponents must be an integer from 1 to 3 … got 9
All steps are skipped.
    spectrum(skip=4)
    ValueError: skip must be an integer from 0 to 3, so that a step is left; got 4
The batch shape of a spectrum is a number.
    spectrum(batch_shape=2)
    ValueError: batch_shape must be a tuple … such as (32,); got 2
The mask of a spectrum has a batch axis.
    spectrum(mask=flags)
    ValueError: mask must be [T, *batch] = (4,), got (4, 2); give a batch_shape
The first NaN is sought in a gradient rule.
    diagnostics.first_nonfinite(bptt, loss, *args)
    ValueError: step cannot be called as step(params, carry, x)
The first NaN is sought in one gradient.
    diagnostics.first_nonfinite_update(rprop, tree, rprop.init(tree), grads)
    ValueError: each of the grads [T, ...] must have the structure … float32[2, 2]
The first NaN is sought with the state and the gradients swapped.
    diagnostics.first_nonfinite_update(rprop, tree, grads, rprop.init(tree))
    ValueError: grads must have a first axis of T successive iterations
The first NaN is sought without an optimizer.
    diagnostics.first_nonfinite_update(None, tree, None, grads)
    ValueError: update must be a function (grads, state, params) … or an optimizer
An update is reported for other params.
    diagnostics.update_report({"w": jnp.ones(3)}, tree)
    ValueError: updates must have the structure and shapes of params
Angles are asked of gradients.
    diagnostics.alignment_angles(weights, weights)
    ValueError: info must be the info that a rule returns … gradients.backprop
A replay is checked against nothing.
    diagnostics.check_replay(step, params, carry, xs)
    ValueError: outputs or carries must be given … log-probabilities of the actions
The stored outputs are those of one step.
    diagnostics.check_replay(step, params, carry, xs, outputs=x)
    ValueError: outputs must have 4 time steps on its first axis
The stored carries have another number of units.
    diagnostics.check_replay(step, params, carry, xs, carries=xs[..., :2])
    ValueError: carries must be those of all steps … [4, 2, 3]; got [4, 2, 2]
The resets of a replay are numbers.
    diagnostics.check_replay(step, params, carry, xs, outputs=xs, reset=1.0 * flags)
    ValueError: reset must be bool, got float32; use `reset != 0`
The tolerance of a replay is 0.
    diagnostics.check_replay(step, params, carry, xs, outputs=xs, tol=0)
    ValueError: tol must be positive, such as 1e-3, got 0
The tolerance of a replay is text.
    diagnostics.check_replay(step, params, carry, xs, outputs=xs, tol="small")
    ValueError: tol must be a number, got 'small'
The memory of None is asked for.
    diagnostics.memory_report(None)
    ValueError: fn must be a function of arrays, got None
The cost of a number is asked for.
    diagnostics.cost_report(3)
    ValueError: fn must be a function of arrays, got 3

# Studies and their files

The name of a study is misspelled.
    $ python -m experiments forcast
    SystemExit: unknown study 'forcast'; there are … Did you mean 'forecast'
The number of seeds is 0.
    Study(seeds=0)
    ValueError: seeds must be at least 1, got 0
A run is resumed without its folder.
    Study(resume=True)
    ValueError: resume needs out, the folder of the run to continue
A number is out of its range.
    within(0, 1, ends="[)")("dropout", 1.0)
    ValueError: dropout must be in [0, 1), got 1.0
A name is misspelled.
    known(["bptt", "rtrl"])("rule", "btpp")
    ValueError: rule must be one of bptt, rtrl; got 'btpp'. Did you mean 'bptt'?
A table is missing.
    read_columns(folder / "data.csv", ["y"])
    ValueError: there is no file runs/data.csv
A table is empty.
    csv("", ["y"])
    ValueError: runs/data.csv is empty: it has no names of columns
A column is misspelled.
    csv("time;load\n1;2\n", ["laod"])
    ValueError: column 'laod' of runs/data.csv is not in it … Did you mean 'load'?
A row of a table is too short.
    csv("x;y\n1;2\n3\n", ["y"])
    ValueError: line 3 of runs/data.csv has 1 fields … leave the field empty
A number of a table is a word.
    csv("x,y\n1,two\n", ["y"])
    ValueError: column 'y' must hold numbers; line 2 … 'two' … Leave the field empty
A number of a table has two meanings.
    csv("y\n1.234\n2.345\n", ["y"])
    ValueError: column 'y' of runs/data.csv is not clear: '1.234' … --decimal
The decimal mark is unknown.
    csv("x,y\n1,2\n", ["y"], decimal=";")
    ValueError: decimal must be '.' or ',', got ';'
The delimiter of a table is too long.
    csv("x,y\n1,2\n", ["y"], delimiter="::")
    ValueError: delimiter must be one character … got '::'
A horizon of a forecast is 0.
    read_series(folder / "data.csv", "y", 0, None)
    ValueError: horizon must be in 1..200, got 0
A recording is another kind of file.
    wav(b"no sound")
    ValueError: runs/sound.wav is no WAV file of PCM or float samples
"""


class Row(NamedTuple):
    """A wrong call: what the user did, the call, and the error that it must raise."""

    area: str
    did: str
    call: str
    error: str
    words: tuple[str, ...]
    marks: tuple[str, ...]  # "slow", "network"


def _parsed(text: str) -> list[Row]:
    rows, area = [], ""
    for block in re.split(r"\n(?=\S)", text.strip()):
        did, *lines = block.splitlines()
        if did.startswith("# "):
            area = did.removeprefix("# ")
            continue
        *call, last = [line[4:] for line in lines if line]
        error, _, words = last.partition(": ")
        marks = tuple(re.findall(r"\[(\w+)\]", did))
        did = re.sub(r" \[\w+\]", "", did)
        row = area, did, "\n".join(call), error, tuple(words.split(" … ")), marks
        rows.append(Row(*row))
    return rows


TABLE = _parsed(ROWS)
AREAS = list(dict.fromkeys(row.area for row in TABLE))


def names() -> dict:
    """Return the names that calls use."""
    found = {}
    exec(compile(NAMES + STUDIES, "names of the table", "exec"), found)
    return found


class Refusal(NamedTuple):
    """The error of a call: its class, its message with notes, where it was raised."""

    error: BaseException
    message: str
    file: str


def refusal(row: Row, found: dict) -> Refusal | None:
    """Run a row's call in a new folder; return its error, or None if it is accepted."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        found |= {"folder": pathlib.Path(folder), "stack": stack}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                _run(row.call, found)
        except (Exception, SystemExit) as error:
            notes = getattr(error, "__notes__", [])
            notes = [note for note in notes if "removed its internal" not in note]
            message = " ".join("\n".join([str(error), *notes]).split())
            message = message.replace(folder, "runs")
            place = traceback.extract_tb(error.__traceback__)[-1].filename
            return Refusal(error, message, place)
    return None


def _run(call: str, found: dict) -> None:
    if not call.startswith("$ "):
        eval(compile(call, "call of the table", "eval"), found)
        return
    from experiments.__main__ import main

    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(call.split()[4:])
    if code:
        raise SystemExit(errors.getvalue())


def shown(message: str) -> str:
    """Return a message without addresses, and without what JAX or NumPy say in it."""
    message = re.sub(r"\.*(0x)?[0-9a-f]{8,}>", "…>", message)
    message = re.sub(r"((says|but cannot): ).*?( Sequences are|$)", r"\1…\3", message)
    return re.sub(r"process \d+", "process 4242", message)


def entry(row: Row, message: str) -> str:
    """Return the part of the page about a row."""
    if "network" in row.marks:
        message = "… " + message[message.index(row.words[-1].partition(":")[0]) :]
    said = textwrap.fill(
        f"{row.error}: {shown(message)}", 100, subsequent_indent="  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return f"{row.did}\n\n```text\n{row.call}\n\n{said}\n```\n"


INTRODUCTION = f"""\
# Error messages and what to do

This page lists {len(TABLE)} wrong calls, with the error message of each. A message
names the argument as you typed it, the value that it got, and what to give instead.
Most calls are refused at once, before anything is compiled. To find a message, search
this page for its first words.

The page is written by `python -m tests.bad_inputs`, and the tests run every call.
`UsageError` and `WrongEntries` in a traceback are kinds of `ValueError`. The text … in
a message stands for an address, or for words of JAX.
"""


def page(entries: dict[Row, str]) -> str:
    """Return the page, given the part about each row."""
    parts = [INTRODUCTION, *(f"- [{area}](#{_anchor(area)})\n" for area in AREAS)]
    parts.insert(1, "\n")
    parts.append(f"\nThe calls use these names:\n\n```python\n{NAMES}```\n")
    for area in AREAS:
        parts.append(f"\n## {area}\n")
        parts += [f"\n{entries[row]}" for row in TABLE if row.area == area]
    return "".join(parts)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def main() -> None:
    """Run all calls, and write the page."""
    found, entries = names(), {}
    for row in TABLE:
        refused = refusal(row, found)
        if refused is None:
            sys.exit(f"accepted: {row.did}\n{row.call}")
        entries[row] = entry(row, refused.message)
    PAGE.write_text(page(entries))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
