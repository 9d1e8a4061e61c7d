"""Learning that never stops: a stream, saved and resumed.

A network reads a text that does not end, and learns while it reads. It is interrupted
and continues as if nothing had happened. Then the text changes.

Time: about one minute on two CPU cores. Data: the help texts that come with Python;
nothing is downloaded.
"""

# %% [markdown] tags=["generated"]
# # 12 · Learning that never stops: a stream, saved and resumed
#
# [![Open in Colab][badge]][colab]
#
# A network reads a text that does not end, and learns while it reads. It is interrupted
# and continues as if nothing had happened. Then the text changes.
#
# Time: about one minute on two CPU cores. Data: the help texts that come with Python;
# nothing is downloaded.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/12_learning_that_never_stops.ipynb

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
# ## A stream
#
# A stream has no end, no epochs and no test set. Each part of it is seen once. Our
# stream is text: 16 readers start at different places of Python's help, and each reads
# 32 characters between two updates of the network. The function `windows` returns the
# inputs and targets of window k and of all later windows. The target is the next
# character.

# %%
import itertools
import pathlib
import tempfile
from pydoc_data.topics import topics

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from bpvariants import cells, gradients, training, updates

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (7, 2.8)})
text = "\n".join(topics[name] for name in sorted(topics))
ascii_codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
codes = np.clip(ascii_codes.astype(np.int32) - 31, 0, 95)  # 0 is a new line, 1 a space
READERS, WINDOW = 16, 32
places = np.arange(READERS) * (len(codes) // READERS)


def windows(first, cipher=None):
    """Return inputs and targets [32, 16] of window `first` and of all later windows."""
    for k in itertools.count(first):
        times = k * WINDOW + np.arange(WINDOW + 1)[:, None]
        read = codes[(places + times) % len(codes)]
        read = read if cipher is None else cipher[read]
        yield read[:-1], read[1:]


xs, targets = next(windows(10))
for reader in (0, 7):
    letters = "".join(chr(code + 31) for code in xs[:, reader]).replace(chr(31), "⏎")
    print(f"reader {reader} in window 10: {letters!r}")
print(f"{len(codes):,} characters, then it starts again")

# %% [markdown]
# ## A network that reads
#
# The network is a GRU (gated recurrent unit). A window is short, but the sequence is
# not. `truncated_bptt` goes back from every 16th character over the last 32. With a
# `gradients.stream` as the carry, the error signals also cross the borders of windows,
# so the gradients do not depend on where the stream is cut. A first call of the rule,
# on the window before window 0, gives the state of the stream its final shape.

# %%
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def step(params, h, x):
    h, y = cells.gru(params["gru"], h, jax.nn.one_hot(x, 96, dtype=DTYPE))
    return h, y @ params["out"]


keys = jax.random.split(jax.random.key(0))
params = {
    "gru": cells.gru.init(keys[0], 96, 64, dtype=DTYPE),
    "out": jax.random.normal(keys[1], (64, 96), DTYPE) / 8,
}
h = cells.gru.carry(params["gru"], (READERS,))
rule = gradients.truncated_bptt(step, cross_entropy, every=16, lookback=32)
(_, start), _ = rule(params, gradients.stream(h), *next(windows(-1)))
size = sum(leaf.size for leaf in jax.tree.leaves(params))
print(f"{size:,} params")

# %% [markdown]
# ## Test, then learn
#
# `training.fit` computes the loss of a window before it learns from the window. So the
# losses of a stream are a fair measure: each character is predicted before it has been
# used. We measure bits per character: a perfect predictor needs 0, and one that knows
# nothing about the 96 characters needs log₂ 96.
#
# The baseline counts pairs of characters in everything read so far, and predicts from
# the counts. In the picture, lines are means over ten windows.


# %%
def bits(losses):
    """Return bits per character, averaged over ten windows."""
    return np.convolve(losses, np.ones(10) / 10, "valid") / np.log(2)


def pair_counts(stream, steps):
    """Return the losses of a predictor that counts pairs of characters."""
    counts, losses = np.full((96, 96), 0.05), []
    for xs, targets in itertools.islice(stream, steps):
        losses.append(-np.log(counts[xs, targets] / counts[xs].sum(-1)).mean())
        np.add.at(counts, (xs, targets), 1)
    return np.array(losses)


STEPS = 600
settings = {"steps": STEPS, "chunk": 50, "carry": start}
whole = training.fit(rule, optax.adam(0.003), params, windows, **settings)
read = np.arange(5, STEPS - 4) * WINDOW * READERS / 1000  # middle of ten windows
fig, ax = plt.subplots()
ax.plot(read, bits(whole.values), label="GRU, learns while it reads")
ax.plot(read, bits(pair_counts(windows(0), STEPS)), label="counts of pairs")
ax.axhline(np.log2(96), linestyle=":", color="gray", label="knows nothing")
ax.set(xlabel="characters read (thousands)", ylabel="bits per character", ylim=(0, 7))
ax.legend(fontsize="small")
plt.show()
print(f"last 100 windows: {bits(whole.values)[-100:].mean():.2f} bits per character")

# %% [markdown]
# ## Interrupted and resumed
#
# A learner that never stops will be interrupted. With a `training.Checkpoint`, `fit`
# saves everything that the training needs: the params, the state of the update, the
# stream's state, the number of windows read, and the losses.
#
# In the next cell, a simulated power failure raises an error after window 300. The
# last checkpoint is from window 200, since we write one after every 200 windows. The
# second call continues from it.


# %%
class PowerFailureError(Exception):
    """Simulated interruption."""


def fail(step, metrics):
    """Raise an error after window 300; `fit` calls this log after each chunk."""
    if step == 300:
        raise PowerFailureError


folder = pathlib.Path(tempfile.mkdtemp(), "run")
saved = settings | {"checkpoint": training.Checkpoint(folder, every=200)}
try:
    training.fit(rule, optax.adam(0.003), params, windows, log=fail, **saved)
except PowerFailureError:
    step_reached, params_reached = training.read_checkpoint(folder, params)
    print(f"power failure; the checkpoint is from window {step_reached}")
resumed = training.fit(rule, optax.adam(0.003), params, windows, **saved)
print(f"resumed from window {resumed.resumed_from}, ended at {resumed.steps}")

# %% [markdown]
# Is the resumed training the same as one without interruption? Not only nearly: all
# losses, params and states are equal bit by bit. The function `windows` needs an index
# for this: `fit` asks it for window 200 and later, and no earlier window is read again.

# %%
pairs = {
    "losses": (whole.values, resumed.values),
    "params": (whole.params, resumed.params),
    "state of Adam": (whole.opt_state, resumed.opt_state),
    "state of the stream": (whole.carry, resumed.carry),
}
for name, (a, b) in pairs.items():
    equal = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), a, b)
    print(f"{name:20} equal bit by bit: {all(jax.tree.leaves(equal))}")
files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
kept = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
print(f"checkpoints of windows {kept}; together {sum(files) / 1e6:.1f} MB")

# %% [markdown]
# ## The stream changes
#
# Nothing guarantees that a stream stays as it is. Here, a secret code exchanges all
# characters in the second third of the stream. In the last third, the text is as
# before. Three learners meet the change:
#
# - *frozen*: it learns in the first third, and then no more;
# - *Adam*: it learns all the time;
# - *forgetting*: `updates.forgetting` steps along past gradients, discounted by λ = 0.9
#   per step. It also learns all the time.

# %%
THIRD = 300
code = np.random.default_rng(0).permutation(96)


def changing(first):
    """Return windows from `first` on: plain, coded from 300 on, plain from 600 on."""
    for k in itertools.count(first):
        yield next(windows(k, code if THIRD <= k < 2 * THIRD else None))


def frozen_later(k):
    """Return a learning rate of 0 after the first third."""
    return jnp.where(k < THIRD, 0.003, 0.0)


learners = {
    "frozen": optax.adam(frozen_later),
    "Adam": optax.adam(0.003),
    "forgetting": optax.chain(
        optax.clip_by_global_norm(1.0), updates.forgetting(0.1, decay=0.9)
    ),
}
settings["steps"] = 3 * THIRD
fig, ax = plt.subplots()
read = np.arange(5, 3 * THIRD - 4) * WINDOW * READERS / 1000
for name, update in learners.items():
    losses = training.fit(rule, update, params, changing, **settings).values
    ax.plot(read, bits(losses), label=name)
    third = losses.reshape(3, THIRD) / np.log(2)
    before, back = third[0, -50:].mean(), third[2, :10].mean()
    print(
        f"{name:10} {before:.2f} bits per character before the change, "
        f"{third[1, -50:].mean():.2f} at the end of the code, "
        f"{back:.2f} when the plain text is back"
    )
change = THIRD * WINDOW * READERS / 1000
ax.axvspan(change, 2 * change, color="gray", alpha=0.15, label="coded text")
ax.set(xlabel="characters read (thousands)", ylabel="bits per character")
ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Learning after every character
#
# With windows, the network learns every 32 characters. An online rule has a gradient at
# every step, so it can learn after each one. `diagonal_rtrl` is exact for cells whose
# units do not read each other's state, such as `cells.min_gru`, and takes little
# memory.
#
# The whole state of the online rule is the carry: with `keep_state=True`, `fit` passes
# it on from step to step, and would save it in a checkpoint. Now one reader reads 6000
# characters. The same network learns by windows of 32, and after each character. The
# loss of a window is the mean of its characters.

# %%
keys = jax.random.split(jax.random.key(1))
small = {
    "cell": cells.min_gru.init(keys[0], 96, 64, dtype=DTYPE),
    "out": jax.random.normal(keys[1], (64, 96), DTYPE) / 8,
}
carry = cells.min_gru.carry(small["cell"], (1,))


def read_one(params, h, x):
    h, y = cells.min_gru(params["cell"], h, jax.nn.one_hot(x, 96, dtype=DTYPE))
    return h, y @ params["out"]


def pieces(length):
    """Return a function of k: inputs and targets [length, 1] from piece k on."""

    def stream(first):
        for k in itertools.count(first):
            piece = codes[k * length : (k + 1) * length + 1, None]
            yield piece[:-1], piece[1:]

    return stream


online = gradients.diagonal_rtrl(read_one, cross_entropy)
each_character = gradients.over_sequence(online, keep_state=True)
first = online.init(small, carry, (codes[:1], codes[1:2]))
by_window = gradients.truncated_bptt(read_one, cross_entropy, every=32, lookback=32)
curves = {}
for name, rule_now, state, length in (
    ("after each character", each_character, first, 1),
    ("after 32 characters", by_window, carry, 32),
):
    steps = 6016 // length
    result = training.fit(
        rule_now,
        optax.adam(0.003),
        small,
        pieces(length),
        steps=steps,
        chunk=steps // 4,
        carry=state,
    )
    curves[name] = result.values.reshape(188, -1).mean(1)

fig, ax = plt.subplots()
for name, losses in curves.items():
    ax.plot(np.arange(5, 184) * 32 / 1000, bits(losses), label=f"learns {name}")
ax.set(xlabel="characters read (thousands)", ylabel="bits per character")
ax.legend(fontsize="small")
plt.show()
state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first))
print(f"state of the online rule: {state_bytes / 1000:.0f} kB, however long the stream")

# %% [markdown]
# ## What this does not show
#
# - Which update is best for changing streams: each learner has one learning rate and
#   one seed.
# - How to keep what was learned before a change. Networks forget; the last third of the
#   picture shows how much.
# - A stream from a device or a network: `windows` can compute any earlier window. If
#   yours cannot, store what was read since the last checkpoint, or accept the gap.
# - That learning after each character is better per second: it takes 32 times as many
#   updates for the same text.
# - A real `kill -9`: `python -m experiments kill_resume` does this.
#
# ## Exercises
#
# **1.** Do the error signals that cross the borders of windows matter? Compare the
# stream with a plain carry, at which error signals stop.
#
# <details><summary>Solution</summary>
#
# ```python
# for state in (start, cells.gru.carry(params["gru"], (READERS,))):
#     result = training.fit(
#         rule, optax.adam(0.003), params, windows, steps=200, chunk=50, carry=state
#     )
#     print(bits(result.values)[-50:].mean())
# ```
#
# The gradients differ, but the losses are close: with windows of 32 characters, most of
# what can be learned early is within a window.
# </details>
#
# **2.** `fit` refuses a checkpoint of a different training. Which of these changes does
# it notice: a larger network, another learning rate of Adam, another text?
#
# <details><summary>Solution</summary>
#
# Only the first: names, shapes and dtypes of all arrays are compared. Give other
# settings as `config`, and they are compared, too.
#
# ```python
# folder = pathlib.Path(tempfile.mkdtemp(), "run")
# for rate in (0.003, 0.001):
#     checkpoint = training.Checkpoint(folder, config={"rate": rate})
#     try:
#         training.fit(
#             rule, optax.adam(rate), params, windows,
#             steps=10, chunk=10, carry=start, checkpoint=checkpoint,
#         )
#     except ValueError as error:
#         print(error)
# ```
#
# </details>
