"""Rprop: the sign of the gradient, and a step size for each weight.

The family of resilient backpropagation as published, where it shines (full batches,
hardly any tuning), and why it fails on mini-batches.

Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
with the package; nothing is fetched.
"""

# %% [markdown] tags=["generated"]
# # 07 · Rprop: the sign of the gradient, and a step size for each weight
#
# [![Open in Colab][badge]][colab]
#
# The family of resilient backpropagation as published, where it shines (full batches,
# hardly any tuning), and why it fails on mini-batches.
#
# Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
# with the package; nothing is fetched.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/07_rprop.ipynb

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
# ## The rule, on six gradients
#
# Rprop looks at the sign of each weight's gradient g, and keeps a step size Δ for each
# weight. If the sign is that of the step before, Δ grows by the factor 1.2. If it has
# changed, a minimum was passed, and Δ shrinks by 0.5. The weight moves by −sign(g) Δ.
# At a sign change, the variants go back (`rprop_plus`), go on with the new sign
# (`rprop_minus`), or stay for a step (`rprop`, which is iRprop⁻).
#
# The table shows how a weight moves whose gradients are 1, 1, 1, −1, 1, 1, with Δ = 0.1
# at first. The tutorial "4 Types of Backpropagation" prints Δw(t) = −sign(g(t))
# Δw(t−1). Taken literally, it turns round at each step. Up to version 0.2.8,
# `optax.rprop` applies each step one iteration too late.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from bpvariants import updates


def trace(optimizer, grads, **extra):
    state, moves = optimizer.init(jnp.array(0.0)), []
    for g in grads:
        move, state = optimizer.update(jnp.array(g), state, jnp.array(0.0), **extra)
        moves.append(float(move))
    return moves


family = ("rprop", "rprop_plus", "rprop_minus", "half_back", "manhattan")
grads = [1.0, 1.0, 1.0, -1.0, 1.0, 1.0]
moves = {name: trace(getattr(updates, name)(0.1), grads) for name in family}
d = 0.1
moves["the tutorial's"] = [d := -np.sign(g) * d for g in grads]
moves[f"optax {optax.__version__}"] = trace(optax.rprop(0.1), grads)
for name, each in moves.items():
    print(f"{name:15}", *(f"{move + 0.0:7.3f}" for move in each))

# %% [markdown]
# ## Only signs count
#
# A ravine: E = ½ (x² + 100 y²). Gradient descent must take small steps because of y,
# and is slow in x. Rprop gives each weight its own step size (left, 40 steps). But if
# the ravine is turned by 45° (right), both signs depend on both weights, and it zigzags
# too.

# %%
turn = np.array([[1, -1], [1, 1]]) / np.sqrt(2)


def descend(optimizer, H, steps=40):
    w = jnp.array([-1.8, 1.0])

    def one_step(carry, _):
        w, state = carry
        move, state = optimizer.update(H @ w, state, w)
        return (w + move, state), w

    return jax.lax.scan(one_step, (w, optimizer.init(w)), length=steps)[1]


both = {"gradient descent": optax.sgd(0.015), "rprop": updates.rprop(0.1)}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for panel, R in zip(panels, (np.eye(2), turn), strict=True):
    H = jnp.asarray(R @ np.diag([1.0, 100.0]) @ R.T)
    grid = np.stack(np.meshgrid(np.linspace(-2.2, 1.2, 80), np.linspace(-1.5, 1.5, 80)))
    level = 0.5 * np.einsum("iab,ij,jab->ab", grid, np.asarray(H), grid)
    panel.contour(*grid, np.log10(level + 1e-3), 12, cmap="Greys", linewidths=0.6)
    for name, optimizer in both.items():
        path = np.asarray(descend(optimizer, H))
        panel.plot(*path.T, ".-", lw=1, ms=4, label=name)
    panel.set(xlabel="weight 1", ylabel="weight 2", aspect="equal")
panels[0].legend()
plt.show()

# %% [markdown]
# ## Full batches: hardly any tuning
#
# A network with 32 hidden units classifies 512 digits; each step uses all of them. The
# left picture shows the loss, with a little weight decay, after 60 steps against the
# learning rate, or Rprop's first step size. Lower is better. The right picture shows
# the family.
#
# The animation shows 40 steps of three updates on the same loss.
#
# ![Steps of SGD, Adam and Rprop](../docs/images/animations/rprop.gif)

# %%
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, DTYPE), jnp.asarray(labels)
layers = [
    jax.random.normal(jax.random.key(0), s, DTYPE) / 6 for s in ((64, 32), (32, 10))
]
weights, as_layers = ravel_pytree(layers)


def loss(weights, x, label):
    hidden, readout = as_layers(weights)
    logits = jnp.tanh(x @ hidden) @ readout
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return losses.mean() + 1e-4 * jnp.sum(weights**2)


def losses(optimizer, steps=60):
    def one_step(carry, _):
        weights, state = carry
        value, grads = jax.value_and_grad(loss)(weights, images[:512], labels[:512])
        move, state = optimizer.update(grads, state, weights, value=value)
        return (optax.apply_updates(weights, move), state), value

    start = weights, optimizer.init(weights)
    return jax.lax.scan(one_step, start, length=steps)[1]


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
rates = np.logspace(-4, 0.5, 10)
makers = {"rprop": updates.rprop, "adam": optax.adam, "sgd": optax.sgd}
extra = optax.with_extra_args_support
for name, make in makers.items():
    of_rate = jax.jit(jax.vmap(lambda rate, make=make: losses(extra(make(rate)))[-1]))
    left.loglog(rates, of_rate(jnp.asarray(rates)), "o-", label=name)
left.set(xlabel="learning rate, or first Δ", ylabel="loss (nats)")
left.legend()
for name in ("rprop", "irprop_plus", "rprop_plus", "rprop_minus", "manhattan"):
    optimizer = extra(getattr(updates, name)(0.01))
    line = "--" if name == "irprop_plus" else "-"  # nearly the same as rprop here
    right.semilogy(jax.jit(losses, static_argnums=0)(optimizer), line, label=name)
right.set(xlabel="step", ylabel="loss (nats)")
right.legend()
plt.show()

# %% [markdown]
# ## Why not mini-batches
#
# On mini-batches the sign of g is random. Let p be the probability that it is positive.
# The picture shows the mean factor of Δ in a step against p, simulated with 2,000
# weights for each p. Δ grows only where the sign is almost certain; at p = ½ it shrinks
# to nothing. For `rprop_minus`, a sign change has the probability ρ = 2 p (1 − p), so
# the factor is 1.2^(1−ρ) · 0.5^ρ (dashed).

# %%
ps = np.linspace(0.5, 1, 21)
drawn = jax.random.uniform(jax.random.key(1), (60, len(ps), 2000)) < ps[:, None]
signs = jnp.where(drawn, 1.0, -1.0)


def factor(make):
    optimizer = make(1.0, min_step_size=1e-30, max_step_size=1e30)
    state = optimizer.init(signs[0])
    update = lambda state, g: (optimizer.update(g, state)[1], None)
    end = jax.jit(lambda: jax.lax.scan(update, state, signs)[0])()
    step_sizes = optax.tree.get(end, "step_sizes")
    return jnp.exp(jnp.mean(jnp.log(step_sizes), axis=-1) / (len(signs) - 1))


figure, panel = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for name in ("rprop", "rprop_minus"):
    found = np.asarray(factor(getattr(updates, name)))
    panel.plot(ps, found, label=name)
    print(f"{name}: Δ grows only if p is above {ps[np.argmax(found > 1)]:.2f}")
flip = 2 * ps * (1 - ps)
panel.plot(ps, 1.2 ** (1 - flip) * 0.5**flip, "k--", lw=0.9)
panel.axhline(1, color="black", lw=0.8)
panel.set(xlabel="p, probability of g > 0", ylabel="mean factor of Δ in a step")
panel.legend()
plt.show()

# %% [markdown]
# ## On real mini-batches, and what to do instead
#
# Now 28 mini-batches of 64 digits make an epoch. The left picture shows the loss on all
# digits, the right one the median step size. Rprop on mini-batches loses its step
# sizes: the report shows many at their lower limit. Three ways out: add up the
# gradients of an epoch by `optax.MultiSteps` (then it *is* full batch),
# `probabilistic_rprop`, or an optimizer made for noise, such as Adam.

# %%
BATCHES, EPOCHS = 28, 40
shuffle = lambda key: jax.random.permutation(key, 64 * BATCHES).reshape(-1, 64)
orders = jax.vmap(shuffle)(
    jax.random.split(jax.random.key(2), EPOCHS)
)  # [epoch, batch, 64]


def train(optimizer):
    def one_batch(carry, chosen):
        weights, state = carry
        grads = jax.grad(loss)(weights, images[chosen], labels[chosen])
        move, state = optimizer.update(grads, state, weights)
        return (optax.apply_updates(weights, move), state), None

    def one_epoch(carry, order):
        (weights, state), _ = jax.lax.scan(one_batch, carry, order)
        median = jnp.median(optax.tree.get(state, "step_sizes", jnp.nan))
        return (weights, state), (loss(weights, images, labels), median)

    return jax.lax.scan(one_epoch, (weights, optimizer.init(weights)), orders)


methods = {
    "rprop": updates.rprop(0.01),
    "MultiSteps": optax.MultiSteps(updates.rprop(0.01), BATCHES),
    "probabilistic": updates.probabilistic_rprop(0.01, move="expected"),
    "adam": optax.adam(0.01),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, optimizer in methods.items():
    (_, state), (values, medians) = jax.jit(train, static_argnums=0)(optimizer)
    left.semilogy(1 + np.arange(EPOCHS), values, label=name)
    right.semilogy(1 + np.arange(EPOCHS), medians, label=name)
    if name in ("rprop", "MultiSteps"):
        print(f"{name}:\n{updates.rprop_report(state).table()}")
left.set(xlabel="epoch", ylabel="loss on all digits (nats)")
right.set(xlabel="epoch", ylabel="median step size Δ")
left.legend()
plt.show()

# %% [markdown]
# ## What this does not show
#
# - Generalisation: all losses are those of the training digits.
# - Large data sets. A full batch then costs a whole epoch for one step.
# - Fair tuning: Adam and SGD have no schedules and no momentum.

# %% [markdown]
# ## Exercises
#
# **1.** `irprop_plus` also gets the loss, as `value=`. Which variants do its moves
# equal if the loss is constant, and if it is NaN?
#
# <details><summary>Solution</summary>
#
# ```python
# for value in (1.0, jnp.nan):
#     print(trace(updates.irprop_plus(0.1), grads, value=value))
# ```
#
# `rprop`; and `rprop_plus`, because NaN counts as a rise, after which it goes back.
# </details>
#
# **2.** At which ρ is the mean factor of Δ equal to 1, for `eta_minus` 0.5 and 0.9?
#
# <details><summary>Solution</summary>
#
# ```python
# for eta in (0.5, 0.9):
#     print(eta, np.log(1.2) / (np.log(1.2) - np.log(eta)))
# ```
#
# This follows from 1.2^(1−ρ) · η^ρ = 1. With 0.9, ρ is above ½: Δ grows even in noise.
# </details>
