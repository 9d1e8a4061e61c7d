"""How far back: truncation, memory, vanishing and exploding error signals.

Backpropagation through time sends error signals back along a sequence. The pictures
show how far the signals reach, what truncation cuts off, and what it costs in memory.

Time: about one and a half minutes on two CPU cores. Data: handwritten digits, which
come with scikit-learn; nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 04 · How far back: truncation, memory, vanishing and exploding error signals
#
# [![Open in Colab][badge]][colab]
#
# Backpropagation through time sends error signals back along a sequence. The pictures
# show how far the signals reach, what truncation cuts off, and what it costs in memory.
#
# Time: about one and a half minutes on two CPU cores. Data: handwritten digits, which
# come with scikit-learn; nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/04_how_far_back.ipynb

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
# ## A product of many Jacobians
#
# A network reads an image pixel by pixel: T = 64 time steps. Its state is h(t) = tanh(γ
# Q h(t−1) + u x(t)), with a random orthogonal matrix Q, input weights u, and a gain γ.
# After the last pixel, it names the digit. The error signal at lag k, which is ∂ℓ/∂h at
# k steps before the loss ℓ, contains the product of k Jacobians ∂h(t)/∂h(t−1). The
# product shrinks or grows roughly like βᵏ with a decay β per step.
#
# `diagnostics.gradient_flow` measures this. Each curve of the picture belongs to one
# gain γ, and the dashed line is the fitted βᵏ. Note the logarithmic axis.

# %%
import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.colors import LogNorm
from sklearn.datasets import load_digits

from bpvariants import diagnostics, gradients, training

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.8)})
units, examples, length = 24, 100, 64
images, labels = load_digits(return_X_y=True)
xs = jnp.asarray(images[:examples] / 16, DTYPE).T[..., None]  # [T, examples, 1]
targets = jnp.tile(jnp.asarray(labels[:examples]), (length, 1))
last_only = jnp.zeros(targets.shape).at[-1].set(1)
start = jnp.zeros((examples, units), DTYPE)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def step(params, h, x):
    h = jnp.tanh(h @ params["recurrent"] + x @ params["in"])
    return h, h @ params["out"]


def draw(gain, inputs=1, outputs=10):
    keys = jax.random.split(jax.random.key(0), 3)
    orthogonal = jax.random.orthogonal(keys[0], units)
    return {
        "recurrent": (gain * orthogonal).astype(DTYPE),
        "in": 0.3 * jax.random.normal(keys[1], (inputs, units), DTYPE),
        "out": jax.random.normal(keys[2], (units, outputs), DTYPE) / units**0.5,
    }


@jax.jit
def flow_of(params):
    return diagnostics.gradient_flow(
        step, cross_entropy, params, start, xs, targets, weights=last_only
    )


fig, ax = plt.subplots(figsize=(6, 3.2))
for gain in (0.7, 1.0, 1.4, 2.0):
    flow = flow_of(draw(gain))
    flow.plot(ax, label=f"γ = {gain}: {flow.verdict}")
    print(f"γ = {gain}: errors change by β = {flow.beta:.3f} per step: {flow.verdict}")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What truncation cuts off
#
# Let now the loss of every step count. Truncated backpropagation BPTT(h; h′) runs a
# backward pass every h′ steps (`every`), and each pass goes back h steps (`lookback`).
# In the pictures, the colour at row s and column t shows how much the loss of step s
# depends on the state of step t, on a logarithmic scale. Grey entries are cut off. With
# h = h′, as in most frameworks, the first loss of each window reaches back only one
# step. With h = 2h′, each loss reaches back at least h′ + 1 steps.
#
# The animation shows the error of one loss going back, with and without truncation.
#
# ![Errors go back in time, by lag](../docs/images/animations/errors.gif)

# %%
every_loss = diagnostics.gradient_flow(
    step, cross_entropy, draw(1.0), start, xs, targets, samples=length
)
lags = np.arange(length)[:, None] - np.arange(length)  # s − t
norms = np.take_along_axis(np.array(every_loss.norms), np.maximum(lags, 0), axis=1)
norms = np.where(lags >= 0, norms, np.nan)


def draw_kept(lookback, every, ax=None):
    """Draw the dependence of each loss on each state, without what is cut off."""
    ends = np.minimum((np.arange(length) // every + 1) * every, length)[:, None]
    kept = np.arange(length) >= ends - lookback
    ax = plt.figure(figsize=(4, 3.4)).subplots() if ax is None else ax
    ax.set_facecolor("lightgrey")
    scale = LogNorm(np.nanmin(norms), np.nanmax(norms))
    shown = ax.pcolormesh(np.where(kept, norms, np.nan), norm=scale, cmap="viridis")
    ax.invert_yaxis()
    ax.set(xlabel="state of step t", title=f"h = {lookback}, h′ = {every}")
    return shown


fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
for ax, (lookback, every) in zip(axes, ((64, 64), (16, 8), (8, 8)), strict=True):
    shown = draw_kept(lookback, every, ax)
axes[0].set(ylabel="loss of step s", title="BPTT: all of it")
fig.colorbar(shown, ax=axes, label=r"$\Vert \partial\ell_s / \partial h_t \Vert$")
plt.show()

# %% [markdown]
# In a live notebook with ipywidgets, the next cell has sliders for h and h′.

# %%
try:
    from ipywidgets import interact
except ImportError:
    interact = None
if interact and "ipykernel" in sys.modules:
    interact(lambda h=16, every=8: draw_kept(h, every), h=(8, 64, 8), every=(1, 8))

# %% [markdown]
# ## How wrong is the truncated gradient?
#
# The picture shows the relative error ‖ĝ − g‖ / ‖g‖ of the truncated gradient ĝ,
# against the lookback h, with a backward pass every h′ = 4 steps. Where error signals
# vanish, a short lookback is enough. Where they do not vanish, truncation leaves an
# error until h = T.

# %%
lookbacks = (4, 16, 32, 64)
truncated = {
    h: jax.jit(gradients.truncated_bptt(step, cross_entropy, every=4, lookback=h))
    for h in lookbacks
}
exact_rule = jax.jit(gradients.bptt(step, cross_entropy))
fig, ax = plt.subplots()
for gain in (0.7, 1.0, 1.4):
    params, errors = draw(gain), []
    (_, _), exact = exact_rule(params, start, xs, targets)
    for rule in truncated.values():
        (_, _), grads = rule(params, start, xs, targets)
        gap = optax.tree.norm(optax.tree.sub(grads, exact))
        errors.append(float(gap / optax.tree.norm(exact)))
    ax.loglog(lookbacks, errors, marker="o", label=f"γ = {gain}")
    print(f"γ = {gain}:", *(f"{error:.1e}" for error in errors))
ax.set(xlabel="lookback h (steps)", ylabel="relative error", xticks=lookbacks)
ax.set_xticklabels(lookbacks)
ax.minorticks_off()
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## A biased gradient may still learn
#
# A bit, 0 or 1, is shown at the first step. Noise follows. After step 20, the network
# must say the bit. Even with a lookback of 2, this network learns the task, only later.
# The forward pass is never truncated: it carries a trace of the bit to the end, and the
# network learns to read and to strengthen this trace. So truncation does not always
# prevent long memories; measure it for your task. The dashed line is the loss of
# guessing, ln 2.

# %%
steps, batch = 20, 512
keys = jax.random.split(jax.random.key(1), 2)
bits = jax.random.bernoulli(keys[0], shape=(batch,))
noise = 0.3 * jax.random.normal(keys[1], (steps, batch, 2), DTYPE)
signal = noise.at[0, :, 0].set(2.0 * bits - 1).at[1:, :, 0].set(0)  # [T, batch, 2]
recall = (
    jnp.zeros((batch, units), DTYPE),
    signal,
    jnp.tile(jnp.int32(bits), (steps, 1)),
    jnp.zeros((steps, batch)).at[-1].set(1),
)
fig, ax = plt.subplots()
for lookback in (2, 5, 20):
    rule = gradients.truncated_bptt(step, cross_entropy, every=1, lookback=lookback)
    result = training.fit(rule, optax.adam(0.01), draw(0.8, 2, 2), recall, steps=30)
    ax.plot(result.values, label=f"lookback {lookback}")
ax.axhline(np.log(2), color="grey", linewidth=0.8, linestyle="--")
ax.set(xlabel="update", ylabel="loss (nats)", ylim=(0, 0.8))
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Exploding gradients are cliffs of the loss
#
# The next picture changes only the gain γ of the network that reads digits. The upper
# panel shows the loss of the last step, the lower panel the norm of its gradient. Where
# error signals grow, the loss becomes rough, and the gradient gets long. One step along
# such a gradient can undo much learning. `optax.clip_by_global_norm` limits its length.

# %%
rule = gradients.bptt(step, cross_entropy)
few = slice(4)  # four digits


def at(gain):
    """Return the loss and the norm of its gradient."""
    data = xs[:, few], targets[:, few], last_only[:, few]
    (value, _), grads = rule(draw(gain), start[few], *data)
    return value, optax.tree.norm(grads)


gains = jnp.linspace(0.5, 3.0, 400)
values, sizes = jax.jit(jax.vmap(at))(gains)
fig, (above, below) = plt.subplots(2, 1, figsize=(7, 4), sharex=True)
above.plot(gains, values)
above.set(ylabel="loss (nats)")
below.semilogy(gains, sizes)
below.set(xlabel="gain γ", ylabel="norm of\nthe gradient")
plt.show()

# %% [markdown]
# ## Memory
#
# BPTT stores what each step computed until the backward pass needs it, so its memory
# grows with T. Rematerialisation stores less, computes the rest again, and gives the
# same gradient. Truncation needs the memory of `lookback` steps, whatever T is. The
# picture shows the memory that XLA reports for temporary arrays; nothing is run.

# %%
policies = {
    "bptt": gradients.bptt(step, cross_entropy),
    "bptt, remat.every(32)": gradients.bptt(
        step, cross_entropy, remat=gradients.remat.every(32)
    ),
    "bptt, remat.slots(8)": gradients.bptt(
        step, cross_entropy, remat=gradients.remat.slots(8)
    ),
    "truncated, lookback 32": gradients.truncated_bptt(
        step, cross_entropy, every=32, lookback=32
    ),
}
long = (128, 2048)
print(f"{'MiB, for T =':24}", *(f"{T:8}" for T in long))
fig, ax = plt.subplots(figsize=(6, 3.2))
for name, rule in policies.items():
    used = []
    for T in long:
        x = jax.ShapeDtypeStruct((T, examples, 1), DTYPE)
        target = jax.ShapeDtypeStruct((T, examples), jnp.int32)
        report = diagnostics.memory_report(rule, draw(1.0), start, x, target)
        used.append(report.temporaries / 2**20)
    ax.loglog(long, used, marker="o", label=name)
    print(f"{name:24}", *(f"{size:8.2f}" for size in used))
ax.set(xlabel="time steps T", ylabel="temporary memory (MiB)", xticks=long)
ax.set_xticklabels(long)
ax.minorticks_off()
ax.legend(fontsize="x-small")
plt.show()
for name, policy in (("None", None), ("slots(8)", gradients.remat.slots(8))):
    cost = gradients.remat.predicted_cost(2048, policy)
    print(f"remat={name}: {cost.evaluations} evaluations of the step for T = 2048")

# %% [markdown]
# ## What this does not show
#
# - Trained networks: most pictures show random weights, and learning changes the decay.
# - Gated cells, such as GRU and LSTM: see exercise 1.
# - Time: rematerialisation computes steps twice or more often.
# - Rules that need no backward pass at all, such as RTRL: see notebook 05.
#
# ## Exercises
#
# **1.** Measure the decay β of an untrained GRU, `cells.gru`. How does it compare with
# the tanh network at γ = 1?
#
# <details><summary>Solution</summary>
#
# ```python
# from bpvariants import cells
#
# learned = cells.gru.init(jax.random.key(0), 1, units)
# carry = cells.gru.carry(learned, (examples,))
# square = lambda y, target: jnp.mean(y**2, axis=-1)
# args = learned, carry, xs, targets
# flow = diagnostics.gradient_flow(cells.gru, square, *args, weights=last_only)
# print(flow.table())
# ```
#
# </details>
#
# **2.** Let `diagnostics.adaptive_truncation` choose the lookback for γ = 0.7 and an
# estimated bias of at most 10 %.
#
# <details><summary>Solution</summary>
#
# ```python
# found = diagnostics.adaptive_truncation(
#     step, cross_entropy, draw(0.7), start, xs, targets, bias=0.1, tau=5
# )
# print(int(found.lookback), bool(found.certified))
# ```
#
# </details>
