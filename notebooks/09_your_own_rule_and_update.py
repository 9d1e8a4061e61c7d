"""Your own rule and your own update, in twenty lines each.

A gradient rule, the same rule online, and an update, each written from its equation.
Each is checked against the library, and then used like a part of the library.

Time: about one minute on two CPU cores. Data: handwritten digits, which come with
scikit-learn; nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 09 · Your own rule and your own update, in twenty lines each
#
# [![Open in Colab][badge]][colab]
#
# A gradient rule, the same rule online, and an update, each written from its equation.
# Each is checked against the library, and then used like a part of the library.
#
# Time: about one minute on two CPU cores. Data: handwritten digits, which come with
# scikit-learn; nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/09_your_own_rule_and_update.ipynb

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
# ## The three functions
#
# Everything in bpvariants is built from a step, a loss, and a gradient rule:
#
# | function | meaning |
# |---|---|
# | `step(params, carry, x) -> (carry, y)` | one time step of a network |
# | `loss(y, target) -> losses` | one loss for each example |
# | `rule(params, carry, xs, targets, …) -> ((value, carry), grads)` | a gradient |
#
# The library has no base classes and no registry. A function with these arguments and
# results is a rule, and any optax transformation is an update.
#
# The network of this notebook reads a handwritten digit row by row, and names the digit
# after the last row. The arrays are time-major: axis 0 is the row t, axis 1 the digit.

# %%
from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from bpvariants import diagnostics, gradients, training, updates
from bpvariants.types import OnlineRule

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.8)})
images, labels = load_digits(return_X_y=True)
rows = jnp.asarray(images[:500] / 16, DTYPE).reshape(500, 8, 8).swapaxes(0, 1)
labels = jnp.asarray(labels[:500])
targets = jnp.tile(labels, (8, 1))
weights = jnp.zeros((8, 500)).at[-1].set(1)  # only the last loss counts
data = jnp.zeros((500, 16), DTYPE), rows, targets, weights
loss = optax.softmax_cross_entropy_with_integer_labels


def step(params, h, row):
    h = jnp.tanh(h @ params["recurrent"] + row @ params["in"])
    return h, h @ params["out"]


def draw(key):
    keys = jax.random.split(key, 3)
    shapes = {"in": (8, 16), "recurrent": (16, 16), "out": (16, 10)}
    return {
        name: jax.random.normal(key, shape, DTYPE) / shape[0] ** 0.5
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


params = draw(jax.random.key(1))
print("rows", rows.shape, "  labels", labels.shape)

# %% [markdown]
# ## A gradient rule: discounted error signals
#
# Let h(t) be the state after row t, ℓ(t) the loss of row t, and δ(t) the error signal
# that arrives at h(t). Backpropagation through time passes the error signal back
# unchanged. Our rule multiplies it by a discount γ at each step:
#
# $$\delta_t = \frac{\partial \ell_t}{\partial h_t} +
# \gamma\,\delta_{t+1}\frac{\partial h_{t+1}}{\partial h_t},
# \qquad
# \frac{dL}{d\theta} \approx \sum_t \delta_t\frac{\partial h_t}{\partial\theta}$$
#
# With γ = 1, the rule is exact. With γ = 0, no error signal travels back in time.
# MuZero (Schrittwieser et al., 2020) uses γ = 1/2 in the model that it unrolls.
#
# The rule runs forwards once and stores the states. Then it runs backwards. `pull` is
# the chain rule for one step: it returns δ · ∂h/∂θ, and the error signal for the state
# before.


# %%
def discounted_bptt(step, loss, discount):
    """Return a gradient rule with discounted error signals."""

    def rule(params, carry, xs, targets, weights):
        def advance(params, h, x, target, share):
            h, y = step(params, h, x)
            return h, jnp.sum(share * loss(y, target))

        def forward(h, inputs):
            new, value = advance(params, h, *inputs)
            return new, (h, value)

        def backward(state, saved):
            (delta, total), (h, inputs) = state, saved
            _, pull = jax.vjp(lambda *both: advance(*both, *inputs), params, h)
            grads, delta = pull((delta, jnp.ones(())))
            return (discount * delta, jax.tree.map(jnp.add, total, grads)), None

        inputs = xs, targets, weights / weights.sum()
        last, (states, values) = jax.lax.scan(forward, carry, inputs)
        zeros = jax.tree.map(jnp.zeros_like, (last, params))
        (_, grads), _ = jax.lax.scan(backward, zeros, (states, inputs), reverse=True)
        return (values.sum(), last), grads

    return rule


# %% [markdown]
# ## Is it right?
#
# An approximation is often exact at some setting. Compare it there with a rule that you
# trust. `diagnostics.compare` does this for each array of params. The column `error` is
# the norm of the difference, relative to the norm of the first gradient. In float32,
# an error of about 1e-7 is rounding.

# %%
exact = gradients.bptt(step, loss)
no_lookback = gradients.truncated_bptt(step, loss, every=1, lookback=1)
for discount, trusted in ((1.0, exact), (0.0, no_lookback)):
    comparison = diagnostics.compare(
        trusted, discounted_bptt(step, loss, discount), params, *data
    )
    print(f"γ = {discount:.0f}\n{comparison.table()}\n")

# %% [markdown]
# ## The same rule in five lines
#
# Many rules are `bptt` of another step. Here, the new step has the value of the old
# one, but its derivative in h is multiplied by γ. The rule takes a few lines, and it
# inherits the arguments `mask`, `weights` and `reset` of `bptt`. Start with this form,
# if it exists. The printed error compares both versions.


# %%
def discounted_bptt_again(step, loss, discount):
    def scaled(params, h, x):
        past = jax.lax.stop_gradient(h)
        return step(params, past + discount * (h - past), x)

    return gradients.bptt(scaled, loss)


comparison = diagnostics.compare(
    discounted_bptt(step, loss, 0.7),
    discounted_bptt_again(step, loss, 0.7),
    params,
    *data,
)
print(f"γ = 0.7: relative error {comparison.total.relative_error:.0e}")

# %% [markdown]
# ## What does it cost?
#
# Both versions are functions of γ, so `vmap` computes a curve in one call. The left
# picture shows the cosine of the angle between the rule's gradient and the exact one.
# The readout `out` gets its exact gradient for any γ, because its error signal does
# not travel in time. The right picture shows training losses, each the mean of four
# random initialisations.


# %%
@jax.jit
@jax.vmap
def agreement(discount):
    rule = discounted_bptt_again(step, loss, discount)
    return diagnostics.compare(exact, rule, params, *data).leaves


discounts = jnp.linspace(0, 1, 21, dtype=DTYPE)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8))
for name, measured in agreement(discounts).items():
    left.plot(discounts, measured.cosine, label=name)
left.set(xlabel="discount γ", ylabel="cosine with the exact gradient")
left.legend(fontsize="small")

several = jax.vmap(draw)(jax.random.split(jax.random.key(2), 4))
curves = {}  # mean losses
for discount in (0.0, 0.5, 0.8, 1.0):
    rule = discounted_bptt(step, loss, discount) if discount < 1 else exact
    result = training.fit(rule, optax.adam(0.01), several, data, steps=200, runs=4)
    curves[discount] = result.values.mean(0)
    right.semilogy(curves[discount], label=f"γ = {discount}")
right.set(xlabel="update", ylabel="training loss (nats)")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## The same rule online
#
# An online rule goes forwards in time, and has a gradient at every step. It is a pair
# of functions, `init` and `update`, like an optax update. Real-time recurrent learning
# stores the influence M(t) = dh(t)/dθ of all params on the state. With the discount,
# its equation is
#
# $$M_t = \gamma\,\frac{\partial h_t}{\partial h_{t-1}} M_{t-1} +
# \frac{\partial h_t}{\partial\theta},
# \qquad
# \frac{d\ell_t}{d\theta} \approx \gamma\,\frac{\partial \ell_t}{\partial h_{t-1}}
# M_{t-1} + \frac{\partial \ell_t}{\partial\theta}$$
#
# The code treats params as one vector, and each example by itself. All online rules
# have the same arguments; ours ignores `mask`, `reset` and `key`.


# %%
class State(NamedTuple):
    """State of the online rule."""

    carry: Any  # every online rule has this field
    influence: jax.Array  # [B, n, p]: n state elements, p params


def discounted_rtrl(step, loss, discount):
    def init(params, carry, inputs, *, initial=None):
        return State(carry, jnp.zeros((*carry.shape, ravel_pytree(params)[0].size)))

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        flat, unravel = ravel_pytree(params)

        def advance(flat, h, x, target):
            h, y = step(unravel(flat), h, x)
            return h, loss(y, target)

        def one(h, influence, x, target):
            new, value = advance(flat, h, x, target)
            of_h, of_loss = jax.jacrev(advance, (0, 1))(flat, h, x, target)
            past = discount * influence
            return value, of_loss[0] + of_loss[1] @ past, of_h[0] + of_h[1] @ past, new

        value, grads, influence, h = jax.vmap(one)(*state, x, target)
        weight = jnp.ones_like(value) if weight is None else weight
        share = weight / jnp.maximum(weight.sum(), 1e-9)
        return share @ value, unravel(share @ grads), State(h, influence)

    return OnlineRule(init, update)


# %% [markdown]
# `gradients.over_sequence` turns every online rule into a gradient rule. The same
# approximate gradient then comes from two directions: backwards by error signals,
# forwards by influences. That both agree is a strong test of both.

# %%
for discount in (0.0, 0.7, 1.0):
    ours = gradients.over_sequence(discounted_rtrl(step, loss, discount))
    backwards = discounted_bptt(step, loss, discount)
    error = diagnostics.compare(backwards, ours, params, *data).total.relative_error
    print(f"γ = {discount}: relative error {error:.0e}")

# %% [markdown]
# ## An update
#
# An update gets gradients and returns changes of the params. It is a pair of functions
# in an `optax.GradientTransformation`. Our example is Lion (Chen et al., 2023). Let g
# be the gradient, m an average of past gradients, η the learning rate, and β₁ and β₂
# two decay rates:
#
# $$\Delta w = -\eta\,\operatorname{sign}(\beta_1 m + (1-\beta_1)\,g),
# \qquad m \leftarrow \beta_2 m + (1-\beta_2)\,g$$


# %%
def lion(rate, beta_1=0.9, beta_2=0.99):
    """Return an update: steps of equal size, by the sign of a mean gradient."""

    def mix(beta, mean, grads):
        return jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, mean, grads)

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, mean, params=None):
        signs = jax.tree.map(jnp.sign, mix(beta_1, mean, grads))
        change = jax.tree.map(lambda sign: -rate * sign, signs)
        return change, mix(beta_2, mean, grads)

    return optax.GradientTransformation(init, update)


# %% [markdown]
# Two checks find most mistakes. The first is a trace by hand. For the gradients 1, −1,
# 1, −10, the signs of β₁m + (1−β₁)g are +, −, +, −. The second is a trusted
# implementation: here, optax has one. The printed difference is between the losses of
# two trainings.

# %%
update, w = lion(0.1), jnp.zeros(())
state, trace = update.init(w), []
for g in (1.0, -1.0, 1.0, -10.0):
    change, state = update.update(jnp.float32(g), state, w)
    trace.append(f"{change:+.1f}")
print("changes:", *trace)

ours = training.fit(exact, lion(0.003), params, data, steps=50)
optaxs = training.fit(
    exact, optax.lion(0.003, weight_decay=0.0), params, data, steps=50
)
print(f"difference of losses: at most {abs(ours.values - optaxs.values).max():.0e}")

# %% [markdown]
# ## Your parts beside the library's
#
# Every rule works with every update, whoever wrote them. Ours also work inside
# `optax.chain`, under `vmap` in `training.fit(runs=…)`, and in checkpoints. The picture
# shows two rules, each with three updates. Each line is the mean of four random
# initialisations.

# %%
choices = {
    "our Lion": optax.chain(optax.clip_by_global_norm(1.0), lion(0.003)),
    "Rprop": updates.rprop(0.01),
}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
for ax, discount in zip(axes, (1.0, 0.8), strict=True):
    rule = discounted_bptt(step, loss, discount) if discount < 1 else exact
    for name, update in choices.items():
        result = training.fit(rule, update, several, data, steps=200, runs=4)
        ax.semilogy(result.values.mean(0), label=name)
    ax.semilogy(curves[discount], label="Adam, as above")
    title = "our rule, γ = 0.8" if discount < 1 else "bptt"
    ax.set(title=title, xlabel="update", ylim=(1e-6, 10))
axes[0].set_ylabel("training loss (nats)")
axes[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What this does not show
#
# - Padding and resets: our long versions ignore `mask` and `reset`. The five-line
#   version has both.
# - Which γ is best: the curves are training losses on one task, and learning rates
#   were not tuned.
# - Speed: our online rule stores all of M. `gradients.rtrl` stores only the entries
#   that can be nonzero.
# - Derivatives that do not exist: check your own rules with
#   `diagnostics.check_gradients` if they claim to be exact.
#
# ## Exercises
#
# **1.** Let γ differ between units: 1 for the first eight, 0 for the others. Which
# version of the rule must change?
#
# <details><summary>Solution</summary>
#
# Neither: γ may be an array with one element per unit, because h and δ end in that
# axis.
#
# ```python
# discount = jnp.repeat(jnp.array([1.0, 0.0]), 8)
# long = discounted_bptt(step, loss, discount)
# short = discounted_bptt_again(step, loss, discount)
# print(diagnostics.compare(long, short, params, *data).table())
# ```
#
# </details>
#
# **2.** Write `cautious(update)`: it calls another update, and sets each change to zero
# that has the same sign as the gradient (Liang et al., 2024).
#
# <details><summary>Solution</summary>
#
# ```python
# def cautious(inner):
#     def update(grads, state, params=None):
#         change, state = inner.update(grads, state, params)
#         keep = lambda c, g: jnp.where(c * g < 0, c, 0)
#         return jax.tree.map(keep, change, grads), state
#
#     return optax.GradientTransformation(inner.init, update)
#
#
# for each in (optax.adam(0.01), cautious(optax.adam(0.01))):
#     print(training.fit(exact, each, params, data, steps=200).values[-1])
# ```
#
# The paper also scales the changes that remain, which this version leaves out.
# </details>
