"""When gradients go wrong: which diagnostic finds what.

Six faults are planted in small programs: a wrong derivative, a NaN, a vanishing
gradient, a cut in the graph, dead units, and an optimizer that divides by 0. For
each, one function of `bpvariants.diagnostics` finds the place.

Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
with the package; nothing is fetched.
"""

# %% [markdown] tags=["generated"]
# # 08 · When gradients go wrong: which diagnostic finds what
#
# [![Open in Colab][badge]][colab]
#
# Six faults are planted in small programs: a wrong derivative, a NaN, a vanishing
# gradient, a cut in the graph, dead units, and an optimizer that divides by 0. For
# each, one function of `bpvariants.diagnostics` finds the place.
#
# Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
# with the package; nothing is fetched.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/08_when_gradients_go_wrong.ipynb

# %% tags=["generated"]
# Install what is missing; packages that are already installed are left as they are.
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

checkouts = [path for path in ("..", ".") if pathlib.Path(path, "bpvariants").is_dir()]
SOURCES = {
    "bpvariants": [*checkouts, "git+https://github.com/bpvariants/bpvariants"][0],
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
}
missing = [url for name, url in SOURCES.items() if not importlib.util.find_spec(name)]
if missing:
    pip = [sys.executable, "-m", "pip", "install", "-q", *missing]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()

import jax

import bpvariants

# The networks compute in this dtype, "float32" or "bfloat16".
DTYPE = os.environ.get("BPVARIANTS_DTYPE", "float32")
print(f"bpvariants {bpvariants.__version__}, jax {jax.__version__}, {DTYPE}")
print("devices:", *jax.devices())

# %% [markdown]
# ## From the symptom to the function
#
# | symptom | function |
# |---|---|
# | a hand-written derivative or a new rule may be wrong | `check_gradients` |
# | NaN in the loss or the gradient of a sequence | `first_nonfinite` |
# | distant inputs have no effect | `gradient_flow`, `jacobian_spectrum` |
# | two gradients should agree, and do not | `compare`, `gradient_quality` |
# | some parameters do not learn | `update_report`, `gradients.backprop` |
# | gradients are finite, but parameters become NaN | `first_nonfinite_update` |
#
# Each result has a method `table()`. The network of this notebook reads a handwritten
# digit row by row, and its loss is that of the last row.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from sklearn.datasets import load_digits

from bpvariants import cells, diagnostics, gradients, training

images, labels = load_digits(return_X_y=True)
xs = jnp.asarray(images[:64].reshape(64, 8, 8).swapaxes(0, 1) / 16, DTYPE)
targets = jnp.tile(jnp.asarray(labels[:64]), (8, 1))  # [T, B]
last = jnp.zeros((8, 64)).at[-1].set(1)  # weights [T, B]: only the last row counts
carry = jnp.zeros((64, 24), DTYPE)
loss = optax.softmax_cross_entropy_with_integer_labels


def init(key, scale=1.0):
    keys = jax.random.split(key, 2)
    cell = cells.tanh.init(keys[0], 8, 24, dtype=DTYPE)
    cell["recurrent"] = scale * cell["recurrent"]
    return {"cell": cell, "readout": jax.random.normal(keys[1], (24, 10), DTYPE) / 5}


def step(params, h, x):
    h, _ = cells.tanh(params["cell"], h, x)
    return h, h @ params["readout"]


params = init(jax.random.key(0))
args = params, carry, xs, targets

# %% [markdown]
# ## A wrong derivative
#
# Somebody wrote the derivative of tanh by hand, as 1 − y instead of 1 − y². The loss is
# right, so nothing else notices. `check_gradients` compares the gradient with
# differences of the loss, for each array of parameters. `error` is the relative
# difference; compare it with `rounding`, the part that rounding alone can explain. The
# readout is right, because its gradient does not pass through tanh.


# %%
@jax.custom_jvp
def my_tanh(s):
    return jnp.tanh(s)


@my_tanh.defjvp
def _(s, ds):
    y = jnp.tanh(s[0])
    return y, (1 - y) * ds[0]


def wrong_step(params, h, x):
    cell = params["cell"]
    h = my_tanh(x @ cell["inputs"] + h @ cell["recurrent"] + cell["bias"])
    return h, h @ params["readout"]


for name, each in {"wrong": wrong_step, "right": step}.items():
    rule, key = gradients.bptt(each, loss), jax.random.key(1)
    check = diagnostics.check_gradients(rule, *args, key=key, weights=last)
    print(name, check.table(), sep="\n")

# %% [markdown]
# ## The first NaN
#
# This network divides each row of pixels by its norm. A sensor has failed, so row 5 of
# digit 3 is empty, and the derivative of the norm at 0 is NaN. The loss is finite,
# because a `where` hides the division by 0; the gradient is not, because NaN · 0 is
# NaN. `first_nonfinite` runs the sequence forwards and backwards, and names the first
# array that is not finite, its time step, and the pass. The rule: clean the *input* of
# the function, not its result.


# %%
def normalised(params, h, x):
    x = x * params["gain"]
    norm = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
    return step(params, h, jnp.where(norm > 0, x / norm, 0))


with_gain = params | {"gain": jnp.ones(8, DTYPE)}
batch = carry, xs.at[5, 3].set(0), targets, last
found = diagnostics.first_nonfinite(
    normalised, loss, with_gain, *batch[:3], weights=last
)
print("loss is finite:", bool(found.value == 0))
print(found.table())

# %% [markdown]
# In a training loop the same report comes with the error. `training.fit` stops at the
# first NaN; with `diagnose=`, its error also says where in the sequence.

# %%
try:
    training.fit(
        gradients.bptt(normalised, loss),
        optax.sgd(0.1),
        with_gain,
        batch,
        steps=3,
        diagnose=training.diagnosis(normalised, loss),
    )
except training.NonFiniteError as error:
    print(error)

# %% [markdown]
# ## Vanishing and exploding
#
# `gradient_flow` measures the norm of ∂ℓ_s/∂h_{s−k}: how strongly the loss of step s
# depends on the state k steps before. The picture shows it for three scales of the
# recurrent matrix, against the lag k, with the fitted decay β^k (dashed). The inputs
# are the same digits, in a row: 64 steps. A line that falls steeply means that no
# gradient method can learn from distant inputs; one that rises means that gradients are
# noise.

# %%
long = xs[:, :8].swapaxes(0, 1).reshape(64, 1, 8)  # eight digits, one after another
h = jnp.zeros((1, 24), DTYPE)


@jax.jit
def flow_and_spectrum(net):
    rest = h, long, jnp.zeros((64, 1), int)
    flow = diagnostics.gradient_flow(step, loss, net, *rest, samples=8)
    return flow, diagnostics.jacobian_spectrum(step, net, h, long, batch_shape=(1,))


figure, panel = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for scale in (0.5, 1.1, 2.5):
    flow, spectrum = flow_and_spectrum(init(jax.random.key(0), scale))
    flow.plot(panel, label=f"scale {scale}: {flow.verdict}")
    print(f"scale {scale}: β = {flow.beta:.2f}; {spectrum.verdict}")
panel.legend()
plt.show()

# %% [markdown]
# ## A cut in the graph
#
# A `stop_gradient` was left in the code after an experiment, on the recurrent path. The
# network still learns something, so the loss does not betray it. `compare` sets the
# gradient beside that of a rule that should agree, array by array. The readout agrees;
# the recurrent matrix, which also needs the path back in time, does not.


# %%
def cut_step(params, h, x):
    return step(params, jax.lax.stop_gradient(h), x)


rules = gradients.bptt(step, loss), gradients.bptt(cut_step, loss)
print(diagnostics.compare(*rules, *args, weights=last).table())

# %% [markdown]
# ## Parameters that do not learn
#
# Here the hidden layer has rectified units, and a bias of −3 that a bad initialisation
# gave to half of them. `backprop` shows each layer of the chain rule; its column `dead`
# is the share of units whose slope is 0 for all examples. `update_report` shows the
# same from outside, for any optimizer: elements of an update that are exactly 0, and
# the size of the update relative to the parameters.

# %%
dense = lambda w, y: y @ w["w"] + w["b"]
layers = [(dense, jax.nn.relu), (dense, lambda s: s)]
draw = lambda key, m, n: jax.random.normal(jax.random.key(key), (m, n), DTYPE) / m**0.5
bias = jnp.where(jnp.arange(32) < 16, -3.0, 0.0)
net = ({"w": draw(0, 64, 32), "b": bias}, {"w": draw(1, 32, 10), "b": jnp.zeros(10)})
x, label = images[:64] / 16, labels[:64]

(value, info), grads = gradients.backprop(layers, loss)(net, x, label)
print(info.table())
sgd = optax.sgd(0.1)
change, _ = sgd.update(grads, sgd.init(net))
print(diagnostics.update_report(change, net).table())

# %% [markdown]
# ## The optimizer's fault
#
# All gradients are finite, yet the parameters become NaN. RMSprop divides by the root
# of a running mean of g². With `eps=0` and a gradient that is 0, as those of dead
# units, it divides 0 by 0. `first_nonfinite_update` replays the optimizer on recorded
# gradients, and names the first array that is not finite.

# %%
recorded = jax.tree.map(lambda g: jnp.stack([g] * 3), grads)
rmsprop = optax.rmsprop(0.01, eps=0.0)
found = diagnostics.first_nonfinite_update(rmsprop, net, rmsprop.init(net), recorded)
print(found.table())

# %% [markdown]
# ## What this does not show
#
# - The faults were planted, and each came alone. Real ones come together: begin with
#   NaN, then check the derivative, then look at sizes.
# - `check_gradients` in float32 finds errors above about 1 %. Switch on float64
#   (`jax_enable_x64`) to find smaller ones.
# - A right gradient of the wrong loss passes every check.
# - Cost: `gradient_flow` and `jacobian_spectrum` take many passes; use a few examples.

# %% [markdown]
# ## Exercises
#
# **1.** Mend `normalised`, and show that `first_nonfinite` finds nothing.
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(params, h, x):
#     x = x * params["gain"]
#     square = jnp.sum(x**2, axis=-1, keepdims=True)
#     safe = jnp.where(square > 0, square, 1)  # the input of the root, not its result
#     return step(params, h, x / jnp.sqrt(safe))
#
# found = diagnostics.first_nonfinite(mended, loss, with_gain, *batch[:3], weights=last)
# print(found.first)  # None
# ```
# </details>
#
# **2.** A colleague's loss sums over the batch, yours takes the mean. Which column of
# `compare` tells this apart from a wrong gradient?
#
# <details><summary>Solution</summary>
#
# ```python
# mean = gradients.bptt(step, loss)
#
# def total(*args, **options):
#     (value, carry), grads = mean(*args, **options)
#     return (64 * value, carry), jax.tree.map(lambda g: 64 * g, grads)
#
# print(diagnostics.compare(mean, total, *args, weights=last).table())
# ```
#
# The cosine is 1 for every array, and the norm ratio is 64: only the scale differs.
# </details>
