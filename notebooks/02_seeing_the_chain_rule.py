"""Seeing the chain rule.

Backpropagation is the chain rule, applied from the loss backwards. The pictures show
its factors: on curves, on a graph, in a network that reads digits, in deep networks.

Time: about half a minute on two CPU cores. Data: handwritten digits, which come with
scikit-learn; nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 02 · Seeing the chain rule
#
# [![Open in Colab][badge]][colab]
#
# Backpropagation is the chain rule, applied from the loss backwards. The pictures show
# its factors: on curves, on a graph, in a network that reads digits, in deep networks.
#
# Time: about half a minute on two CPU cores. Data: handwritten digits, which come with
# scikit-learn; nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/02_seeing_the_chain_rule.ipynb

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
# ## Slopes multiply
#
# One unit has one weight w and the input x = 2. Its net input is s = w·x, its output is
# y = tanh(s), and its loss is E = (y − 1)². Each panel of the picture shows one of the
# three functions as a curve, and its tangent as a dashed line. The slope of the loss in
# the weight is the product of the three slopes of the tangents.

# %%
import sys

import flax.linen as nn
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.ad_checkpoint import checkpoint_name
from sklearn.datasets import load_digits

from bpvariants import gradients, training

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.6)})
unit = {"s": lambda w: 2 * w, "y": jnp.tanh, "E": lambda y: (y - 1) ** 2}


def tangents(w=-0.3):
    """Draw the three functions of the unit, with their tangents at weight w."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.6))
    place, product = jnp.float32(w), 1.0
    for ax, before, (after, function), reach in zip(
        axes, "wsy", unit.items(), (1, 2, 1), strict=True
    ):
        value, slope = jax.value_and_grad(function)(place)
        grid = jnp.linspace(-reach, reach, 100)
        ax.plot(grid, jax.vmap(function)(grid))
        ax.axline(
            (float(place), float(value)), slope=float(slope), color="tab:red", ls="--"
        )
        ax.plot(place, value, "o", color="tab:red")
        name = f"∂{after}/∂{before} = {slope:.3f}"
        ax.set(xlabel=before, ylabel=after, title=name, ylim=(grid.min() * 1.1, None))
        place, product = value, product * slope
    fig.suptitle(f"∂E/∂w = {product:.3f}, the product of the three slopes")
    plt.show()


tangents()
exact = jax.grad(lambda w: unit["E"](unit["y"](unit["s"](w))))(-0.3)
print(f"jax.grad: {exact:.3f}")

# %% [markdown]
# In a live notebook with ipywidgets, the next cell shows the same picture with a slider
# for the weight. Move w to 1: the middle slope is almost 0, because the unit is
# *saturated*. Then the product is almost 0, too, and the weight cannot learn.


# %%
def with_slider(draw, **ranges):
    """Draw with sliders, if this is a notebook and ipywidgets is installed."""
    try:
        from ipywidgets import interact
    except ImportError:
        return
    if "ipykernel" in sys.modules:
        interact(draw, **ranges)


with_slider(tangents, w=(-1.0, 1.0, 0.05))

# %% [markdown]
# ## Paths add up
#
# In E = (a·b + sin a)², the value a reaches the loss on two paths: through p = a·b, and
# through q = sin a. Along a path, slopes multiply. At a value that has several paths,
# the products of all paths are added. `gradients.layer_deltas` returns the derivative δ
# of the loss in each value that has a name. In the picture, each circle shows a value
# and its δ, and each arrow shows the slope of one step.


# %%
def expression(a, b):
    a, b = checkpoint_name(a, "a"), checkpoint_name(b, "b")
    p, q = checkpoint_name(a * b, "p"), checkpoint_name(jnp.sin(a), "q")
    return checkpoint_name(checkpoint_name(p + q, "r") ** 2, "E")


a, b = 0.5, 2.0
deltas = gradients.layer_deltas(expression, a, b)
r = float(deltas["r"].value)
slopes = {"ap": b, "bp": a, "aq": np.cos(a), "pr": 1.0, "qr": 1.0, "rE": 2 * r}
places = {
    "a": (0, 0),
    "b": (0, 1),
    "p": (1, 1),
    "q": (1, 0),
    "r": (2, 0.5),
    "E": (3, 0.5),
}
fig, ax = plt.subplots(figsize=(7.5, 2.8))
for (tail, head), slope in slopes.items():
    (x0, y0), (x1, y1) = places[tail], places[head]
    arrow = {"arrowstyle": "->", "shrinkA": 26, "shrinkB": 26}
    ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
    ax.text((x0 + x1) / 2, (y0 + y1) / 2 + 0.06, f"{slope:.2f}", ha="center")
for name, (x, y) in places.items():
    value, delta = deltas[name]
    ax.plot(x, y, "o", markersize=50, color="lightblue", markeredgecolor="black")
    text = f"{name} = {value:.2f}\nδ = {delta:.2f}"
    ax.text(x, y, text, ha="center", va="center", fontsize="small")
ax.set(xlim=(-0.4, 3.4), ylim=(-0.5, 1.5))
ax.axis("off")
plt.show()
through_p = slopes["ap"] * slopes["pr"] * slopes["rE"]
through_q = slopes["aq"] * slopes["qr"] * slopes["rE"]
print(f"δ of a: {through_p:.2f} through p, plus {through_q:.2f} through q")
print(f"sum: {through_p + through_q:.2f}, jax.grad: {jax.grad(expression)(a, b):.2f}")

# %% [markdown]
# ## The factors of a network
#
# A network with 32 hidden units learns to read digits. `gradients.backprop` records the
# factors of the chain rule for each layer. For one digit, the gradient of the first
# weight matrix is an outer product: each entry is the value of one pixel, times the
# error signal δ of one hidden unit. The picture shows the digit, the 32 error signals,
# and the gradient. Where a pixel is white, the rows of the gradient are zero.

# %%
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, DTYPE), jnp.asarray(labels)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def draw(seed, inputs, outputs, scale=1.0):
    weights = jax.random.normal(jax.random.key(seed), (inputs, outputs), DTYPE)
    return scale * weights / inputs**0.5


layers = [(lambda w, y: y @ w, jnp.tanh), (lambda w, y: y @ w, lambda s: s)]
rule = gradients.backprop(layers, cross_entropy)
params = draw(1, 64, 32), draw(2, 32, 10)
data = images[:1000], labels[:1000]
result = training.fit(rule, optax.adam(0.01), params, data, steps=50)
params = result.params
print(f"loss {result.values[0]:.2f} before, {result.values[-1]:.2f} after 50 updates")

(_, (first, last)), grads = rule(params, images[3:4], labels[3:4])
fig, axes = plt.subplots(1, 3, figsize=(9, 3), width_ratios=(1, 1.3, 1.3))
axes[0].imshow(first.x.reshape(8, 8), cmap="gray_r")
axes[0].set(title="image", xlabel="pixel", ylabel="pixel")
axes[1].bar(range(32), np.float32(first.delta[0]))
axes[1].set(title="δ of the hidden units", xlabel="hidden unit", ylabel="δ")
most = jnp.abs(grads[0]).max()
shown = axes[2].pcolormesh(grads[0], cmap="RdBu_r", vmin=-most, vmax=most)
axes[2].invert_yaxis()
axes[2].set(
    title="∂E/∂W = pixel · δ", xlabel="hidden unit", ylabel="pixel (row by row)"
)
fig.colorbar(shown, ax=axes[2])
plt.show()
outer = first.x[0][:, None] * first.delta[0]
print(f"outer product − gradient: at most {jnp.abs(outer - grads[0]).max():.0e}")

# %% [markdown]
# The chain rule may also go one step further back, to the image itself. The next
# picture shows ∂E/∂x for each pixel x of four test images that the network has not
# seen. Blue pixels would lower the loss if they were darker, red pixels would raise it.

# %%
(_, (first, _)), _ = rule(params, images[1700:1704], labels[1700:1704])
in_pixels = first.delta @ params[0].T  # one more factor: ∂s/∂x
fig, axes = plt.subplots(1, 8, figsize=(9, 1.5))
for i in range(4):
    axes[2 * i].imshow(first.x[i].reshape(8, 8), cmap="gray_r")
    most = jnp.abs(in_pixels[i]).max()
    axes[2 * i + 1].imshow(in_pixels[i].reshape(8, 8), "RdBu_r", vmin=-most, vmax=most)
    axes[2 * i].set_title(f"a {labels[1700 + i]}")
    axes[2 * i + 1].set_title("∂E/∂x")
for ax in axes:
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Is the gradient right?
#
# A finite difference needs no chain rule: move along a direction v by a small distance
# ε, and divide the change of the loss by 2ε. The picture shows how far this is from the
# gradient. For large ε, the curve of the loss is not straight. For small ε, the
# rounding of float32 numbers dominates, because two nearly equal losses are subtracted.
# So a difference can check a gradient, but not replace it.

# %%
energy = jax.jit(lambda params: rule(params, *data)[0][0])
(_, _), grads = rule(params, *data)
direction = draw(3, 64, 32), draw(4, 32, 10)
slope = optax.tree.vdot(grads, direction)
epsilons = 10.0 ** np.arange(-7, 0.1, 0.5)
errors = []
for epsilon in epsilons:
    move = lambda sign, e=epsilon: jax.tree.map(
        lambda w, v: w + sign * e * v, params, direction
    )
    estimate = (energy(move(1)) - energy(move(-1))) / (2 * epsilon)
    errors.append(abs(estimate - slope) / abs(slope))
fig, ax = plt.subplots()
ax.loglog(epsilons, errors, marker="o")
ax.set(xlabel="distance ε", ylabel="relative error\nof the difference")
plt.show()

# %% [markdown]
# ## Many factors: deep networks
#
# In a network of 30 layers, the error signal of the first layer has passed 30 factors.
# If each factor is a little below 1, their product is nearly 0. The picture shows the
# size of δ at each layer, for three activation functions and the same random weights.
# The slope of the logistic function is at most ¼, so its error signals vanish fastest.
# ReLU keeps them if the weights are √2 larger (He initialisation).

# %%
depth, width = 30, 64
activations = {
    "logistic": (nn.sigmoid, 1.0),
    "tanh": (jnp.tanh, 1.0),
    "ReLU": (nn.relu, 1.0),
    "ReLU, weights · √2": (nn.relu, 2**0.5),
}
fig, ax = plt.subplots(figsize=(6, 3))
half = lambda y, target: 0.5 * jnp.sum((y - target) ** 2, axis=-1)
for name, (activation, scale) in activations.items():
    deep = [(lambda w, y: y @ w, activation)] * depth
    weights = tuple(draw(10 + i, width, width, scale) for i in range(depth))
    values = jax.jit(gradients.backprop(deep, half))
    (_, info), _ = values(weights, images[:100], jnp.zeros((100, width), DTYPE))
    sizes = [jnp.abs(layer.delta).max() for layer in info]
    ax.semilogy(range(1, depth + 1), jnp.array(sizes) / sizes[-1], label=name)
ax.set(xlabel="layer", ylabel="largest |δ| (last layer = 1)")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What this does not show
#
# - How JAX stores and schedules the factors: `jax.grad` computes the same products, and
#   never forms the large matrices of ∂y/∂s.
# - Networks in which error signals travel back in time: see notebook 04.
# - Remedies for vanishing error signals, such as residual connections and
#   normalisation.
# - Other backward paths: `gradients.feedback_alignment` replaces a factor on purpose.
#
# ## Exercises
#
# **1.** Give the deep tanh network residual connections: each layer returns y +
# tanh(s). What happens to the error signals?
#
# <details><summary>Solution</summary>
#
# A layer's output may be any function of its input, so that the pair of functions
# passes on both s and y. The derivative ∂E/∂y then stays large down to the first layer.
#
# ```python
# add = lambda pair: pair[0] + 0.3 * jnp.tanh(pair[1])
# deep = [(lambda w, y: (y, y @ w), add)] * depth
# weights = tuple(draw(10 + i, width, width) for i in range(depth))
# values = gradients.backprop(deep, half)
# (_, info), _ = values(weights, images[:100], jnp.zeros((100, width), DTYPE))
# norms = [jnp.linalg.norm(layer.error) for layer in info]
# print("first layer / last layer:", norms[0] / norms[-1])
# ```
#
# </details>
#
# **2.** Use `gradients.layer_deltas` on a Flax network with two `nn.Dense` layers. What
# are the names of its values?
#
# <details><summary>Solution</summary>
#
# Each module's output has the path of the module as its name.
#
# ```python
# module = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(10)])
# learned = module.init(jax.random.key(0), images[:8])
# predict = lambda learned: module.apply(learned, images[:8])
# loss = lambda learned: cross_entropy(predict(learned), labels[:8]).mean()
# for name, (value, delta) in gradients.layer_deltas(loss, learned).items():
#     print(name, value.shape, delta.shape)
# ```
#
# </details>
