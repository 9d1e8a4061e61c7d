"""Tests of texts and pictures of results, of progress, and of the warning for Rprop."""

import builtins
import io
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

from bpvariants import training, updates
from bpvariants._tables import short
from bpvariants.training.loop import _progress

rule = jax.value_and_grad(lambda w, x: (jnp.sum((w - x) ** 2), None), has_aux=True)
SGD = optax.sgd(0.1)


def fit(**options):
    start = jnp.zeros((options["runs"], 2)) if "runs" in options else jnp.zeros(2)
    data = options.pop("data", (jnp.ones(2),))
    given = {"steps": 12, "chunk": 4} | options
    return training.fit(rule, options.pop("update", SGD), start, data, **given)


def make_run(config, key):
    return jax.random.normal(key), lambda w, t: (
        w - config["rate"] * w, {"loss": w**2}
    )  # fmt: skip


@pytest.fixture(scope="module")
def swept():
    configs = [{"rate": rate, "name": "a"} for rate in (0.01, 0.1, 3.0)]
    diverged = lambda metrics: metrics["loss"] > 1e3
    return training.sweep(make_run, configs, range(2), steps=40, diverged=diverged)


def test_a_fit_result_in_one_line():
    result = fit()
    assert repr(result).startswith("FitResult(12 steps, loss 2.000 → ")
    assert "\n" not in repr(result)
    assert len(repr(result)) < 160
    assert "stopped" not in repr(result)
    stopped = fit(stop=lambda step, metrics: True)
    assert "4 steps" in repr(stopped)
    assert "stopped: 'stop'" in repr(stopped)
    runs = fit(runs=3)
    assert repr(runs).startswith("FitResult(3 runs of 12 steps, mean loss 2.000 → ")


def test_a_fit_result_is_a_pytree_and_has_a_repr_while_traced():
    result = fit()
    texts = []

    def double(params, values):
        traced = result._replace(params=params, values=values)
        texts.append(repr(traced))
        return jax.tree.map(lambda leaf: 2 * leaf, traced.params)

    jax.jit(double)(result.params, result.values)
    assert "FitResult(params=float64[2], " in texts[0]
    assert "values=float64[12]" in texts[0]
    assert len(jax.tree.leaves(result)) == len(jax.tree.leaves(tuple(result)))
    shapes = jax.eval_shape(lambda values: result._replace(values=values).values, 0.0)
    assert repr(result._replace(values=shapes)).startswith("FitResult(params=")


def test_the_table_of_a_fit_result_has_the_first_and_the_last_step():
    result = fit()
    lines = result.table(3).splitlines()
    assert lines[0].split() == ["step", "loss"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "7", "12"]
    assert float(lines[3].split()[1]) == pytest.approx(result.values[-1], rel=1e-3)
    many = fit(runs=3).table().splitlines()
    assert many[0].split() == ["step", "mean", "loss", "lowest", "highest"]
    assert len(many) == 1 + 10 + len(result.table(1).splitlines()) - 2


def test_the_picture_of_a_fit_result_shows_its_losses():
    result, runs = fit(), fit(runs=3)
    axes = result.plot(Figure().subplots())
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), result.values)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), np.arange(1, 13))
    axes = runs.plot(Figure().subplots())
    assert len(axes.lines) == 4
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), runs.values[0])


def test_the_picture_and_the_words_of_a_sweep(swept):
    assert repr(swept).startswith("SweepResult(6 runs, 2 diverged, 4 finished, 1 prog")
    axes = swept.plot(Figure().subplots())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate", "loss")
    points, median = axes.lines[:2]
    losses = [row["loss"] for row in swept.rows if row["status"] != "diverged"]
    assert sorted(points.get_ydata()) == sorted(losses)
    assert list(median.get_xdata()) == [0.01, 0.1]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "2 of 6 diverged" in texts
    assert swept.plot(Figure().subplots(), "steps", "seed").get_xlabel() == "seed"
    assert swept.plot(Figure().subplots(), over="name").get_xlabel() == "name"
    with pytest.raises(ValueError, match=r"metric must be one of .*'loss'.* got 'acc'"):
        swept.plot(Figure().subplots(), "acc")
    with pytest.raises(ValueError, match=r"over must be one of .*'rate'.* got 'loss'"):
        swept.plot(Figure().subplots(), over="loss")
    with pytest.raises(ValueError, match="no rows"):
        swept._replace(rows=[]).plot(Figure().subplots())


def test_pictures_without_matplotlib_and_wrong_axes(monkeypatch, swept):
    with pytest.raises(ValueError, match="axes must be one Matplotlib axes"):
        swept.plot(Figure().subplots(2))
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    for result in (fit(), swept):
        with pytest.raises(
            ImportError, match=r"plot needs Matplotlib: pip .*table\(\)"
        ):
            result.plot()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(_progress.SECONDS, True, 0.0)
    result = fit(progress=True)
    text = sys.stderr.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    parts = text.strip().split("\r")
    assert parts[0] == "fit: 0 of 12 steps, compiling"
    assert [part.split()[1] for part in parts] == ["0", "4", "8", "12"]
    assert f"loss {short(result.values[-1])}, " in parts[-1]


def test_progress_in_a_file_is_few_lines(monkeypatch, capsys):
    fit(progress=True)
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0].startswith("fit: 4 of 12 steps, loss ")
    assert lines[-1].startswith("fit: 12 of 12 steps, loss ")
    assert len(lines) == 2
    assert "steps/s" in lines[0]
    fit()
    assert capsys.readouterr() == ("", "")


def test_progress_compiles_nothing_more_and_ends_with_an_error(capsys):
    traces = []

    def counted(w, x):
        traces.append(1)
        return rule(w, x)

    options = {"steps": 12, "chunk": 4}
    training.fit(counted, SGD, jnp.zeros(2), (jnp.ones(2),), **options)
    count = len(traces)
    training.fit(counted, SGD, jnp.zeros(2), (jnp.ones(2),), **options, progress=True)
    assert len(traces) == count
    capsys.readouterr()
    batches = [(jnp.ones(2),)] * 5 + [(jnp.array([jnp.nan, 1.0]),)] * 7
    with pytest.raises(training.NonFiniteError):
        fit(data=batches, progress=True)
    assert capsys.readouterr().err.startswith("fit: 4 of 12 steps, loss ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_times_in_words(seconds, text):
    assert _progress.clock(seconds) == text
    assert _progress.clock(float("nan")) == "?"


DRAWN = {
    "data": jnp.ones((4, 2)),
    "sample": lambda key, data: (data[0],),
    "key": jax.random.key(0),
    "steps": 1,
}


@pytest.mark.parametrize(
    ("update", "warned"),
    [
        (updates.rprop(0.1), True),
        (optax.chain(optax.clip(1.0), updates.irprop_plus(0.1)), True),
        (updates.rprop_plus(0.1, after=optax.clip(1.0)), True),
        (updates.grprop(0.1), True),
        (optax.rprop(0.1), True),
        (optax.partition({"a": updates.rprop(0.1)}, "a"), True),
        (updates.probabilistic_rprop(0.1), False),
        (updates.manhattan(0.1), False),
        (optax.MultiSteps(updates.rprop(0.1), 2), False),
        (SGD, False),
    ],
)
@pytest.mark.fast_rows(2)
def test_rprop_warns_if_batches_are_drawn(update, warned):
    with (
        warnings.catch_warnings(record=True) as found,
        jax.numpy_dtype_promotion("standard"),
    ):
        warnings.simplefilter("always")
        training.fit(rule, update, jnp.zeros(2), **DRAWN)
        data = DRAWN["data"][:1], DRAWN["data"]
        full = jax.value_and_grad(
            lambda w, x, y: (jnp.sum((w - x[0]) ** 2), None), has_aux=True
        )
        training.fit(full, update, jnp.zeros(2), data, steps=1)  # a full batch
    found = [each for each in found if "of the Rprop family" in str(each.message)]
    assert len(found) == warned
    for each in found:
        assert "updates.probabilistic_rprop" in str(each.message)
        assert each.filename == __file__
