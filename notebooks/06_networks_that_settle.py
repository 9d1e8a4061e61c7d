"""Networks that settle: recurrent backpropagation.

The exact gradient of a network whose state is iterated to a fixed point (Almeida and
Pineda, 1987), what makes the iteration fail, and how bpvariants tells you.

Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
with the package; nothing is fetched.
"""

# %% [markdown] tags=["generated"]
# # 06 · Networks that settle: recurrent backpropagation
#
# [![Open in Colab][badge]][colab]
#
# The exact gradient of a network whose state is iterated to a fixed point (Almeida and
# Pineda, 1987), what makes the iteration fail, and how bpvariants tells you.
#
# Time: about one minute on two CPU cores. Data: the digits of scikit-learn, which come
# with the package; nothing is fetched.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/06_networks_that_settle.ipynb

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
# ## A state that stops changing
#
# The input x of this network is constant. Its state h is replaced by f(θ, h, x), again
# and again, until it no longer changes: h* = f(θ, h*, x). The left picture shows six
# units, the right one the residual ‖f(h) − h‖ / ‖h‖. Its slope is the spectral radius ρ
# of J = ∂f/∂h at h* (dashed), the largest absolute eigenvalue of the Jacobian J.
# `gradients.fixed_point` iterates until the residual is small, and returns a report.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from bpvariants import diagnostics, gradients, training, updates

UNITS = 32
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, DTYPE), jnp.asarray(labels)


def f(params, h, x):
    return jnp.tanh(h @ params["recurrent"] + x @ params["input"])


def init(scale, key=0):
    keys = jax.random.split(jax.random.key(key), 3)
    normal = lambda key, m, n: jax.random.normal(key, (m, n), DTYPE) / m**0.5
    return {
        "recurrent": scale * normal(keys[0], UNITS, UNITS),
        "input": normal(keys[1], 64, UNITS),
        "readout": normal(keys[2], UNITS, 10),
    }


params, x, zeros = init(1.0), images[0], jnp.zeros(UNITS, DTYPE)
h, path = jax.lax.scan(lambda h, _: (f(params, h, x),) * 2, zeros, length=60)
J = jax.jacobian(f, 1)(params, h, x)
rho = float(np.abs(np.linalg.eigvals(np.asarray(J))).max())
residual = np.linalg.norm(np.diff(path, axis=0), axis=1)
residual /= np.linalg.norm(path[:-1], axis=1)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.plot(1 + np.arange(60), path[:, :6])
left.set(xlabel="iteration", ylabel="state h of six units")
right.semilogy(1 + np.arange(59), residual)
slope = residual[20] * rho ** (np.arange(59) - 20.0)
right.semilogy(1 + np.arange(59), slope, "--", color="black", lw=0.8)
right.set(xlabel="iteration", ylabel="residual", title=f"ρ = {rho:.2f}")
plt.show()
print(gradients.fixed_point(f, params, zeros, x, tol=1e-5).info)

# %% [markdown]
# ## The gradient: a second relaxation
#
# Let E be a loss, and b = ∂E/∂h at h*. From h* = f(θ, h*, x) follows dh* = J dh* +
# (∂f/∂θ) dθ. So the gradient needs the *adjoint* z, the solution of a linear equation,
# which another relaxation finds:
#
# $$z = J^\top z + b, \qquad z \leftarrow J^\top z + b, \qquad
# \frac{dE}{d\theta} = \Big(\frac{\partial f}{\partial\theta}\Big)^{\!\top} z.$$
#
# The adjoint relaxation settles where the forward one does, at the same rate. Below it
# is written by hand, with the gradient after each number K of steps. The picture shows
# the relative error of this gradient for three recurrent matrices; the reference is
# backpropagation through 200 iterations. K = 0 is called Jacobian-free backpropagation
# (JFB). `recurrent_backprop` does both relaxations, with the memory of a few states.
#
# The animation shows both relaxations for a small network.
#
# ![A state and its adjoint settle](../docs/images/animations/relaxation.gif)

# %%
square = lambda h, target: 0.5 * jnp.sum((h - target) ** 2, axis=-1)
target = jnp.linspace(-1, 1, UNITS, dtype=DTYPE)


@partial(jax.jit, static_argnames="steps")
def by_hand(params, h, steps=60):
    _, pull = jax.vjp(lambda params, h: f(params, h, x), params, h)
    b = h - target
    _, zs = jax.lax.scan(lambda z, _: (pull(z)[1] + b, z), b, length=steps)
    return jax.vmap(lambda z: pull(z)[0]["recurrent"])(zs)


def unrolled(params):
    h, _ = jax.lax.scan(lambda h, _: (f(params, h, x), None), zeros, length=200)
    return square(h, target)


norm = lambda a: np.linalg.norm(a, axis=(-2, -1))
error = lambda grads, exact: norm(grads - exact) / norm(exact)
rule = jax.jit(gradients.recurrent_backprop(f, square, tol=1e-6))
through_time = jax.jit(jax.grad(unrolled))
figure, panel = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for scale in (0.3, 0.6, 1.0):
    net = init(scale)
    exact = through_time(net)["recurrent"]
    (_, equilibrium), grads = rule(net, zeros, x, target)
    panel.semilogy(error(by_hand(net, equilibrium.h), exact), label=f"scale {scale}")
    print(f"recurrent_backprop, scale {scale}: {error(grads['recurrent'], exact):.0e}")
panel.set(xlabel="adjoint steps K", ylabel="relative error", ylim=(1e-7, 3))
panel.legend()
plt.show()
memory = lambda *args: diagnostics.memory_report(*args).temporaries
print(f"bytes of memory: backpropagation {memory(through_time, net)},", end=" ")
print(f"recurrent_backprop {memory(rule, net, zeros, x, target)}")

# %% [markdown]
# ## What fails, and what helps
#
# The iteration converges only if all eigenvalues of J are inside the unit circle. With
# damping τ, h ← (1 − τ) h + τ f(h), an eigenvalue μ becomes 1 − τ + τ μ. The picture
# shows f(h) = tanh(0.5 − 1.8 h). Undamped (left), it ends in a cycle of two states.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.6), layout="constrained")
line, one = np.linspace(-1, 1, 200), lambda h: np.tanh(0.5 - 1.8 * h)
for panel, tau in zip(panels, (1.0, 0.5), strict=True):
    damped = lambda h, tau=tau: (1 - tau) * h + tau * one(h)
    panel.plot(line, damped(line), color="C0")
    panel.plot(line, line, color="black", lw=0.8)
    h = -0.6
    for _ in range(20):
        panel.plot([h, h, damped(h)], [h, damped(h), damped(h)], color="C3", lw=0.9)
        h = damped(h)
    panel.set(xlabel="h", ylabel="next h", title=f"damping τ = {tau}", aspect="equal")
plt.show()

# %% [markdown]
# The table shows the evaluations of f by four solvers, for a network that contracts,
# one with eigenvalues below −1, and one with many outside the unit circle. `anderson`
# and `broyden` need no contraction, but nothing is guaranteed.

# %%
S = gradients.solvers
solvers = {
    "relaxation": S.relaxation(),
    "damping 0.5": S.relaxation(damping=0.5),
    "anderson": S.anderson(),
    "broyden": S.broyden(),
}
turned = -1.8 * jnp.eye(UNITS, dtype=DTYPE) + 0.1 * net["recurrent"]
networks = {
    "contracts": net,
    "oscillates": net | {"recurrent": turned},
    "chaotic": init(4.0),
}


@partial(jax.jit, static_argnames="name")
def solve(name, net):
    return gradients.fixed_point(f, net, zeros, x, solver=solvers[name]).info


print(f"{'':12}", *(f"{name:>12}" for name in solvers))
for name, other in networks.items():
    line = f"{name:12}"
    for solver in solvers:
        info = solve(solver, other)
        line += f" {info.steps if info.converged else 'failed':>12}"
    print(line)

# %% [markdown]
# ## How a failure is told
#
# Compiled code cannot raise an error, and a gradient at a state that has not settled
# looks like any other. So by default it is NaN, and the report says why. Here the
# relaxation is stopped after 5 evaluations. "ignore" is what most code does.

# %%
for policy in ("nan", "truncate", "ignore"):
    early = gradients.recurrent_backprop(f, square, max_steps=5, on_failure=policy)
    (_, equilibrium), grads = early(net, zeros, x, target)
    off = error(grads["recurrent"], exact)
    print(f"{policy:9} converged: {equilibrium.forward.converged}, error {off:.2f}")

# %% [markdown]
# ## A safeguard while training
#
# Training lets the recurrent matrix W grow, until some digit no longer settles. At the
# end of an optax chain, `updates.project_spectral_norm` keeps the largest singular
# value of W below a limit. Below 1, a tanh network always settles. `training.fit` stops
# the free network at its first NaN. The left picture shows the loss, the right one the
# evaluations until all test digits settle, at most 200.


# %%
def sample(key, data):
    x, label = jax.tree.map(lambda leaf: jax.random.choice(key, leaf, (64,)), data)
    return jnp.zeros((64, UNITS), DTYPE), x, label


train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
cross = optax.softmax_cross_entropy_with_integer_labels
readout = lambda params, h: h @ params["readout"]
limits = {"tol": 1e-4, "max_steps": 200}
rule = gradients.recurrent_backprop(f, cross, readout=readout, **limits)
only = {name: name == "recurrent" for name in params}
project = optax.masked(updates.project_spectral_norm(0.95), only)
adam = optax.adam(3e-3)
limits |= {
    "batch_ndim": 1,
    "init": jnp.zeros((len(test[0]), UNITS), DTYPE),
    "x": test[0],
}
settle = jax.jit(lambda params: gradients.fixed_point(f, params, **limits))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, update in {"free": adam, "projected": optax.chain(adam, project)}.items():
    seen = []

    def look(step, metrics, seen=seen):
        seen.append((step, int(settle(metrics["params"]).info.steps.max())))

    given = {"steps": 300, "chunk": 10, "sample": sample, "key": jax.random.key(1)}
    try:
        result = training.fit(rule, update, init(0.5), train, log=look, **given)
    except training.NonFiniteError as failure:
        print(f"not finite at step {failure.step}: {', '.join(failure.places)}")
        result = failure.result
    answers = readout(result.params, settle(result.params).h).argmax(-1)
    print(f"{name}: {result.steps} steps, {np.mean(answers == test[1]):.1%} right")
    left.semilogy(result.values, label=name)
    right.plot(*np.array(seen).T, label=name)
left.set(xlabel="training step", ylabel="loss (nats)")
right.set(xlabel="training step", ylabel="evaluations until\nall test digits settle")
left.legend()
plt.show()

# %% [markdown]
# ## What this does not show
#
# - One layer, and no times. `gradients.fixed_point` can be a layer of any network.
# - The limit 0.95 also limits memory; `gradients.jacobian_penalty` is softer.
# - If f has several fixed points, the start decides which one is found.
# - The tutorial's "recurrent backpropagation" is another method: `updates.forgetting`.

# %% [markdown]
# ## Exercises
#
# **1.** Which damping τ makes f(h) = 1 − 1.5 h settle? Predict it, then try.
#
# <details><summary>Solution</summary>
#
# Here μ = −1.5, and |1 − τ + τ μ| < 1 gives τ < 2 / (1 − μ) = 0.8.
#
# ```python
# for tau in (0.5, 0.7, 0.79, 0.81, 1.0):
#     linear = lambda params, h, x: 1 - 1.5 * h
#     print(tau, gradients.fixed_point(linear, 0.0, 0.0, 0.0, damping=tau).info)
# ```
# </details>
#
# **2.** Which `adjoint=` gives the error at K = 5 of the second picture?
#
# <details><summary>Solution</summary>
#
# ```python
# five = gradients.adjoints.neumann(5)
# rule = gradients.recurrent_backprop(f, square, adjoint=five, tol=1e-6)
# (_, equilibrium), grads = rule(net, zeros, x, target)
# print(error(grads["recurrent"], exact))
# print(error(by_hand(net, equilibrium.h), exact)[5])
# ```
# </details>
