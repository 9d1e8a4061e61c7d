"""Task `memory` of `compare`: the first symbol of a sequence, asked for at its end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients
from experiments.compare.job import Job, Part, Reference, Task
from experiments.compare.kinds import FORWARD, TRUNCATED

UNITS, SYMBOLS = 8, 4
LENGTH, BATCH = 24, 16  # time steps of a sequence, number of sequences in a batch
JUDGED = 512  # number of sequences for validation, and for test
RATES = (0.01, 0.03)
LOOKBACKS = ((6, 12),)  # (every, lookback)
KEEP = 1.0  # initial bias of the update gate, with which the state changes slowly
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def memory(steps: int | None = None) -> Task:
    """Return the task `memory` with its jobs (trainings).

    If `steps` is given, it is the number of updates of every job.
    """
    rules = {"bptt": gradients.bptt(_step, cross_entropy)}
    rules |= {
        f"truncated_bptt(every={every}, lookback={lookback})": gradients.truncated_bptt(
            _step, cross_entropy, every=every, lookback=lookback
        )
        for every, lookback in LOOKBACKS
    }
    rules["rtrl"] = gradients.over_sequence(gradients.rtrl(_step, cross_entropy))
    judged = [draw(jax.random.key(seed), JUDGED) for seed in (1, 2)]
    evaluate = partial(_evaluate, *judged)  # one function, so it is compiled once
    jobs = [
        Job(
            kind="through time" if rule != "rtrl" else "forward in time",
            network=f"GRU {UNITS} over {LENGTH} steps",
            rule=rule,
            update="adam({rate:g})",
            gradient=gradient,
            optimizer=optax.chain(optax.scale_by_adam(), _own_rate()),
            init=_init,
            data=(),
            sample=lambda key, _: draw(key, BATCH),
            steps=steps or 300,
            evaluate=evaluate,
            batch=f"{BATCH} drawn",
            rates=RATES,
        )
        for rule, gradient in rules.items()
    ]
    chance = 100 / SYMBOLS
    return Task(
        name="memory",
        title="A long memory",
        about=f"A sequence has {LENGTH} random symbols, each one of {SYMBOLS}; the "
        "first is marked. After the last symbol, the network is asked for the marked "
        f"one, so it must remember it for {LENGTH - 1} steps. Only the last step has a "
        "loss. Sequences are drawn at random. For each rule, the learning rate is the "
        f"one of {', '.join(map(str, RATES))} with the highest accuracy on {JUDGED} "
        f"sequences for validation; scores are for {JUDGED} others.",
        value="training loss (cross entropy, nats)",
        score="test %",
        measure="test accuracy, %",
        higher_is_better=True,
        jobs=jobs,
        parts=[
            Part(TRUNCATED, lambda row: row.rule != "rtrl", by="rule"),
            Part(FORWARD, lambda row: row.rule in ("bptt", "rtrl"), by="rule"),
        ],
        references=[Reference("guessing", {"test %": chance})],
        unit=" %",
        limits=(0.0, 100.0),
        chance=chance,
    )


def draw(key: jax.Array, batch: int):
    """Draw sequences; return the first carry, inputs, targets and weights of losses.

    The inputs [T, B, SYMBOLS + 1] are one-hot symbols, and 1 at the first step.
    """
    symbols = jax.random.randint(key, (LENGTH, batch), 0, SYMBOLS)
    marks = jnp.zeros((LENGTH, batch, 1)).at[0].set(1.0)
    xs = jnp.concatenate([jax.nn.one_hot(symbols, SYMBOLS), marks], axis=-1)
    targets = jnp.broadcast_to(symbols[0], symbols.shape)
    last = jnp.zeros(symbols.shape).at[-1].set(1.0)
    return jnp.zeros((batch, UNITS)), xs, targets, last


def _init(key: jax.Array, rate: jax.Array):
    first, second = jax.random.split(key)
    gru = cells.gru.init(first, SYMBOLS + 1, UNITS)
    gates = gru["bias"].at[UNITS : 2 * UNITS].set(KEEP)
    return {
        "gru": gru | {"bias": gates},
        "readout": jax.random.normal(second, (UNITS, SYMBOLS)) / UNITS**0.5,
        "bias": jnp.zeros(SYMBOLS),
        "rate": jnp.asarray(rate, jnp.float32),  # learning rate, which is not trained
    }


def _step(params, h, x):
    h, y = cells.gru(params["gru"], h, x)
    return h, y @ params["readout"] + params["bias"]


def _own_rate() -> optax.GradientTransformation:
    """Return an update that multiplies by minus the learning rate in the params.

    With it, networks that are trained under one vmap have different learning rates. The
    gradient of the rate itself is 0, so Adam does not change the rate.
    """

    def update(updates, state, params=None):
        assert params is not None
        return jax.tree.map(lambda each: -params["rate"] * each, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _evaluate(validation, test, params):
    return {
        "validation": _accuracy(params, *validation),
        "test %": _accuracy(params, *test),
    }


def _accuracy(params, carry, xs, targets, weights) -> jax.Array:
    del weights  # only the last step counts
    ys = gradients.unroll(_step, params, carry, xs)[1]
    return 100 * jnp.mean(jnp.argmax(ys[-1], axis=-1) == targets[-1])


def chosen_rate(validation: np.ndarray) -> int:
    """Return the index of the learning rate with the highest mean validation score.

    Args:
      validation: scores [seeds, rates].
    """
    return int(np.argmax(np.nan_to_num(validation, nan=-np.inf).mean(axis=0)))
