"""Your own data: CSV, WAV, text and MIDI.

Four kinds of files, each read by a short function into arrays for a gradient rule,
and then learned by the same small network. Replace the names of the files by yours.

Time: about one minute on two CPU cores. Data: sunspot numbers, a text and a melody,
which this notebook writes itself. The recordings are sixty spoken digits (337 kB),
which are downloaded and checked; without a network, the notebook makes tones instead.
"""

# %% [markdown] tags=["generated"]
# # 11 · Your own data: CSV, WAV, text and MIDI
#
# [![Open in Colab][badge]][colab]
#
# Four kinds of files, each read by a short function into arrays for a gradient rule,
# and then learned by the same small network. Replace the names of the files by yours.
#
# Time: about one minute on two CPU cores. Data: sunspot numbers, a text and a melody,
# which this notebook writes itself. The recordings are sixty spoken digits (337 kB),
# which are downloaded and checked; without a network, the notebook makes tones instead.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [colab]: https://colab.research.google.com/github/bpvariants/bpvariants/blob/main/notebooks/11_your_own_data.ipynb

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
    "mido": "mido",
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
# ## What a rule needs
#
# All gradient rules take the same arrays. T is the number of time steps, B of examples:
#
# | argument | shape | meaning |
# |---|---|---|
# | `xs`, `targets` | [T, B, …] | inputs, and what the loss compares with outputs |
# | `weights` | [T, B] | how much each loss counts; 0 where a target is missing |
# | `mask` | [T, B] | False in padding, after the end of a shorter example |
#
# One network reads everything: a GRU (gated recurrent unit) with a linear readout.

# %%
import base64
import hashlib
import os
import pathlib
import tempfile
import urllib.request
import zipfile
import zlib
from pydoc_data.topics import topics

import jax.numpy as jnp
import matplotlib.pyplot as plt
import mido
import numpy as np
import optax
from scipy.io import wavfile

from bpvariants import cells, gradients, training, updates

plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 2.6)})
folder = pathlib.Path(tempfile.mkdtemp())  # for the example files


def step(params, h, x):
    h, y = cells.gru(params["gru"], h, x)
    return h, y @ params["out"] + params["bias"]


def make(inputs, outputs, units=32):
    gru = cells.gru.init(jax.random.key(0), inputs, units, dtype=DTYPE)
    out = jax.random.normal(jax.random.key(1), (units, outputs), DTYPE) / units**0.5
    return {"gru": gru, "out": out, "bias": jnp.zeros(outputs, DTYPE)}


def start(params, batch):
    return cells.gru.carry(params["gru"], (batch,))


# %% [markdown]
# ## CSV: a table in order of time
#
# The columns are the year and its sunspot number (NOAA, public domain). Five numbers
# became question marks, because real tables have gaps. NumPy reads them as NaN.

# %%
SUNSPOTS = """
30.1 23.9 15.6 6.6 4 1.8 8.5 16.6 36.3 49.6 64.2 67 70.9 47.8 27.5 8.5 13.2 56.9 121.5
138.3 103.2 85.7 64.6 36.7 24.2 10.7 15 40.1 61.5 98.5 124.7 96.3 ? ? ? 39 20.6 6.7 4.3
22.7 54.8 93.8 95.8 77.2 59.1 44 47 30.5 16.3 7.3 37.6 74 139 111.2 101.6 66.2 44.7 17
11.3 12.4 3.4 6 32.3 54.3 59.7 63.7 63.5 52.2 25.4 13.1 ? 6.3 7.1 35.6 73 85.1 78 64
41.8 26.2 26.7 12.1 9.5 2.7 5 24.4 42 63.5 53.8 62 48.5 43.9 18.6 5.7 3.6 1.4 9.6 47.4
57.1 103.9 80.6 63.6 37.6 26.1 14.2 5.8 16.7 44.3 63.9 69 ? 64.9 35.7 21.2 11.1 5.7 8.7
36.1 79.7 114.4 109.6 88.8 67.8 47.5 30.6 16.3 9.6 33.2 92.6 151.6 136.3 134.7 83.9
69.4 31.5 13.9 4.4 38 141.7 190.2 184.8 159 112.3 53.9 37.6 27.9 10.2 15.1 47 93.8
105.9 105.5 104.5 66.6 68.9 38 34.5 15.5 12.6 27.5 92.5 155.4 154.6 140.4 115.9 66.6
45.9 17.9 13.4 29.4 100.2 157.6 142.6 145.7 94.3 54.6 29.9 17.5 8.6 21.5 64.3 93.3
119.6 111 104 63.7 40.4 29.8 15.2 7.5 2.9
"""
lines = [f"{year},{number}" for year, number in enumerate(SUNSPOTS.split(), 1818)]
folder.joinpath("sunspots.csv").write_text("\n".join(["year,sunspots", *lines]))

table = np.genfromtxt(folder / "sunspots.csv", np.float32, delimiter=",", skip_header=1)
print(table[31:34].tolist())

# %% [markdown]
# Scale by the training years alone; otherwise, the network knows the future. Give a
# missing input as 0, with a second input that says whether it is known. Give a missing
# target the weight 0. The network learns from the years to 1920, by Rprop on the full
# batch. The picture shows predictions of one year from all years before. The baseline,
# persistence, predicts the number of the year before. RMSE: root-mean-square error.

# %%
years, known = table[:, 0], ~np.isnan(table[:, 1])
past = years <= 1920
scale = table[past & known, 1].std()
scaled = table[:, 1] / scale
xs = np.stack([np.where(known, scaled, 0), known], -1)[:-1, None]  # [T, 1, 2]
xs = jnp.asarray(xs, DTYPE)
targets, weights = scaled[1:, None, None], jnp.float32((known & past)[1:, None])

squared = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)
params = make(2, 1, units=8)
rule, data = gradients.bptt(step, squared), (start(params, 1), xs, targets, weights)
trained = training.fit(rule, updates.rprop(0.01), params, data, steps=80)
_, predicted = gradients.unroll(step, trained.params, start(params, 1), xs)
predicted = np.asarray(predicted[:, 0, 0]) * scale
fig, ax = plt.subplots()
ax.plot(years, table[:, 1], label="measured", color="gray")
ax.plot(years[1:], predicted, ".", label="predicted one year before")
ax.axvspan(1920.5, years[-1], alpha=0.15, label="years not learned from")
ax.set(xlabel="year", ylabel="sunspot number", ylim=(-30, 260))
ax.legend(fontsize="small", ncols=3)
plt.show()
rmse = lambda guess: np.sqrt(np.nanmean((guess - table[1:, 1])[~past[1:]] ** 2))
errors = rmse(predicted), rmse(table[:-1, 1])
print("RMSE after 1920: network {:.0f}, persistence {:.0f}".format(*errors))


# %% [markdown]
# ## Text: characters in order
#
# The example is the help text of Python, written to a file. A text becomes indices of
# characters in an alphabet. `sample` draws 32 random windows of 64 characters for each
# update, on the device. The last tenth of the text is kept for a test.

# %%
folder.joinpath("help.txt").write_text("\n".join(topics.values()), "utf-8")
characters = list(folder.joinpath("help.txt").read_text("utf-8"))
alphabet, indices = np.unique(characters, return_inverse=True)
indices, cut = jnp.asarray(indices, jnp.int32), len(indices) * 9 // 10
size, cross_entropy = len(alphabet), optax.softmax_cross_entropy_with_integer_labels


def windows(places, indices):
    """Return start, inputs and targets of windows of 64 characters."""
    read = indices[places + jnp.arange(65)[:, None]]  # [65, B]
    xs = jax.nn.one_hot(read[:-1], size, dtype=DTYPE)
    return start(params, len(places)), xs, read[1:]


def sample(key, indices):
    return windows(jax.random.randint(key, (32,), 0, len(indices) - 65), indices)


params, rule = make(size, size, units=96), gradients.bptt(step, cross_entropy)
given = {"sample": sample, "key": jax.random.key(0), "steps": 300}
text = training.fit(rule, optax.adam(0.01), params, indices[:cut], **given)
test = windows(jnp.arange(0, len(indices) - cut - 65, 64), indices[cut:])
(value, _), _ = jax.jit(rule)(text.params, *test)
print(f"test: {value / np.log(2):.2f} bits per character, of {np.log2(size):.2f}")

# %% [markdown]
# ## WAV: recordings of different lengths
#
# The example has sixty recordings of one speaker, who says each digit six times. They
# are from the Free Spoken Digit Dataset (Z. Jackson and contributors, CC BY-SA 4.0).
# The cell finds them in the folder `BPVARIANTS_DATA`, or downloads them, and checks the
# sum of all bytes. Without a network, it makes sixty tones of ten pitches instead.

# %%
NAMES = [f"{digit}_nicolas_{take}.wav" for take in range(6) for digit in range(10)]
PLACE = "https://raw.githubusercontent.com/Jakobovski/free-spoken-digit-dataset"
PLACE += "/d6938f9bf1545aa66d8489fc9f1385a7abd64282/recordings/"
SHA256 = "e52a971b1809a42895155dc57d57a3606a05aca58c5cea4c442223276a5745be"


def download(name):
    return urllib.request.urlopen(PLACE + name, timeout=20).read()


def tone(name):
    time = np.arange(2000 + 30 * NAMES.index(name)) / 8000
    waves = np.sin(2 * np.pi * (400 + 200 * int(name[0])) * time)
    wavfile.write(folder / name, 8000, np.float32(waves))
    return folder.joinpath(name).read_bytes()


archive = pathlib.Path(os.environ.get("BPVARIANTS_DATA", ""), "fsdd/recordings.zip")
read = zipfile.ZipFile(archive).read if archive.exists() else download
try:
    files, kind = [read(name) for name in NAMES], "spoken digit"
    assert hashlib.sha256(b"".join(files)).hexdigest() == SHA256
except OSError as error:
    print("no recordings:", error)
    files, kind = [tone(name) for name in NAMES], "tone"
for name, content in zip(NAMES, files, strict=True):
    folder.joinpath(name).write_bytes(content)

# %% [markdown]
# `spectrogram` computes the loudness of 24 bands of frequencies every 16 ms. Recordings
# are padded to the longest one; the mask is False in the padding. The pictures show
# three recordings.


# %%
def read_wav(path):
    """Return the sampling rate and the samples [N], scaled to a peak of 1."""
    rate, samples = wavfile.read(path)  # PCM of 8 to 32 bits, or floats
    samples = samples - (128.0 if samples.dtype == np.uint8 else 0.0)
    samples = samples if samples.ndim == 1 else samples.mean(1)
    return rate, samples / np.abs(samples).max()


def spectrogram(rate, samples, bands=24):
    """Return the loudness of frequency bands, [T, bands]: one step every 16 ms."""
    hop = rate * 16 // 1000
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2 * hop)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(2 * hop))) ** 2
    parts = np.array_split(power[:, 1:], bands, axis=1)
    return np.log(np.stack([part.mean(1) for part in parts], 1) + 1e-3) / 4


sounds = [spectrogram(*read_wav(folder / name)) for name in NAMES]
lengths = jnp.array([len(sound) for sound in sounds])
mask = gradients.mask_from_lengths(lengths, int(lengths.max()))  # [T, 60]
xs = np.zeros((*mask.shape, 24), np.float32)
for i, sound in enumerate(sounds):
    xs[: len(sound), i] = sound
xs = jnp.asarray(xs, DTYPE)
labels = jnp.array([int(name[0]) for name in NAMES])
fig, axes = plt.subplots(1, 3, sharey=True)
for ax, i in zip(axes, (1, 6, 8), strict=True):
    end = len(sounds[i]) * 16
    ax.imshow(sounds[i].T, origin="lower", aspect="auto", extent=(0, end, 0, 4))
    ax.set(title=f"{kind} {labels[i]}", xlabel="time (ms)")
axes[0].set_ylabel("frequency (kHz)")
plt.show()

# %% [markdown]
# The network names the digit at every step; the answer is the mean of its outputs. The
# last two recordings of each digit are kept for a test.

# %%
part = lambda which: (start(params, len(labels[which])), xs[:, which])
train, test = slice(0, 40), slice(40, 60)
params, rule = make(24, 10), gradients.bptt(step, cross_entropy)
named = jnp.tile(labels, (len(mask), 1))
data = *part(train), named[:, train], None, mask[:, train]
sound = training.fit(rule, optax.adam(0.01), params, data, steps=150)
_, ys = gradients.unroll(step, sound.params, *part(test), mask=mask[:, test])
answers = jnp.where(mask[:, test, None], ys, 0).sum(0).argmax(-1)
print(f"test: {(answers == labels[test]).sum()} of 20 are named correctly")

# %% [markdown]
# ## MIDI: notes
#
# The example is the Ode to Joy (Beethoven, 1824) with a bass. The *piano roll* has a
# step for each eighth note; it is 1 where a key sounds.

# %%
JOY = """
eNrzDclIYWBgYGNgZGBiSPANKcpmYGD8wTDBwcGgAYjhtCOQBuIJzkDaGYmGicPU2QFpIJ5gA6RtkGiYOMLc
BCT1DEC6UQBNAW0stgNajFDHAKSBFiMrRNeA3SAGqAMYSFaH7lAY3xzkEPMBDIH/+gyQ+GeYwjDBwKEpoMEA
qEobxNAGMogRIU+KCMVAtwEA5/DO4A==
"""
folder.joinpath("joy.mid").write_bytes(zlib.decompress(base64.b64decode(JOY)))


def read_midi(path):
    """Return notes (start, end, key); times are in quarter notes."""
    file, notes = mido.MidiFile(path), []
    for track in file.tracks:
        now, began = 0, {}
        for event in track:
            now += event.time / file.ticks_per_beat
            if event.type in ("note_on", "note_off") and event.note in began:
                notes.append((began.pop(event.note), now, event.note))
            if event.type == "note_on" and event.velocity:
                began[event.note] = now
    return sorted(notes)


def piano_roll(notes, per_quarter=2):
    """Return [T, 128]: 1 where a key sounds."""
    roll = np.zeros((round(max(end for _, end, _ in notes) * per_quarter), 128))
    for first, end, key in notes:
        roll[round(first * per_quarter) : round(end * per_quarter), key] = 1
    return roll.astype(np.float32)


roll = piano_roll(read_midi(folder / "joy.mid"))
keys = np.flatnonzero(roll.any(0))
print(f"piano roll: {roll.shape}; {len(keys)} of the keys sound:", *keys)

# %% [markdown]
# The network learns to predict the next step of the first 96 steps, three of four
# phrases. Inputs that never change only dilute the others, so it reads the keys that
# sound. Each update sees the whole tune, so Rprop is a good choice.
#
# Then two questions are asked. Does it know the tune by heart? It reads one phrase, and
# continues by itself: its output becomes its next input, so a mistake has consequences.
# And does it predict phrase 4, which is new to it, but resembles phrase 2? Most single
# steps are right; the baseline predicts no change. By itself, the network goes astray.

# %%
PHRASE = 32
notes = jnp.asarray(roll[:, keys], DTYPE)[:, None]  # [T, 1, keys]
several_notes = lambda y, target: optax.sigmoid_binary_cross_entropy(y, target).sum(-1)
params, rule = make(len(keys), len(keys), units=64), gradients.bptt(step, several_notes)
data = start(params, 1), notes[:95], notes[1:96]
tune = training.fit(rule, updates.rprop(0.01), params, data, steps=200)


@jax.jit
def recall(params, heard, more):
    def one(state, _):
        h, x = state
        h, y = step(params, h, x)
        return (h, (y > 0).astype(DTYPE)), x

    h, ys = gradients.unroll(step, params, start(params, 1), heard)
    return jax.lax.scan(one, (h, (ys[-1] > 0).astype(DTYPE)), more)[1]


own = recall(tune.params, notes[:PHRASE], jnp.arange(len(notes) - PHRASE))
right = np.asarray((own == notes[PHRASE:]).all((1, 2)))
_, ys = gradients.unroll(step, tune.params, start(params, 1), notes[:-1])
one_step = np.asarray(((ys > 0) == notes[1:]).all((1, 2)))[95:]
same = np.asarray((notes[:-1] == notes[1:]).all((1, 2)))[95:]
fig, ax = plt.subplots()
for first, shown, height, label in (
    (0, notes, 0.9, "the file"),
    (PHRASE, own, 0.4, "the network, by itself"),
):
    times, pitches = np.nonzero(np.float32(shown[:, 0]))
    begins = (first + times) / 2
    ax.barh(keys[pitches], 0.5, height, left=begins, align="center", label=label)
ax.axvspan(48, len(notes) / 2, alpha=0.15, label="not learned from")
ax.set(xlabel="time (quarter notes)", ylabel="key (60: middle C)", ylim=(41, 75))
ax.legend(fontsize="small", ncols=3, loc="upper center")
plt.show()
print(f"by itself: {right[:64].mean():.0%} of the steps of phrases 2 and 3 are right")
print(f"phrase 4, one step ahead: {one_step.mean():.0%}, baseline {same.mean():.0%}")

# %% [markdown]
# ## Without programming
#
# The commands of a checkout compare networks with baselines, and save the best model.
#
# | file | command, after `python -m experiments` | answer |
# |---|---|---|
# | CSV, a series | `forecast --csv FILE --column NAME` | next rows, with intervals |
# | CSV, texts | `categorise --csv FILE --text NAME --label NAME` | class of a text |
# | text | `language --text FILE` | continuation |
# | MIDI | `music --midi FOLDER` | next notes |
#
# The next cell calls the first command from Python, for the sunspots up to 1996. Some
# methods compete, and the winner forecasts the next 12 years. Later, `experiments.load`
# asks the saved winner about a newer file. The picture shows both forecasts.

# %%
sys.path += checkouts
try:
    import experiments
    from experiments.applications.forecast.study import Config, main
except ImportError as error:
    print(f"This cell needs a checkout and its extra `experiments` ({error}).")
else:
    rows = folder.joinpath("sunspots.csv").read_text().splitlines()
    older, newer = folder / "to_1996.csv", folder / "sunspots.csv"
    older.write_text("\n".join(rows[:180]))
    quick = {"methods": ("bptt:adam",), "steps": 120, "looks": 12, "seeds": 1}
    main(Config(csv=str(older), column="sunspots", out=folder / "run", **quick))
    fig, ax = plt.subplots()
    ax.plot(*table[-60:].T, color="gray", label="measured")
    for file in (older, newer):
        answer = experiments.load(folder / "run").predict(file)
        value, low, high = answer.value.values.T
        ahead = 1817 + answer.value.rows + np.arange(1, 13)  # the first row is 1818
        (line,) = ax.plot(ahead, value, label=f"forecast from {ahead[0] - 1}")
        ax.fill_between(ahead, low, high, alpha=0.2, color=line.get_color())
    ax.set(xlabel="year", ylabel="sunspot number", title="forecasts, 90 % intervals")
    ax.legend(fontsize="small")
    plt.show()

# %% [markdown]
# ## What this does not show
#
# - Damaged files, which these readers do not check; and networks with more data.
# - Music: one tune, whose fourth phrase is nearly its second. `music --midi` tests
#   networks on pieces that they have not learned from.
# - Files that do not fit into memory: give `training.fit` an iterable of batches.
#
# ## Exercises
#
# **1.** How much of the tune does Adam learn in as many updates?
#
# <details><summary>Solution</summary>
#
# Less: most steps that it plays by itself are wrong. It needs several times as many.
#
# ```python
# slow = training.fit(rule, optax.adam(0.01), params, data, steps=200)
# own = recall(slow.params, notes[:PHRASE], jnp.arange(len(notes) - PHRASE))
# print((own == notes[PHRASE:]).all((1, 2))[:64].mean())
# ```
#
# </details>
#
# **2.** Put NaN into the padding of the recordings. Does the loss change?
#
# <details><summary>Solution</summary>
#
# No: inputs in padding are ignored.
#
# ```python
# params, rule = make(24, 10), gradients.bptt(step, cross_entropy)
# for padding in (0, np.nan):
#     padded = np.where(mask[..., None], xs, padding)
#     print(rule(params, start(params, 60), padded, named, mask=mask)[0][0])
# ```
#
# </details>
