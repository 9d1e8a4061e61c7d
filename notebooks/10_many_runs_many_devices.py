"""Many runs, many devices.

Many seeds under one `vmap`, a sweep over learning rates, runs and batches divided
over eight devices, and a mistake in averaging gradients that is easy to make. On a
machine with one device, the notebook makes eight virtual CPU devices. The same cells
use all chips of a TPU.

Time: about one minute on two CPU cores. Data: handwritten digits, which come with
scikit-learn; nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 10 · Many runs, many devices
#
# [![Open in Colab][badge]][colab]
#
# Many seeds under one `vmap`, a sweep over learning rates, runs and batches divided
# over eight devices, and a mistake in averaging gradients that is easy to make. On a
# machine with one device, the notebook makes eight virtual CPU devices. The same cells
# use all chips of a TPU.
#
# Time: about one minute on two CPU cores. Data: handwritten digits, which come with
# scikit-learn; nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/10_many_runs_many_devices.ipynb

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
# ## Eight devices
#
# A machine with several accelerators needs no preparation. If there is only one device,
# the next cell asks JAX for eight virtual CPU devices. They share the cores of the
# machine, so they do not make anything faster. But programs for many devices run and
# can be tested. In your own programs, set `jax_num_cpu_devices` before the first array
# is made. Here, JAX has already started, so `clear_backends` first ends it.

# %%
import jax.extend.backend

devices = jax.devices()
if len(devices) == 1:
    jax.extend.backend.clear_backends()
    jax.config.update("jax_num_cpu_devices", 8)
    devices = jax.devices("cpu")
    jax.config.update("jax_default_device", devices[0])
print(f"{len(devices)} devices of the kind {devices[0].device_kind!r}")

# %% [markdown]
# The network reads a handwritten digit row by row, and names it after the last row.
# Axis 0 of the arrays is the row, axis 1 the digit. The function `draw` returns random
# params for a key.

# %%
import pathlib
import tempfile

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from bpvariants import gradients, training, updates

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6, 2.8)})
pictures, names = load_digits(return_X_y=True)
rows = jnp.asarray(pictures / 16, DTYPE).reshape(-1, 8, 8).swapaxes(0, 1)
labels = jnp.tile(jnp.asarray(names), (8, 1))
at_the_end = jnp.zeros(labels.shape).at[-1].set(1)  # only the last loss counts
loss = optax.softmax_cross_entropy_with_integer_labels
train, test = slice(0, 512), slice(1285, 1797)
start = jnp.zeros((512, 16), DTYPE)
data = start, rows[:, train], labels[:, train], at_the_end[:, train]


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


rule = gradients.bptt(step, loss)

# %% [markdown]
# ## Many seeds at once
#
# One training says little, because it depends on the random initial params. With
# `runs=16`, `training.fit` trains 16 networks together under `vmap`, from params with a
# first axis of 16. The picture shows the median and the range of their losses.
#
# No run affects another one. The printed difference compares run 0 with the same
# training on its own; it comes from rounding, since XLA may order sums differently.

# %%
several = jax.vmap(draw)(jax.random.split(jax.random.key(0), 16))
fig, ax = plt.subplots()
for name, update in (("Rprop", updates.rprop(0.01)), ("Adam", optax.adam(0.01))):
    result = training.fit(rule, update, several, data, steps=100, runs=16)
    low, middle, high = np.quantile(result.values, [0, 0.5, 1], axis=0)
    ax.semilogy(middle, label=f"{name}, median of 16 runs")
    ax.fill_between(range(100), low, high, alpha=0.25)
ax.set(xlabel="update", ylabel="training loss (nats)", ylim=(1e-6, 10))
ax.legend(fontsize="small")
plt.show()

alone = jax.tree.map(lambda leaf: leaf[0], several)
result_alone = training.fit(rule, optax.adam(0.01), alone, data, steps=100)
difference = np.abs(result.values[0] - result_alone.values).max()
print(f"run 0 among 16, and alone: losses differ by at most {difference:.0e}")

# %% [markdown]
# ## A sweep
#
# `training.sweep` trains every config with every seed. A config is a dict. Floats, such
# as `rate`, are traced: runs that differ only in floats and seeds share one compiled
# program. Strings and integers, such as `update`, are static: each of their values gets
# a program of its own. The runs of a program are divided over the devices, which
# exchange no data.

# %%
choices = {"SGD": optax.sgd, "Adam": optax.adam, "Rprop": updates.rprop}
held_out = rows[:, test], labels[:, test]


def make_run(config, key):
    params, update = draw(key), choices[config["update"]](config["rate"])

    def advance(state, t):
        params, opt_state = state
        (value, _), grads = rule(params, *data)
        change, opt_state = update.update(grads, opt_state, params)
        return (optax.apply_updates(params, change), opt_state), {"loss": value}

    def evaluate(state):
        _, ys = gradients.unroll(step, state[0], start, held_out[0])
        return {"accuracy": (ys[-1].argmax(-1) == held_out[1][-1]).mean()}

    return (params, update.init(params)), advance, evaluate


rates = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
configs = [{"update": name, "rate": rate} for name in choices for rate in rates]
file = pathlib.Path(tempfile.mkdtemp(), "runs.jsonl")
swept = training.sweep(
    make_run, configs, seeds=range(4), steps=100, devices=devices, path=file
)
for group in swept.groups:
    print(
        f"{group.static['update']:6} {group.runs} runs, {group.block} at a time: "
        f"{group.compile_seconds:.1f} s to compile, {group.seconds:.1f} s to run"
    )

# %% [markdown]
# The picture shows the test accuracy after 100 updates against the learning rate; for
# Rprop, this is the first step size. Lines are means of four seeds, dots are runs. A
# run that diverges ends by itself and has the status `diverged`; it is left out of the
# picture.

# %%
fig, ax = plt.subplots()
for name in choices:
    ended = [row for row in swept.rows if row["update"] == name]
    table = np.array([row["accuracy"] for row in ended]).reshape(len(rates), 4)
    mean = np.nanmean(table, axis=1)
    (line,) = ax.semilogx(rates, mean, label=name)
    ax.semilogx(rates, table, ".", color=line.get_color(), alpha=0.5)
    print(f"{name:6} is best at {rates[mean.argmax()]}: accuracy {mean.max():.2f}")
ax.set(xlabel="learning rate, or first step size", ylabel="test accuracy")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# Each row was appended to a file as soon as its run had ended. If a sweep is killed,
# the same call continues from the file. Here, all runs are in the file already, so the
# second call compiles and trains nothing.

# %%
again = training.sweep(
    make_run, configs, seeds=range(4), steps=100, devices=devices, path=file
)
print(f"{len(again.rows)} rows from the file, {len(again.groups)} programs compiled")

# %% [markdown]
# ## One run on many devices
#
# To train one network on several devices, divide the batch. Rules and updates contain
# no code for devices. A *mesh* gives the devices names. `P(None, "data")` says that
# axis 1 of an array, the digits, is divided over the mesh axis "data". The picture
# shows the first digit of each device's part.

# %%
mesh = jax.sharding.Mesh(np.array(devices), ("data",))


def place(tree, *axes):
    return jax.device_put(tree, jax.NamedSharding(mesh, jax.P(*axes)))


divided = place(data[0], "data"), *place(data[1:], None, "data")
fig, axes = plt.subplots(1, len(devices), figsize=(9, 1.6))
for ax, shard in zip(axes, divided[1].addressable_shards, strict=True):
    where = shard.index[1]
    ax.imshow(np.asarray(shard.data)[:, 0], cmap="gray_r")
    title = f"device {shard.device.id}\n{where.start or 0}–{where.stop - 1}"
    ax.set_title(title, fontsize="small")
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Under `jit`, XLA adds the communication between the devices. The gradient is that of
# one device up to rounding. The function `errors` returns the norm of the difference,
# relative to the norm of the gradient, for each array. A training on divided batches
# keeps them divided.


# %%
def errors(grads, exact):
    grads = jax.device_put(grads, devices[0])
    apart = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b), grads, exact)
    error = lambda name: apart[name] / jnp.linalg.norm(exact[name])
    return ", ".join(f"{name} {error(name):.0e}" for name in exact)


params = alone  # the first of the networks above
everywhere = place(params)  # each device has a copy of the params
(value, last), on_many = jax.jit(rule)(everywhere, *divided)
(_, _), on_one = jax.jit(rule)(params, *data)
print("the last carry is divided:", last.sharding.spec)
print("errors:", errors(on_many, on_one))

many = training.fit(rule, optax.adam(0.01), everywhere, divided, steps=50)
apart = abs(many.values - result_alone.values[:50]).max()
print(f"50 updates: losses differ by at most {apart:.0e}")

# %% [markdown]
# ## The params may be divided, too
#
# A large network does not fit on one device. Then the mesh gets a second axis. Here,
# columns of the weight matrices are divided over the axis "model". The rule is the
# same, and so is its gradient.

# %%
half = len(devices) // 2
by_two = np.array(devices[: 2 * half]).reshape(half, 2)
grid = jax.sharding.Mesh(by_two, ("data", "model"))
on_grid = lambda tree, *axes: jax.device_put(
    tree, jax.NamedSharding(grid, jax.P(*axes))
)
columns = on_grid(params, None, "model")
parts = on_grid(data[0], "data"), *on_grid(data[1:], None, "data")
with_model_axis = jax.jit(lambda *args: rule(*args)[1])(columns, *parts)
print("recurrent weights:", columns["recurrent"].sharding.spec, end=", ")
print("on each device", columns["recurrent"].addressable_shards[0].data.shape)
print("errors:", errors(with_model_axis, on_one))

# %% [markdown]
# ## A mistake that is easy to make
#
# Many programs compute a gradient on each device, and then average the gradients. This
# is right only if all devices have the same sum of loss weights. With sequences of
# different lengths, and one loss per step, they do not. Let L be the mean loss on one
# of the devices d, and W its sum of loss weights. The right mean is
#
# $$L = \frac{\sum_d W_d\,L_d}{\sum_d W_d}$$
#
# In the cell, digits are cut to 1 to 8 rows, and sorted by length, as batches often
# are. The table compares both averages with the gradient of one device.

# %%
lengths = jnp.sort(jax.random.randint(jax.random.key(3), (512,), 1, 9))
mask = gradients.mask_from_lengths(lengths, 8)  # [8, 512], False in padding


def averaged(weighted):
    def local(params, start, xs, targets, mask):
        (_, _), grads = rule(params, start, xs, targets, mask=mask)
        weight = mask.sum() if weighted else 1.0
        total = jax.lax.psum(weight, "data")
        scale = lambda leaf: jax.lax.psum(weight * leaf, "data") / total
        return jax.tree.map(scale, grads)

    return jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(jax.P(), jax.P("data"), *3 * [jax.P(None, "data")]),
            out_specs=jax.P(),
            check_vma=False,  # with True, JAX itself would sum the gradients
        )
    )


right = jax.jit(rule)(params, *data[:3], mask=mask)[1]
arguments = everywhere, *divided[:3], place(mask, None, "data")
ways = {
    "mean of means": averaged(weighted=False)(*arguments),
    "weighted by W": averaged(weighted=True)(*arguments),
    "plain jit": jax.jit(rule)(*arguments[:4], mask=arguments[4])[1],
}
for name, grads in ways.items():
    print(f"{name:14}", errors(grads, right))

# %% [markdown]
# ## What this does not show
#
# - Speed: virtual devices share the same cores. On real devices, measure; the page
#   "Many devices" of the documentation has a calculation for 256 chips.
# - Several processes: a TPU pod or a cluster runs one process per machine. See
#   `python -m experiments char_lm --distributed`.
# - That accuracies of a sweep hold for other tasks: learning rates were compared on
#   the digits on which the accuracy is reported.
# - Bit-identical results: another number of devices orders sums differently. Rprop uses
#   only signs, so two trainings may separate after a gradient near zero.
#
# ## Exercises
#
# **1.** A batch of 500 digits cannot be divided over eight devices. Pad it so that the
# gradient does not change.
#
# <details><summary>Solution</summary>
#
# Add 12 digits, and mark them as padding by a mask.
#
# ```python
# real = jnp.broadcast_to(jnp.arange(512) < 500, (8, 512))
# cut = data[0][:500], *(leaf[:, :500] for leaf in data[1:])
# exact = rule(params, *cut)[1]
# padded = jax.jit(rule)(everywhere, *divided, mask=place(real, None, "data"))[1]
# padded = jax.device_put(padded, devices[0])
# print({name: float(abs(padded[name] - exact[name]).max()) for name in exact})
# ```
#
# </details>
#
# **2.** Sweep over the number of hidden units, 8, 16 and 32, with Adam. How many
# programs are compiled?
#
# <details><summary>Solution</summary>
#
# Three: the number of units is an integer, so it is static.
#
# ```python
# def make_run(config, key):
#     units, update = config["units"], optax.adam(0.01)
#     shapes = {"in": (8, units), "recurrent": (units, units), "out": (units, 10)}
#     params = {name: jax.random.normal(jax.random.fold_in(key, i), shape) / 4
#               for i, (name, shape) in enumerate(shapes.items())}
#
#     def advance(state, t):
#         (value, _), grads = rule(state[0], jnp.zeros((512, units)), *data[1:])
#         change, opt_state = update.update(grads, state[1])
#         return (optax.apply_updates(state[0], change), opt_state), {"loss": value}
#
#     return (params, update.init(params)), advance
#
# sizes = [{"units": units} for units in (8, 16, 32)]
# result = training.sweep(make_run, sizes, seeds=range(4), steps=50)
# print(len(result.groups))
# print(result.table())
# ```
#
# </details>
