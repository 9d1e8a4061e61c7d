"""Study `char_lm`: a character model of Shakespeare, on many devices and processes.

    (value, (h, position)), grads = rule(θ, (h, position), streams)

The text is stored on the devices as B streams of L characters, [L, B]. For each update,
the network reads the next window of all streams, beginning at `position`. The carry h
continues from the previous window; gradients are propagated back to the beginning of
the window. The devices form a mesh with the axes "data" and "model". Streams are
sharded over the axis "data", and the units of the network over "model". The code
specifies shardings where arrays are created, and in `data_parallel`; XLA derives all
other shardings.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients, training
from experiments import data, report
from experiments.harness.devices import Machine
from experiments.harness.errors import DataError
from experiments.harness.options import above, at_least, at_quick_size
from experiments.harness.study import Study, telling
from experiments.scale import _char_lm_report
from experiments.scale._data_parallel import data_parallel

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Does training give the same result on one device and on many devices?"""

    QUICK = {
        "units": 64, "embedding": 16, "streams": 32, "window": 32, "steps": 200,
        "chunk": 50, "tested": 20_000,
    }  # fmt: skip
    CHECKS = {
        "units embedding streams window steps chunk tested": at_least(1),
        "learning_rate": above(0),
    }

    text: Literal["tinyshakespeare", "python_reference"] = "tinyshakespeare"
    """Text to train on: Tiny Shakespeare, which is downloaded once, or the help topics
    of the running Python."""
    cell: Literal["gru", "lstm"] = "gru"
    """Kind of the recurrent cell."""
    units: int = 256
    """Number of units of the recurrent cell."""
    embedding: int = 64
    """Size of the embedding of a character."""
    streams: int = 64
    """Number of parts of the text that are read in parallel, on all devices."""
    window: int = 64
    """Number of characters of each stream in a window; gradients are propagated
    back to the first character of the window."""
    steps: int = 1_000
    """Number of updates of the parameters."""
    chunk: int = 100
    """Number of updates between two lines of the log, and between two checkpoints."""
    learning_rate: float = 2e-3
    """Learning rate of Adam; the norm of gradients is clipped to 1."""
    remat: bool = True
    """Recomputation of each time step in the backward pass, which saves memory."""
    reduce: Literal["window", "step"] = "window"
    """Time at which gradients are summed over devices: once per window, or in each
    time step, as XLA does by default."""
    tested: int | None = None
    """Number of characters of the test text to score after each chunk; by default
    all."""
    seeds: int = 1
    """Must be 1, because one network is trained on all devices."""
    first_seed: int = 0
    """Seed of the initial weights of the network."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def check(self) -> None:
        """Check that `seeds` is 1."""
        if self.seeds != 1:
            raise ValueError(
                f"seeds must be 1, got {self.seeds}: one network is trained, on all "
                "devices. Choose other initial weights by first_seed."
            )


class Network(nn.Module):
    """A recurrent network that reads a text and predicts each next character."""

    config: Config
    symbols: int

    @nn.compact
    def __call__(self, carry, x):
        """Read a character x; return the new carry and logits of the next character."""
        config, dtype = self.config, jnp.dtype(self.config.machine.dtype)
        kind = nn.GRUCell if config.cell == "gru" else nn.LSTMCell
        types = {"dtype": dtype, "param_dtype": at_least_float32(dtype)}
        x = nn.Embed(self.symbols, config.embedding, name="embed", **types)(x)
        # Recurrent weights are drawn from a normal distribution, because orthogonal
        # matrices cannot be drawn shard by shard.
        normal = nn.initializers.lecun_normal()
        cell = kind(config.units, recurrent_kernel_init=normal, name="cell", **types)
        carry, h = cell(carry, x)
        y = nn.Dense(self.symbols, name="readout", **types)(h)
        return carry, y.astype(at_least_float32(dtype))


def at_least_float32(dtype: Any) -> Any:
    """Return the dtype of parameters and losses if a network computes in `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def main(config: Config) -> report.Result:
    """Train the network; print tables, and write results and a picture to a folder."""
    config = at_quick_size(config, **config.QUICK)
    with config.machine.computing():
        return _main(config)


def _main(config: Config) -> report.Result:
    mesh = config.machine.mesh()
    _check_sizes(config, mesh)
    folder = report.make_folder("char_lm", config.out, config.overwrite)
    with report.locked(folder), telling("char_lm", folder):
        if config.overwrite:
            report.clear(folder)
        return _train(config, mesh, folder)


def _train(config: Config, mesh: jax.sharding.Mesh, folder: Path) -> report.Result:
    start = time.perf_counter()
    checkpoints = _checkpoints(folder, config)
    report.write_config(folder, config)
    text = getattr(data, config.text)()
    streams = place_streams(text.train, config, mesh)
    test = place_streams(text.test[: config.tested], config, mesh)
    network = Network(config, len(text.alphabet))
    params, carry = place_network(network, config, mesh)
    score = jax.jit(partial(_bits, network.apply))

    def more(step, metrics):
        progress.advance(step)
        bits = float(metrics["value"]) / np.log(2)
        return {"bits": bits, "test_bits": score(metrics["params"], carry[0], test)}

    with report.Progress(1) as progress:
        progress.begin("training", config.steps)
        result = training.fit(
            make_rule(network.apply, config, mesh),
            optax.chain(
                optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate)
            ),
            params, (streams,), steps=config.steps, chunk=config.chunk, carry=carry,
            log=training.JsonLog(folder / "log.jsonl", more), checkpoint=checkpoints,
        )  # fmt: skip
    row = _char_lm_report.summary(config, mesh, streams, params, result)
    if not result.interrupted:  # an interrupted run gets its row when it is resumed
        report.append_row(folder, row)
    if report.writes():
        chunks = _char_lm_report.read_log(folder)
        with report.recording() as blocks:
            _char_lm_report.show(chunks, row, config, text)
            picture = _char_lm_report.draw(chunks, row, config)
            report.save_picture(folder, "char_lm", picture)
        report.write_page(
            folder, blocks, study="char_lm", config=config, seconds=result.seconds,
            interrupted=result.interrupted,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    report.say_where(folder, seconds, result.interrupted, "char_lm")
    return report.Result([row], folder, result.interrupted)


def _checkpoints(folder: Path, config: Config) -> training.Checkpoint:
    """Return the path of the checkpoints, and the options that must stay unchanged.

    Raises:
      DataError: if the folder has checkpoints, but the option `resume` is not set.
    """
    directory = folder / "checkpoints"
    begun = any(path.name.isdigit() for path in directory.glob("*"))
    if begun and not config.resume:
        raise DataError(
            f"{folder} holds checkpoints of a run that was not finished: add --resume "
            "to go on with it, --overwrite to start again, or choose another --out."
        )
    # Names of options that may have new values when the run is resumed.
    free = {"steps", "tested", "quick", "resume", "overwrite", "machine", "out"}
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in free
    }
    settings["dtype"] = config.machine.dtype
    return training.Checkpoint(directory, config=settings)


def _check_sizes(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Check that streams and units can be divided evenly over their mesh axes."""
    for name, axis in {"streams": "data", "units": "model"}.items():
        if getattr(config, name) % mesh.shape[axis]:
            raise DataError(
                f"--{name} must be a multiple of the {mesh.shape[axis]} devices that "
                f"they are divided over, got {getattr(config, name)}."
            )


def place_streams(
    text: np.ndarray, config: Config, mesh: jax.sharding.Mesh
) -> jax.Array:
    """Return a text as streams [L, B], sharded over the axis "data" of the mesh.

    Each process creates only the streams of its own devices.
    """
    length = len(text) // config.streams
    if length <= config.window:
        raise DataError(
            f"--window {config.window} is too long: each of {config.streams} streams "
            f"of a text of {len(text)} characters has {length}."
        )
    streams = text[: length * config.streams].reshape(config.streams, length)
    sharding = jax.NamedSharding(mesh, jax.P(None, "data"))
    shape = length, config.streams
    cut = lambda index: np.ascontiguousarray(streams[index[1], index[0]].T)
    return jax.make_array_from_callback(shape, sharding, cut)


def place_network(network: Network, config: Config, mesh: jax.sharding.Mesh):
    """Draw the parameters, and the initial pair (carry, position in the text).

    Each device draws its own shards of the arrays.
    """
    cell = nn.GRUCell if config.cell == "gru" else nn.LSTMCell

    def init(key):
        x = jnp.zeros(config.streams, int)
        carry = cell(
            config.units, param_dtype=jnp.dtype(config.machine.dtype), parent=None
        )
        carry = carry.initialize_carry(key, (config.streams, config.embedding))
        return network.init(key, carry, x), (carry, jnp.zeros((), int))

    def sharding(path, leaf):
        return jax.NamedSharding(mesh, _spec(jax.tree_util.keystr(path), leaf.ndim))

    key = jax.random.key(config.first_seed)
    layout = jax.tree.map_with_path(sharding, jax.eval_shape(init, key))
    return jax.jit(init, out_shardings=layout)(key)


def _spec(path: str, ndim: int) -> Any:
    """Return the partition spec of a parameter, or of an array in the carry."""
    if path.startswith("[1]"):  # [1] is the pair (carry, position in the text)
        return jax.P("data", "model") if ndim else jax.P()
    if "cell" in path:  # arrays whose last axis has an element for each unit
        return jax.P(*[None] * (ndim - 1), "model")
    return jax.P("model") if "readout" in path and ndim == 2 else jax.P()


def make_rule(step: Any, config: Config, mesh: jax.sharding.Mesh) -> Any:
    """Return a gradient rule for the next window of all streams.

    The rule is (θ, (h, position), streams) -> ((value, (h, position)), grads).
    """
    remat = "step" if config.remat else None
    rule = gradients.bptt(step, cross_entropy, remat=remat)
    if config.reduce == "window":
        rule = data_parallel(rule, mesh)

    def next_window(params, carry, streams):
        h, position = carry
        size = config.window + 1
        window = jax.lax.dynamic_slice_in_dim(streams, position, size)
        h = jax.tree.map(lambda leaf: jnp.where(position == 0, 0 * leaf, leaf), h)
        (value, h), grads = rule(params, h, window[:-1], window[1:])
        position = position + config.window
        again = position + size > len(streams)
        return (value, (h, jnp.where(again, 0, position))), grads

    return next_window


def _bits(step, params, carry, streams) -> jax.Array:
    """Return the mean loss over whole streams, in bits per character."""
    start = jax.tree.map(jnp.zeros_like, carry)

    def body(h, pair):
        h, y = step(params, h, pair[0])
        return h, cross_entropy(y, pair[1])

    losses = jax.lax.scan(body, start, (streams[:-1], streams[1:]))[1]
    return jnp.mean(losses) / jnp.log(2)  # losses are summed over devices only here
