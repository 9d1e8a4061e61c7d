"""Task `language` of `compare`: a character model of Python's reference manual."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from bpvariants import gradients
from experiments import data
from experiments.baselines.ngrams import interpolated_ngrams
from experiments.compare.job import Job, Reference, Task

UNITS, EMBEDDING = 16, 8
LENGTH, BATCH = 32, 8  # time steps of a window of text, number of windows in a batch
TEST_STREAMS = 64
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def language(steps: int | None = None) -> Task:
    """Return the task `language` with its jobs (trainings).

    If `steps` is given, it is the number of updates of every job.
    """
    text = data.python_reference()
    train, test = jnp.asarray(text.train), jnp.asarray(text.test)
    symbols = len(text.alphabet)
    rules = {
        "bptt": gradients.bptt(_step, cross_entropy),
        "truncated_bptt(every=8, lookback=16)": gradients.truncated_bptt(
            _step, cross_entropy, every=8, lookback=16
        ),
        "truncated_bptt(every=4, lookback=4)": gradients.truncated_bptt(
            _step, cross_entropy, every=4, lookback=4
        ),
        "rtrl": gradients.over_sequence(gradients.rtrl(_step, cross_entropy)),
    }
    evaluate = lambda params: {
        "train nats": _nats(params, train[: len(test)]),
        "test nats": _nats(params, test),
    }
    init = partial(_init, symbols=symbols)
    jobs = [
        Job(
            kind="through time" if rule != "rtrl" else "forward in time",
            network=f"tanh RNN {UNITS}, windows of {LENGTH}",
            rule=rule,
            update="adam(0.01)",
            gradient=gradient,
            optimizer=optax.adam(0.01),
            init=init,
            data=train,
            sample=_sample,
            steps=steps or 300,
            evaluate=evaluate,
            batch=f"{BATCH} drawn",
        )
        for rule, gradient in rules.items()
    ]
    part = text.train[: len(text.test)]
    score = lambda given: interpolated_ngrams(text.train, given, symbols, 3)
    scores = zip((1, 2, 3), score(part), score(text.test), strict=True)
    references = [
        Reference(f"{order}-gram", {"train nats": train_nats, "test nats": test_nats})
        for order, train_nats, test_nats in scores
    ]
    return Task(
        name="language",
        title="A language model by character",
        about=f"The text of the Python language reference ({text.source}, "
        f"{len(train) + len(test):,} characters, {symbols} symbols), the last tenth "
        "for test. All rules see the same windows equally often. RTRL computes the "
        "gradient of BPTT forwards in time: the curves coincide, the costs differ. "
        "Training scores are for the first tenth of the text, test scores for the last "
        "tenth. The n-grams interpolate all lower orders, and are counted on the same "
        "nine tenths that the networks learn from.",
        value="training loss (nats per character)",
        score="test nats",
        measure="test loss, nats per character",
        higher_is_better=False,
        jobs=jobs,
        references=references,
    )


def _init(key: jax.Array, symbols: int):
    keys = jax.random.split(key, 4)
    normal = lambda key, *shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    return {
        "embedding": jax.random.normal(keys[0], (symbols, EMBEDDING)),
        "input": normal(keys[1], EMBEDDING, UNITS),
        "recurrent": normal(keys[2], UNITS, UNITS),
        "bias": jnp.zeros(UNITS),
        "readout": normal(keys[3], UNITS, symbols),
        "readout_bias": jnp.zeros(symbols),
    }


def _step(params, h, symbol):
    x = params["embedding"][symbol]
    h = jnp.tanh(h @ params["recurrent"] + x @ params["input"] + params["bias"])
    return h, h @ params["readout"] + params["readout_bias"]


def _sample(key: jax.Array, text: jax.Array):
    starts = jax.random.randint(key, (BATCH,), 0, len(text) - LENGTH)
    windows = text[starts[None] + jnp.arange(LENGTH + 1)[:, None]]  # [T + 1, B]
    return jnp.zeros((BATCH, UNITS)), windows[:-1], windows[1:]


def _nats(params, text: jax.Array) -> jax.Array:
    """Return the mean loss on a text that is cut into TEST_STREAMS parallel streams."""
    length = (len(text) - 1) // TEST_STREAMS
    cut = lambda offset: text[offset : offset + length * TEST_STREAMS]
    xs, targets = (cut(offset).reshape(TEST_STREAMS, length).T for offset in (0, 1))

    def body(h, inputs):
        symbol, target = inputs
        h, y = _step(params, h, symbol)
        return h, jnp.mean(cross_entropy(y, target))

    start = jnp.zeros((TEST_STREAMS, UNITS))
    return jnp.mean(jax.lax.scan(body, start, (xs, targets))[1])
