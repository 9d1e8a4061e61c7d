"""Tests of timing: intervals of ratios, floors, and checks before timing."""

import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells
from experiments.benchmarks import _records, _tables, _works
from experiments.benchmarks._equal_error import tune
from experiments.harness.errors import DataError
from experiments.harness.floors import CALL, COPY, counts, Machine, PRODUCT, SIDE
from experiments.harness.noise import check_agreement, ratio_interval
from experiments.harness.timing import Foreign, Gauge, race, Work


def test_an_interval_covers_the_true_ratio_and_not_a_distant_one():
    draw = np.random.default_rng(0)
    load = draw.lognormal(sigma=0.5, size=60)  # affects all times of a round
    ours = load * draw.lognormal(sigma=0.05, size=60)
    theirs = 1.5 * load * draw.lognormal(sigma=0.05, size=60)
    low, high = ratio_interval([*theirs], [*ours])
    assert 1.2 < low < 1.5 < high < 1.9
    assert np.isnan(ratio_interval([1.0], [1.0, 2.0])).all()


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([1.0, 2.1], "of other differ from those of first by 4.5e-02"),
        ([1.0], r"have shape \(1,\), those of first \(2,\)"),
        ([1.0, np.nan], "differ"),
    ],
)
def test_different_results_are_not_timed(others, words):
    check_agreement({"first": [1.0, 2.0], "other": [1.0, 2.0001]}, 1e-4)
    with pytest.raises(ValueError, match=words):
        check_agreement({"first": [1.0, 2.0], "other": others}, 1e-4)


@pytest.mark.slow
def test_a_race_tells_cold_and_warm_times_floors_and_intervals():
    n, slept = 128, []
    a = jnp.ones((n, n), jnp.float32)
    sleep = lambda: slept.append(time.sleep(0.004 if len(slept) % 2 else 0.012))
    rows = race(
        "products",
        {"product": (lambda a: a @ a, (a,)), "sleep": Foreign(sleep)},
        repeats=5,
        work={"product": Work(2 * n**3, 12 * n**2)},
    )
    product, sleeping = rows
    assert 0 < product.floor_ms < 20 * product.ms
    assert product.flops >= 2 * n**3
    assert "GFLOP/s" in product.note
    assert (product.low, product.high) == (1, 1)
    assert sleeping.cold_ms >= 12 > sleeping.ms >= 4
    assert sleeping.low <= sleeping.ratio <= sleeping.high
    assert np.isnan(sleeping.floor_ms)
    assert np.isnan(sleeping.flops)


def test_a_floor_is_the_larger_time_of_copies_and_products_plus_calls():
    machine = Machine(2**20)
    times = {COPY: [3.0], PRODUCT: [9.0], CALL: [1.0]}
    floor = lambda work: machine.floor_ms(work, times)
    assert floor(Work()) == 1
    assert floor(Work(bytes=2**20, passes=5)) == 5 * 2 + 1
    assert floor(Work(flops=2 * SIDE**3, bytes=2**20, calls=2)) == 8 + 2 * 1


def test_the_speed_of_the_machine_is_measured_beside_other_timings():
    gauge = Gauge()
    for _ in range(2):
        gauge.measure()
    call = gauge.floor_ms(Work())
    assert 0 < call < gauge.floor_ms(Work(flops=2e12)) < 1e6
    assert "GFLOP/s" in gauge.describe()


@pytest.mark.slow
def test_counted_work_is_what_the_compiler_counts():
    length, batch, units = 4, 8, 64
    params = cells.tanh.init(jax.random.key(0), 48, units)
    h, xs = jnp.zeros((batch, units)), jnp.ones((length, batch, 48))

    def mean(params, h, xs):
        total = jnp.zeros(())
        for x in xs:
            h, y = cells.tanh(params, h, x)
            total = total + jnp.mean(y**2)
        return total

    run = _works.Run(params, length, batch, units)
    for function, work in ((mean, _works.outputs), (jax.grad(mean), _works.gradient)):
        counted = counts(jax.jit(function).lower(params, h, xs).compile()).flops
        # The compiler also counts elementwise operations, and the first step needs no
        # error signal at the carry before it.
        assert 0.9 < counted / work(run).flops < 1.1

    def layers(params, x):
        return jnp.sum(jnp.tanh(x @ params[0]) @ params[1])

    sizes = (32, 48, 64)
    params = [jnp.ones(pair) for pair in itertools.pairwise(sizes)]
    program = jax.jit(jax.grad(layers)).lower(params, jnp.ones((batch, 32))).compile()
    # The product of the last layer itself is not needed for the gradient of its sum.
    wanted = _works.layers(sizes, batch).flops - 2 * batch * 48 * 64
    assert 0.8 < counts(program).flops / wanted < 1.1


def test_the_work_of_online_rules_is_counted():
    n, d, batch = 4, 3, 5
    params = cells.tanh.init(jax.random.key(0), d, n)
    run = _works.Run(params, 7, batch, n)
    m, p = n * (d + n), n * (d + n + 1)
    each = {
        "rtrl": 2 * m + 2 * n**2 * p,
        "kf_rtrl": 2 * m + 2 * n**3,
        "uoro": 6 * m + 2 * n**2 + 2 * p,
        "snap, order 1": 2 * m + 4 * p,
    }
    for rule, flops in each.items():
        assert _works.online(rule, run).flops == 7 * batch * flops
    kept = _works.online("rtrl", run)
    assert (kept.bytes, kept.passes) == (8 * batch * n * p, 7)


def test_a_tolerance_is_the_loosest_that_reaches_the_error():
    for power in (0.5, 1.0, 2.0):
        tuned = tune(lambda tol, p=power: 3 * tol**p, 1e-4)
        assert 0.4e-4 < tuned.error <= 1e-4
        assert "no tolerance" not in tuned.note(1e-4)
    assert "although" in tune(lambda tol: 1e-3, 1e-4).note(1e-4)
    assert "no tolerance" in tune(lambda tol: 1e-6, 1e-4).note(1e-4)
    assert tune(lambda tol: np.nan if tol > 1e-3 else tol, 1e-2).error <= 1e-3


def row(name, ratio, low, high, group="g", job="bptt: g"):
    return {
        "job": job, "group": group, "name": name, "ms": 2.0, "ratio": ratio,
        "low": low, "high": high, "floor_ms": 1.0, "note": "a|b",
    }  # fmt: skip


def test_losses_beyond_noise_are_told(tmp_path, capsys):
    old = [row("ours", 1.0, 1.0, 1.0), row("a", 2.0, 1.9, 2.1), row("b", 2, 1.9, 2.1)]
    old += [row("c", 2.0, 1.9, 2.1), row("gone", 1, 0.9, 1.1)]
    new = [row("ours", 1.0, 1.0, 1.0), row("a", 1.8, 1.7, 1.95), row("b", 1, 0.9, 1.1)]
    new += [row("c", 3.0, 2.9, 3.1), row("new", 1, 0.9, 1.1)]
    path = _records.write(tmp_path, old)
    assert "commit" in json.loads(path.read_text())["versions"]
    found = _records.changes(_records.read(tmp_path), new)
    assert [change.name for change in found] == ["a", "b", "c"]
    assert [change.lost for change in found] == [False, True, False]
    assert [change.gained for change in found] == [False, False, True]
    _records.show_changes(found, path)
    out = " ".join(capsys.readouterr().out.split())
    assert "3 ratios compared: 1 losses, 1 gains" in out
    with pytest.raises(DataError, match="there is no"):
        _records.read(tmp_path / "other.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(DataError, match=r"is not the benchmarks\.json"):
        _records.read(tmp_path / "bad.json")


def test_tables_replace_what_stands_between_their_marks(tmp_path):
    page = tmp_path / "speed.md"
    marks = "<!-- benchmarks: {} -->\nold\n<!-- end of benchmarks: {} -->\n"
    page.write_text("# Speed\n" + marks.format(*["bptt"] * 2) + marks.format("x", "x"))
    rows = [row("ours", 1.0, 1.0, 1.0), row("torch", 2.0, 1.9, 2.1)]
    assert _tables.write_tables(page, rows) == ["bptt"]
    text = page.read_text()
    assert "| torch | 2 | 2.00 [1.90, 2.10] | 50% | a/b |" in text
    assert text.startswith("# Speed\n<!-- benchmarks: bptt -->\n| |")
    assert text.endswith(marks.format("x", "x"))
    assert text.count("old") == 1
    before = text.split("\nCommit")[0]
    _tables.write_tables(page, rows)
    assert page.read_text().split("\nCommit")[0] == before
    page.write_text("no marks")
    with pytest.raises(DataError, match="has no line"):
        _tables.write_tables(page, rows)
