"""Learning online: gradients forwards in time.

Real-time recurrent learning (RTRL) in 25 lines, then `gradients.rtrl`, `snap`,
`eprop` and `uoro`, compared by `diagnostics.gradient_quality` and by what they learn.

Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
with the package; nothing is fetched.
"""

# %% [markdown] tags=["generated"]
# # 05 · Learning online: gradients forwards in time
#
# [![Open in Colab][badge]][colab]
#
# Real-time recurrent learning (RTRL) in 25 lines, then `gradients.rtrl`, `snap`,
# `eprop` and `uoro`, compared by `diagnostics.gradient_quality` and by what they learn.
#
# Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
# with the package; nothing is fetched.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/05_learning_online.ipynb

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
# ## One chain rule, two directions
#
# A step of a network computes the new state h_t from the parameters θ, the old state
# h_{t−1} and the input x_t. It has two Jacobians: J_t = ∂h_t/∂h_{t−1}, and I_t =
# ∂h_t/∂θ at a fixed h_{t−1}. Backpropagation through time (BPTT) multiplies them from
# the loss *backwards*; it must wait for the end, and store every step. RTRL multiplies
# them *forwards*. It carries along M_t = dh_t/dθ, the influence, and knows the gradient
# as soon as the loss ℓ_t is known:
#
# $$M_t = J_t\,M_{t-1} + I_t, \qquad \frac{d\ell_t}{d\theta} =
# \frac{\partial\ell_t}{\partial h_{t-1}}\,M_{t-1} +
# \frac{\partial\ell_t}{\partial\theta}.$$

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from bpvariants import diagnostics, gradients, training

images, labels = load_digits(return_X_y=True)
rows = jnp.asarray(images.reshape(-1, 8, 8) / 16, DTYPE)  # [digit, T, 8]
labels = jnp.asarray(labels)

# %% [markdown]
# ## Task and network
#
# The network reads a handwritten digit of 8 × 8 pixels row by row, from top to bottom,
# and says which digit it is. It has 16 leaky units. The potential v of a unit keeps 0.8
# of its value from one step to the next; other units see only its output z = tanh(v).
# The carry has both parts. A linear readout of z gives a score for each class. For
# bpvariants, a network is nothing but such a function `step`.

# %%
UNITS, LEAK = 16, 0.8


def step(params, carry, x):
    v = LEAK * carry["v"] + carry["z"] @ params["recurrent"] + x @ params["inputs"]
    z = jnp.tanh(v)
    return {"v": v, "z": z}, z @ params["readout"]


def init(key):
    shapes = {"inputs": (8, UNITS), "readout": (UNITS, 10), "recurrent": (UNITS, UNITS)}
    keys = dict(zip(shapes, jax.random.split(key, 3), strict=True))
    draw = lambda key, shape: jax.random.normal(key, shape, DTYPE) / shape[0] ** 0.5
    return {name: draw(keys[name], shape) for name, shape in shapes.items()}


start = lambda *batch: {name: jnp.zeros((*batch, UNITS), DTYPE) for name in "vz"}
sequences = lambda rows, labels: (jnp.swapaxes(rows, 0, 1), jnp.tile(labels, (8, 1)))
loss = optax.softmax_cross_entropy_with_integer_labels
params = init(jax.random.key(0))

# %% [markdown]
# ## RTRL, written densely
#
# This function is the two equations above and nothing else. It flattens the parameters
# to a vector θ of p numbers and the carry to a vector h of n numbers, asks JAX for the
# Jacobians, and carries the dense matrix M [n, p] along.


# %%
def dense_rtrl(step, loss, params, carry, xs, targets):
    """Gradient of the mean loss of one example, and the influence after each step."""
    theta, as_params = ravel_pytree(params)
    h, as_carry = ravel_pytree(carry)

    def run(theta, h, x):
        carry, y = step(as_params(theta), as_carry(h), x)
        return ravel_pytree(carry)[0], y

    def one_step(state, inputs):
        h, M, total = state
        x, target = inputs
        loss_of = lambda theta, h: loss(run(theta, h, x)[1], target)
        new_h = lambda theta, h: run(theta, h, x)[0]
        direct, through_h = jax.grad(loss_of, (0, 1))(theta, h)
        immediate, J = jax.jacobian(new_h, (0, 1))(theta, h)
        total = total + through_h @ M + direct
        M = J @ M + immediate
        return (new_h(theta, h), M, total), M

    zeros = jnp.zeros((h.size, theta.size)), jnp.zeros(theta.size)
    (_, _, total), Ms = jax.lax.scan(one_step, (h, *zeros), (xs, targets))
    return as_params(total / len(xs)), Ms


# %% [markdown]
# We compare it with `gradients.bptt` and `gradients.rtrl` for one digit. An online rule
# is a pair of functions `init` and `update`; `over_sequence` runs it along a sequence.

# %%
example = params, start(), rows[0], jnp.full(8, labels[0])
bptt, rtrl = gradients.bptt(step, loss), gradients.rtrl(step, loss)
dense, Ms = jax.jit(lambda *args: dense_rtrl(step, loss, *args))(*example)
_, backwards = jax.jit(bptt)(*example)
_, forwards = jax.jit(gradients.over_sequence(rtrl))(*example)
exact = ravel_pytree(backwards)[0]
for name, grads in {"dense_rtrl": dense, "gradients.rtrl": forwards}.items():
    error = jnp.linalg.norm(ravel_pytree(grads)[0] - exact) / jnp.linalg.norm(exact)
    print(f"{name:14} against gradients.bptt: relative error {error:.1e}")

# %% [markdown]
# ## Seeing the influence
#
# The picture shows |M_t| on a logarithmic scale. Each matrix has a line for each number
# of the carry (v above, z below) and a column for each parameter; light grey is exactly
# 0. After the first step, a weight influences only its own unit. Then units pass the
#   influence on to each other. The columns of the readout stay empty, because the carry
#   does not depend on it.

# %%
sizes = np.array([params[name].size for name in sorted(params)])
ends = np.cumsum(sizes)
figure, panels = plt.subplots(2, 2, figsize=(10, 5), layout="constrained")
for panel, t in zip(panels.ravel(), (1, 2, 4, 8), strict=True):
    M = np.abs(np.asarray(Ms[t - 1]))
    shown = np.log10(np.where(M > 0, M, np.nan))
    image = panel.imshow(shown, aspect="auto", vmin=-4, vmax=1)
    panel.set(title=f"t = {t}: {np.mean(M > 0):.0%} of M is not 0", facecolor="0.9")
    panel.set_xticks(ends - sizes / 2, sorted(params))
    panel.set_yticks([UNITS / 2, 3 * UNITS / 2], ["v", "z"])
    panel.vlines(ends[:-1] - 0.5, -0.5, 2 * UNITS - 0.5, color="black", lw=0.6)
figure.colorbar(image, ax=panels, label=r"$\log_{10} |M_t|$")
plt.show()

# %% [markdown]
# ## Memory
#
# RTRL stores M, whatever the length T is, and `gradients.rtrl` only those entries that
# can be nonzero. The cell asks XLA for the temporary memory of both programs.

# %%
M = rtrl.init(params, start(), (rows[0, 0], labels[0])).influence
kept = sum(leaf.size for leaf in jax.tree.leaves(M))
print(f"dense M: {Ms[0].size} numbers; gradients.rtrl stores {kept}")
for T in (8, 512, 8192):
    long = params, start(), jnp.zeros((T, 8), DTYPE), jnp.zeros(T, int)
    both = {"BPTT": bptt, "RTRL": gradients.over_sequence(rtrl)}.items()
    kib = {k: diagnostics.memory_report(f, *long).temporaries // 1024 for k, f in both}
    print(f"T = {T:4}, memory in KiB: {kib}")

# %% [markdown]
# ## Three approximations of M
#
# The product J_t M_{t−1} takes n²·p multiplications, too many for large networks.
#
# - `snap` of order 1 keeps entries that a parameter reaches within one step: the thin
#   diagonals of the picture. It is biased.
# - `eprop` keeps only the paths within a unit, through v. It is biased.
# - `uoro` replaces M by a random matrix of rank one whose *mean* is M: unbiased.
#
# `gradient_quality` compares them with the exact gradient, for 32 digits. `bias` is the
# relative error of the mean estimate, `±` its standard error, and `error` the relative
# error of a single estimate. A bias as large as its standard error, as here for `uoro`,
# is only noise that 512 estimates have not averaged away.

# %%
rules = {
    "rtrl": rtrl,
    "snap": gradients.snap(step, loss, order=1),
    "eprop": gradients.eprop(step, loss, visible=lambda carry: carry["z"]),
    "uoro": gradients.uoro(step, loss),
}
args = step, loss, params, start(32), *sequences(rows[:32], labels[:32])
draws = {"keys": jax.random.split(jax.random.key(1), 512), "at_once": 64}
print(f"{'':6}", *(f"{head:>9}" for head in ("bias", "±", "error", "cosine")))
for name, rule in rules.items():
    options = draws if name == "uoro" else {}
    q = diagnostics.gradient_quality(rule, *args, **options).total
    shown = q.bias, q.bias_standard_error, q.error, q.cosine
    print(f"{name:6}", *(f"{number:9.2g}" for number in shown))

# %% [markdown]
# ## What they learn
#
# Now each rule trains the network. A batch is 16 digits, and only the loss after the
# last row has a weight. The picture shows the loss as a running mean over 50 batches;
# lower is better, and a guess gives ln 10 (dotted). All have the same learning rate.
# Only RTRL carries the whole influence of rows seen long before.


# %%
def sample(key, data):
    rows, labels = jax.tree.map(lambda leaf: jax.random.choice(key, leaf, (16,)), data)
    weights = jnp.zeros((8, 16)).at[-1].set(1)
    return start(16), *sequences(rows, labels), weights


figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
options = {"steps": 500, "sample": sample, "key": jax.random.key(2)}
for name, rule in rules.items():
    trained = gradients.over_sequence(rule), optax.adam(4e-3), params, (rows, labels)
    fitted = training.fit(*trained, **options)  # uoro draws by the key, too
    smooth = np.convolve(fitted.values, np.ones(50) / 50, mode="valid")
    panel.plot(np.arange(50, 50 + len(smooth)), smooth, label=name)
    print(f"{name:5} {smooth[-1]:.2f} nats at the end")
panel.axhline(np.log(10), color="black", ls=":", lw=0.8)
panel.set(xlabel="batches seen", ylabel="loss after the last row (nats)")
panel.legend()
plt.show()

# %% [markdown]
# ## What this does not show
#
# - The sequences have 8 steps. On longer ones, the biased rules may lose more.
# - One learning rate and one start are no benchmark: see `experiments/online`.
# - Parameters change only between digits. If they change within a sequence (`update=`),
#   M contains terms of older parameters, and no rule is exact.

# %% [markdown]
# ## Exercises
#
# **1.** Measure `eprop` for other leaks than 0.8. What does the warning at 0 say?
#
# <details><summary>Solution</summary>
#
# ```python
# for LEAK in (0.0, 0.4, 0.8, 1.0):  # the step reads this global variable
#     rule = gradients.eprop(step, loss, visible=lambda carry: carry["z"])
#     print(LEAK, diagnostics.gradient_quality(rule, *args).total.cosine)
# ```
#
# With 0, nothing goes through v, and e-prop looks back one step only. From 0.4 on, the
# cosine grows with the leak, because more of the influence goes through v.
# </details>
#
# **2.** In which network is `snap` of order 1 exact? Build one, and show it.
#
# <details><summary>Solution</summary>
#
# In a network whose units do not read each other. The bias is a rounding error.
#
# ```python
# def alone(params, carry, x):
#     own = params["recurrent"] * jnp.eye(UNITS)
#     return step({**params, "recurrent": own}, carry, x)
#
# rule = gradients.snap(alone, loss, order=1)
# print(diagnostics.gradient_quality(rule, alone, *args[1:]).table())
# ```
# </details>
