"""The four kinds of backpropagation in ten minutes.

The equations of the tutorial "4 Types of Backpropagation" (OpenGenus), each beside
the code that computes it, and what is wrong in the equations as they are printed.

Time: about one minute on two CPU cores. Data: handwritten digits, which come with
scikit-learn; nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 01 · The four kinds of backpropagation in ten minutes
#
# [![Open in Colab][badge]][colab]
#
# The equations of the tutorial "4 Types of Backpropagation" (OpenGenus), each beside
# the code that computes it, and what is wrong in the equations as they are printed.
#
# Time: about one minute on two CPU cores. Data: handwritten digits, which come with
# scikit-learn; nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/01_the_four_kinds.ipynb

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
# ## Two questions
#
# Training a network asks two questions. A **gradient rule** answers the first one:
# where does the gradient come from? An **update** answers the second one: what is done
# with the gradient? The tutorial's four kinds belong to different questions:
#
# | kind | question | in bpvariants |
# |---|---|---|
# | 1 static | where from? | `gradients.backprop` |
# | 2 recurrent, in the tutorial | what then? | `updates.forgetting` |
# | 2 recurrent, as published | where from? | `gradients.recurrent_backprop` |
# | 3 resilient | what then? | `updates.rprop` |
# | 4 through time | where from? | `gradients.bptt` |
#
# All examples use 500 handwritten digits of 8×8 pixels, and their labels 0 to 9.

# %%
import warnings

import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from sklearn.datasets import load_digits

from bpvariants import gradients, training, updates

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.6)})
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images[:500] / 16, DTYPE), jnp.asarray(labels[:500])
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def draw(seed, inputs, outputs, scale=1.0):
    weights = jax.random.normal(jax.random.key(seed), (inputs, outputs), DTYPE)
    return scale * weights / inputs**0.5


# %% [markdown]
# ## 1 · Static backpropagation
#
# Let w be a weight of a unit, s the net input of the unit (a weighted sum), y the
# output of the unit, and E the loss. The tutorial prints the chain rule with three
# factors:
#
# $$\frac{\partial E}{\partial w} = \frac{\partial E}{\partial y}\cdot
# \frac{\partial y}{\partial s}\cdot\frac{\partial s}{\partial w}$$
#
# `gradients.backprop` takes a network as a list of pairs (net input, activation). It
# returns the gradient and all factors. In the picture, each column is a layer. Its
# three boxes show the norm of ∂E/∂y, and by how much the two other factors scale this
# norm.

# %%
layers = [(lambda w, y: y @ w, jnp.tanh), (lambda w, y: y @ w, lambda s: s)]
mlp = draw(1, 64, 32), draw(2, 32, 10)
static = jax.jit(gradients.backprop(layers, cross_entropy))
(value, info), grads = static(mlp, images, labels)
print(info.table())
info.plot()
plt.show()

# %% [markdown]
# **What the printed equation leaves out.** For a unit of an inner layer, ∂E/∂y is
# itself a sum, with one term for each unit of the next layer. The bars show the ten
# terms for one hidden unit and one image. The largest term belongs to the digit that
# the image shows, but the nine others count, too. With the sum, the product of the
# three factors equals `jax.grad`.

# %%
first, last = info
terms = last.delta[0] * mlp[1][3]  # δ = ∂E/∂s of each output unit, times its weight
terms = jnp.float32(terms)
fig, ax = plt.subplots()
ax.bar(range(10), terms, label="one term for each output unit")
ax.axhline(terms.sum(), color="tab:red", label="∂E/∂y of the hidden unit: their sum")
ax.set(xlabel="output unit (digit)", ylabel="∂E/∂y", xticks=range(10))
ax.legend(fontsize="small")
plt.show()

error, slope = last.delta @ mlp[1].T, 1 - first.y**2  # ∂E/∂y, and ∂y/∂s of tanh
product = images.T @ (error * slope)  # ∂s/∂w is the input of the layer
exact = jax.grad(lambda w: static(w, images, labels)[0][0])(mlp)[0]
print(
    f"product of the factors − jax.grad: at most {jnp.abs(product - exact).max():.0e}"
)

# %% [markdown]
# ## 2 · Recurrent backpropagation, as the tutorial prints it
#
# Let g(n) be the gradient at step n, η the learning rate and λ < 1 a forgetting factor.
# The tutorial prints an update, which says what is done with gradients:
#
# $$\Delta w(n) = -\eta\, g(n) - \lambda\, g(n{-}1) - \lambda^2 g(n{-}2) - \dots -
# \lambda^{n-1} g(1)$$
#
# **What is wrong:** η multiplies only the first term. However small η is, past
# gradients move the weight at full size. With η on every term, the update is the
# heavy-ball method. `updates.forgetting` has both forms. The picture shows the distance
# from the minimum of E = ½ w². With λ = 0.9, the printed form diverges, although η is
# only 0.01.
#
# The animation shows the discounted sum for two values of λ.
#
# ![A discounted sum of gradients](../docs/images/animations/forgetting.gif)


# %%
def changes(update, sequence):
    """Return the changes that an update makes for a given sequence of gradients."""
    state, text = update.init(jnp.zeros(())), ""
    for g in sequence:
        change, state = update.update(jnp.float32(g), state, jnp.zeros(()))
        text += f"{change + 0.0:8.3f}"
    return text


def descend(update, start, steps=60):
    """Return the weight at each step of minimising E = ½ w², whose derivative is w."""

    def body(state, _):
        change, opt_state = update.update(state[0], state[1], state[0])
        return (state[0] + change, opt_state), state[0]

    w = jnp.float32(start)
    return jax.lax.scan(body, (w, update.init(w)), length=steps)[1]


warnings.simplefilter("ignore", UserWarning)  # bpvariants warns about the printed form
fig, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
print("gradients        1       2       3      −1")
for name, scale_past in (("printed", False), ("η on every term", True)):
    update = updates.forgetting(0.1, decay=0.5, scale_past=scale_past)
    print(f"{name:16}{changes(update, [1, 2, 3, -1])}")
    for ax, decay in zip(axes, (0.4, 0.9), strict=True):
        update = updates.forgetting(0.01, decay, scale_past=scale_past)
        ax.semilogy(jnp.abs(descend(update, 1.0)), label=name)
        ax.set(xlabel="step n", title=f"λ = {decay}, η = 0.01", ylim=(1e-4, 1e4))
axes[0].set_ylabel("distance |w|")
axes[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## 2 · Recurrent backpropagation, as published
#
# In 1987, Almeida and Pineda gave this name to the gradient of a network that settles
# at a fixed point h* = f(θ, h*, x). Here θ are the parameters, x is the input, and J
# the Jacobian ∂f/∂h at h*. A second relaxation finds the adjoint z, and with it the
# gradient:
#
# $$z \leftarrow J^\top z + \frac{\partial E}{\partial h^*}
# \qquad\text{then}\qquad
# \frac{dE}{d\theta} = \Big(\frac{\partial f}{\partial\theta}\Big)^{\!\top} z$$
#
# In the picture, both relaxations converge at nearly the same rate, because J and its
# transpose have the same eigenvalues. Memory does not grow with the number of
# iterations.


# %%
def settle(w, h, x):
    return jnp.tanh(h @ w["recurrent"] + x @ w["in"])


net = {"recurrent": draw(3, 32, 32, 0.7), "in": draw(4, 64, 32), "out": draw(5, 32, 10)}
start, read = jnp.zeros((500, 32), DTYPE), lambda w, h: h @ w["out"]
recurrent = jax.jit(gradients.recurrent_backprop(settle, cross_entropy, readout=read))
(value, found), grads = recurrent(net, start, images, labels)


@jax.jit
def relax(h, z):
    """Return the distances of both relaxations from their limits."""
    _, pull = jax.vjp(lambda h: settle(net, h, images), found.h)
    error = found.z - pull(found.z)[0]  # ∂E/∂h*, because z = Jᵀz + ∂E/∂h*

    def body(state, _):
        h, z = state
        apart = jnp.linalg.norm(h - found.h), jnp.linalg.norm(z - found.z)
        return (settle(net, h, images), pull(z)[0] + error), apart

    return jax.lax.scan(body, (h, z), length=25)[1]


@jax.jit
def unrolled(w):
    h = jax.lax.scan(lambda h, _: (settle(w, h, images), None), start, length=100)[0]
    return cross_entropy(read(w, h), labels).mean()


gap = jnp.abs(jax.grad(unrolled)(net)["recurrent"] - grads["recurrent"]).max()
print(f"gradient − gradient of 100 unrolled iterations: at most {gap:.0e}")
fig, ax = plt.subplots()
for name, apart in zip("hz", relax(start, 0 * start), strict=True):
    ax.semilogy(apart / apart[0], label=f"{name} from its limit")
ax.set(xlabel="iteration", ylabel="distance (1 at the start)")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## 3 · Resilient backpropagation
#
# The tutorial prints, for a weight with gradient g(t) at step t,
#
# $$\Delta w(t) = -\operatorname{sign}(g(t))\cdot\Delta w(t-1)$$
#
# **What is wrong:** Δw(t−1) has a sign of its own. While the gradient keeps its sign,
# the weight moves back and forth. If only the size |Δw(t−1)| counts, the size never
# adapts, and one zero gradient stops the weight for ever. The published Rprop has a
# step size for each weight. It grows by a factor of 1.2 while the sign of the gradient
# stays the same, and is halved when the sign changes. The picture shows how a weight
# goes from 3 to the minimum of E = ½ w² at 0.


# %%
def literal(first, size):
    """Return the printed equation as an optax update, with a first step size."""
    update = lambda g, last, params=None: (-jnp.sign(g) * size(last),) * 2
    return optax.GradientTransformation(lambda w: jnp.full_like(w, first), update)


methods = {
    "printed": literal(0.1, lambda change: change),
    "printed, only |Δw|": literal(0.1, jnp.abs),
    "Manhattan: always 0.1": updates.manhattan(0.1),
    "Rprop (iRprop⁻)": updates.rprop(0.1),
}
fig, ax = plt.subplots()
print(f"{'gradients':24}   1, 1, 1, −1{'':24}1, 0, 1, 1")
for name, update in methods.items():
    print(f"{name:24}{changes(update, [1, 1, 1, -1])}  {changes(update, [1, 0, 1, 1])}")
    line = ":" if update is methods["Manhattan: always 0.1"] else "-"
    ax.plot(descend(update, 3.0, steps=45), line, linewidth=2, label=name)
ax.set(xlabel="step t", ylabel="weight w")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## 4 · Backpropagation through time
#
# The tutorial describes this kind in words, without an equation. Here it is. A step
# computes the state h(t) from h(t−1). Let ℓ(t) be the loss of step t, L the sum of all
# losses, and δ(t) = dL/dh(t) the *error signal*, which travels backwards in time:
#
# $$\delta_t = \frac{\partial \ell_t}{\partial h_t} +
# \delta_{t+1}\frac{\partial h_{t+1}}{\partial h_t},
# \qquad
# \frac{dL}{d\theta} = \sum_t \delta_t\frac{\partial h_t}{\partial\theta},$$
#
# where ∂h(t)/∂θ is taken at fixed h(t−1). The network reads a digit row by row, and
# names it after the last row. The second loop is the equation, and `gradients.bptt`
# computes the same for any step. The pictures show a digit, and the size of δ after
# each row.


# %%
def step(w, h, row):
    h = jnp.tanh(h @ w["recurrent"] + row @ w["in"])
    return h, h @ w["out"]


reader = {"recurrent": draw(6, 32, 32), "in": draw(7, 8, 32, 2), "out": draw(8, 32, 10)}
rows = images.reshape(-1, 8, 8).swapaxes(0, 1)  # [T = 8 rows, 500, 8 pixels]
targets = jnp.tile(labels, (8, 1))
weights = jnp.zeros((8, 500)).at[-1].set(1)  # only the last loss counts
through_time = jax.jit(gradients.bptt(step, cross_entropy))
(value, _), grads = through_time(reader, start, rows, targets, weights)

h, pulls, norms, total = start, [], [], 0
for row in rows:
    h, pull = jax.vjp(lambda w, h, row=row: step(w, h, row)[0], reader, h)
    pulls.append(pull)
delta = jax.grad(lambda h: cross_entropy(h @ reader["out"], labels).mean())(h)
for pull in reversed(pulls):
    norms.append(float(jnp.linalg.norm(delta)))
    at_fixed_state, delta = pull(delta)  # δ · ∂h/∂θ, and δ of the step before
    total += at_fixed_state["recurrent"]
print(f"loop − bptt: at most {jnp.abs(total - grads['recurrent']).max():.0e}")
fig, axes = plt.subplots(1, 2)
axes[0].imshow(rows[:, 0], cmap="gray_r")
axes[0].set(xlabel="pixel", ylabel="row t")
axes[1].barh(range(8), norms[::-1])
axes[1].invert_yaxis()
axes[1].set(xlabel="norm of δ, 500 digits", ylabel="row t")
plt.show()

# %% [markdown]
# ## Every rule with every update
#
# A rule returns a gradient, and an update needs nothing else. Here, three networks
# learn by three rules, each with three updates. The curves show the training loss.

# %%
jobs = {
    "static": (static, mlp, (images, labels)),
    "recurrent": (recurrent, net, (start, images, labels)),
    "through time": (through_time, reader, (start, rows, targets, weights)),
}
choices = {
    "Rprop": updates.rprop(0.01),
    "forgetting": updates.forgetting(0.1, decay=0.9),
    "Adam": optax.adam(0.01),
}
only = {"recurrent": True, "in": False, "out": False}
settles = optax.masked(updates.project_spectral_norm(0.9), only)  # so that h* exists
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, (kind, (rule, params, data)) in zip(axes, jobs.items(), strict=True):
    for name, update in choices.items():
        update = optax.chain(update, settles) if kind == "recurrent" else update
        result = training.fit(rule, update, params, data, steps=40)
        ax.semilogy(result.values, label=name)
    ax.set(title=kind, xlabel="update", ylim=(1e-6, 10))
axes[0].set_ylabel("training loss (nats)")
axes[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What this does not show
#
# - Which update is best: learning rates were not tuned, and each curve has one seed.
# - Test accuracy: the curves are training losses of small networks.
# - Mini-batches: Rprop needs the full batch.
# - Long sequences, whose gradients may vanish or explode: see notebook 04.
#
# ## Exercises
#
# **1.** For which λ does the printed form of section 2 converge, for η = 0.01? The
# documentation of `updates.forgetting` says that the curvature of the loss, which is 1
# here, must be below about (1−λ)/λ.
#
# <details><summary>Solution</summary>
#
# For λ below about 1/2. Compare both sides of the bound:
#
# ```python
# for decay in (0.49, 0.52):
#     update = updates.forgetting(0.01, decay, scale_past=False)
#     print(decay, jnp.abs(descend(update, 1.0, steps=500)[-1]))
# ```
#
# </details>
#
# **2.** In section 4, let the error signal travel back over only 1, 2 or 4 rows. How
# does the training loss after 60 updates change?
#
# <details><summary>Solution</summary>
#
# ```python
# _, params, data = jobs["through time"]
# for lookback in (1, 2, 4, 8):
#     rule = gradients.truncated_bptt(step, cross_entropy, every=1, lookback=lookback)
#     result = training.fit(rule, optax.adam(0.01), params, data, steps=60)
#     print(lookback, result.values[-1])
# ```
#
# The loss is the larger, the fewer rows the error signal reaches.
# </details>
