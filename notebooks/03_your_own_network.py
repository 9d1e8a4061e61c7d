"""Your own network, with any rule and any optax chain.

Four networks, written as a plain function and with Flax Linen, Flax NNX and Equinox,
learn by the same gradient rules and the same optax transformations.

Time: about one minute on two CPU cores. Data: handwritten digits, which come with
scikit-learn; nothing is downloaded. Equinox is used only if it is installed.
"""

# %% [markdown] tags=["generated"]
# # 03 · Your own network, with any rule and any optax chain
#
# [![Open in Colab][badge]][colab]
#
# Four networks, written as a plain function and with Flax Linen, Flax NNX and Equinox,
# learn by the same gradient rules and the same optax transformations.
#
# Time: about one minute on two CPU cores. Data: handwritten digits, which come with
# scikit-learn; nothing is downloaded. Equinox is used only if it is installed.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/03_your_own_network.ipynb

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
# ## What a network must be
#
# A gradient rule asks for two functions:
#
# - `step(params, carry, x) -> (carry, y)` runs one time step. `params` are the
#   parameters, `carry` is the state that the next step gets, `x` is the input and `y`
#   the output.
# - `loss(y, target)` returns one number for each example.
#
# The networks below read the image of a digit row by row: T = 8 time steps with 8
# pixels each. After the last row, they name the digit. Arrays have time as their first
# axis.

# %%
import flax.linen as nn
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from flax import nnx
from sklearn.datasets import load_digits

from bpvariants import adapters, gradients, training, updates

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.8)})
units, examples = 16, 300
images, labels = load_digits(return_X_y=True)
rows = jnp.asarray(images[:examples] / 16, DTYPE).reshape(-1, 8, 8)
xs = rows.swapaxes(0, 1)  # [T, examples, 8]
targets = jnp.tile(jnp.asarray(labels[:examples]), (8, 1))  # [T, examples]
weights = jnp.zeros(targets.shape).at[-1].set(1)  # only the loss at the last row counts
carry = jnp.zeros((examples, units), DTYPE)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels
key = jax.random.key(0)

# %% [markdown]
# ## A plain function
#
# Any function with these arguments is a network. The parameters are any pytree of
# arrays.


# %%
def plain(params, h, x):
    """Run one step of a leaky network."""
    h = 0.5 * h + 0.5 * jnp.tanh(h @ params["W"] + x @ params["U"] + params["b"])
    return h, h @ params["V"]


keys = jax.random.split(key, 3)
plain_params = {
    "W": jax.random.normal(keys[0], (units, units)) / units**0.5,
    "U": jax.random.normal(keys[1], (8, units)),
    "V": jax.random.normal(keys[2], (units, 10)) / units**0.5,
    "b": jnp.zeros(units),
}

# %% [markdown]
# ## Flax Linen, Flax NNX, Equinox
#
# The method `apply` of a recurrent Linen module already is a step. An NNX module that
# maps (carry, x) to (carry, y) becomes a step by `adapters.from_nnx`. An Equinox module
# works on a single example; `adapters.from_equinox` also adds the batch axis.


# %%
class LinenReader(nn.Module):
    """A GRU with a readout."""

    @nn.compact
    def __call__(self, carry, x):
        carry, h = nn.GRUCell(units)(carry, x)
        return carry, nn.Dense(10)(h)


class NNXReader(nnx.Module):
    """A GRU with a readout."""

    def __init__(self, rngs):
        self.cell = nnx.GRUCell(8, units, rngs=rngs)
        self.readout = nnx.Linear(units, 10, rngs=rngs)

    def __call__(self, carry, x):
        carry, h = self.cell(carry, x)
        return carry, self.readout(h)


linen = LinenReader()
networks = {
    "plain function": (plain, plain_params),
    "Flax Linen": (linen.apply, linen.init(key, carry, xs[0])),
    "Flax NNX": adapters.from_nnx(NNXReader(nnx.Rngs(0))),
}
try:
    import equinox as eqx
except ImportError:
    print("Equinox is not installed: going on without it")
else:

    class EquinoxReader(eqx.Module):
        """A GRU with a readout."""

        cell: eqx.nn.GRUCell
        readout: eqx.nn.Linear

        def __call__(self, carry, x):
            carry = self.cell(x, carry)
            return carry, self.readout(carry)

    module = EquinoxReader(
        eqx.nn.GRUCell(8, units, key=keys[0]), eqx.nn.Linear(units, 10, key=keys[1])
    )
    networks["Equinox"] = adapters.from_equinox(module, lambda net, h, x: net(h, x))

# %% [markdown]
# From here on, all networks are used in the same way. All parameters get the dtype of
# the first cell. `gradients.bptt` makes the gradient rule, and `training.fit` trains:
# it runs the rule and the update inside `jit`. The picture shows the loss of each
# network.


# %%
def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def learn(rule, update, params, steps=60):
    data = (carry, xs, targets, weights)
    return training.fit(rule, update, params, data, steps=steps)


fig, ax = plt.subplots()
plain_params, curves = cast(plain_params, DTYPE), {}
for name, (step, params) in networks.items():
    params = cast(params, DTYPE)
    result = learn(gradients.bptt(step, cross_entropy), optax.adam(0.03), params)
    curves[name] = result.values
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    ax.semilogy(result.values, label=f"{name}, {size} parameters")
    print(
        f"{name:15} loss {result.values[0]:.2f} before, {result.values[-1]:.3f} after"
    )
ax.set(xlabel="update", ylabel="training loss (nats)", title="bptt and Adam")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Any rule
#
# To use another rule, change one line. Rules that run forwards in time, such as `rtrl`
# (real-time recurrent learning), become rules for whole sequences by `over_sequence`.
# The bars show the cosine of the angle between each rule's gradient and the exact
# gradient of the plain network: 1 means the same direction. `bptt` and `rtrl` are
# exact; the others are approximations that need less memory or time. The curves show
# the training loss for three of the rules, in the colours of the bars.

# %%
over = gradients.over_sequence
rules = {
    "bptt": jax.jit(gradients.bptt(plain, cross_entropy)),
    "truncated, 4 rows": gradients.truncated_bptt(
        plain, cross_entropy, every=1, lookback=4
    ),
    "truncated, 1 row": gradients.truncated_bptt(
        plain, cross_entropy, every=1, lookback=1
    ),
    "rtrl": over(gradients.rtrl(plain, cross_entropy)),
    "snap, order 1": over(gradients.snap(plain, cross_entropy, order=1)),
}
(_, _), exact = rules["bptt"](plain_params, carry, xs, targets, weights)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
for name, rule in rules.items():
    (_, _), grads = jax.jit(rule)(plain_params, carry, xs, targets, weights)
    lengths = optax.tree.norm(grads) * optax.tree.norm(exact)
    cosine = optax.tree.vdot(grads, exact) / lengths
    (bar,) = left.barh(name, cosine)
    left.text(0.02, name, f"{cosine:.3f}", va="center", color="white")
    if name in ("truncated, 1 row", "snap, order 1"):
        curves[name] = learn(rule, optax.adam(0.03), plain_params).values
        right.semilogy(curves[name], color=bar.get_facecolor())
    elif name == "bptt":  # as above
        right.semilogy(curves["plain function"], color=bar.get_facecolor())
left.invert_yaxis()
left.set(xlabel="cosine with the exact gradient")
right.set(xlabel="update", ylabel="training loss (nats)")
plt.show()

# %% [markdown]
# ## Any optax chain
#
# An update is an `optax.GradientTransformation`, so the updates of bpvariants and of
# optax form chains. The picture shows four of them: clipping before Adam with a falling
# learning rate; Rprop for the recurrent matrix W and Adam for all other parameters;
# Rprop alone; and steps along past gradients, discounted by λ.

# %%
rates = optax.cosine_decay_schedule(0.06, 60)
kind = {"W": "recurrent", "U": "other", "V": "other", "b": "other"}
chains = {
    "clip, Adam, cosine": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(rates)
    ),
    "Rprop for W, Adam for the rest": optax.partition(
        {"recurrent": updates.rprop(0.01), "other": optax.adam(0.03)}, kind
    ),
    "Rprop": updates.rprop(0.01),
    "forgetting, λ = 0.9": updates.forgetting(0.3, decay=0.9),
}
fig, ax = plt.subplots()
for name, update in chains.items():
    ax.semilogy(learn(rules["bptt"], update, plain_params).values, label=name)
ax.set(xlabel="update", ylabel="training loss (nats)", ylim=(1e-4, 5))
ax.legend(fontsize="x-small")
plt.show()

# %% [markdown]
# ## Sequences of different lengths
#
# `mask` says which time steps are real. In padding, the carry passes unchanged, and
# nothing reaches the gradient, not even NaN. Here, half of the digits end after row 6,
# and their last two rows are NaN. The loss and the gradient stay finite.

# %%
seen = jnp.where(jnp.arange(examples) % 2 == 0, 8, 6)
mask = gradients.mask_from_lengths(seen, 8)  # [T, examples]
padded = jnp.where(mask[..., None], xs, jnp.nan)
at_end = jnp.float32(jnp.arange(8)[:, None] == seen - 1)
(value, _), grads = rules["bptt"](plain_params, carry, padded, targets, at_end, mask)
print(f"loss {value:.3f}, norm of the gradient {optax.tree.norm(grads):.3f}")

# %% [markdown]
# ## bfloat16
#
# Give parameters, carry and inputs in bfloat16, and the network computes in bfloat16.
# The rules still sum over time in float32, so that long sums do not lose small terms.

# %%
half = cast((plain_params, carry, xs), jnp.bfloat16)
(value, _), grads = rules["bptt"](*half, targets, weights)
grads, exact = cast(grads, jnp.float32), cast(exact, jnp.float32)
cosine = optax.tree.vdot(grads, exact) / optax.tree.norm(grads) / optax.tree.norm(exact)
print(f"bfloat16: loss {value:.3f}, cosine with the float32 gradient {cosine:.5f}")

# %% [markdown]
# ## Mistakes are named
#
# Shapes and settings are checked while the function is traced. A message says which
# argument is wrong, which value it has, and what to do.

# %%
mistakes = {
    "a loss per feature": lambda: gradients.bptt(plain, optax.squared_error)(
        plain_params, carry, xs, jnp.zeros((8, examples, 10))
    ),
    "a carry without batch axis": lambda: rules["bptt"](
        plain_params, carry[0], xs, targets
    ),
    "an impossible setting": lambda: gradients.truncated_bptt(
        plain, cross_entropy, every=4, lookback=2
    ),
}
for name, mistake in mistakes.items():
    try:
        mistake()
    except ValueError as error:
        print(f"{name}:\n    {error}\n")

# %% [markdown]
# ## What this does not show
#
# - Which framework is faster: the networks are small, and nothing is timed.
# - Test accuracy, or tuned learning rates: the curves are training losses of one seed.
# - Layers that mix examples of a batch, such as batch normalisation: a step must treat
#   each example by itself.
# - Long sequences, where the choice of the rule matters most: see notebook 04.
#
# ## Exercises
#
# **1.** Put two plain networks on top of each other with `gradients.stack`.
#
# <details><summary>Solution</summary>
#
# The parameters and the carry become tuples. The second layer reads the 10 outputs of
# the first layer, so its matrix U has 10 rows.
#
# ```python
# second = {**plain_params, "U": jax.random.normal(keys[1], (10, units))}
# two = gradients.bptt(gradients.stack([plain, plain]), cross_entropy)
# data = ((carry, carry), xs, targets, weights)
# result = training.fit(two, optax.adam(0.03), (plain_params, second), data, steps=60)
# print(result.values[-1])
# ```
#
# </details>
#
# **2.** Let the loss of every row count, not only that of the last row. After how many
# rows does the trained network name most digits?
#
# <details><summary>Solution</summary>
#
# Leave `weights` out, and compare the outputs of each row with the targets.
#
# ```python
# rule, data = rules["bptt"], (carry, xs, targets)
# result = training.fit(rule, optax.adam(0.03), plain_params, data, steps=200)
# _, ys = gradients.unroll(plain, result.params, carry, xs)
# print(jnp.mean(ys.argmax(-1) == targets, axis=1).round(2))  # accuracy after each row
# ```
#
# </details>
