"""Tests of the study chain_rule, which must agree with `jax.grad`."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.errors import DataError
from experiments.static import _chain_rule_report, chain_rule


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def check(result, pictures):
    """Check that results.jsonl has the rows of a run and that no picture is empty."""
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for picture in pictures:
        assert (result.folder / f"{picture}.png").stat().st_size > 10_000


def test_chain_rule(tmp_path, capsys):
    config = chain_rule.Config(hidden=3, out=tmp_path)
    result = chain_rule.main(config)
    check(result, ["chain", "factors"])
    # The study restores the x64 setting of JAX.
    assert jnp.zeros(1).dtype == jnp.float32
    of = lambda kind: [row for row in result.rows if row["row"] == kind]
    assert len(of("layer")) == len(of("weight")) == 2
    for row in of("layer"):
        assert row["by hand"] < 1e-14
        assert row["jax.grad"] < 1e-14
        assert 0 < row["differences"] < 1e-8
    for row in of("weight"):
        product = row["error"] * row["slope"] * row["input"]
        assert abs(product) > 1e-3
        for way in ("by hand", "backprop", "jax.grad"):
            assert row[way] == pytest.approx(product, rel=1e-12)
        assert row["differences"] == pytest.approx(product, rel=1e-7)
    (total,) = of("paths")
    assert total["error"] == pytest.approx(total["sum"], rel=1e-12)
    assert total["unit"] == of("weight")[0]["to"]
    printed = capsys.readouterr().out
    assert "layer shapes   ‖y‖" in printed
    assert "same gradient up to rounding: relative differences" in printed
    exact = max(row["jax.grad"] for row in of("layer"))
    exact = max([exact, *(row["by hand"] for row in of("layer"))])
    assert f"are at most {exact:.0e}" in " ".join(printed.split())
    numbers = ["24.7041", "138.8338", "645.5773"]
    for way in ("backprop", "jax.grad", "published"):
        assert [f"{row[way]:.4f}" for row in of("micrograd")] == numbers
    assert all(number in printed for number in numbers)
    check_picture(config, result.rows, of("layer"), printed)
    check_resume(config, result)


def check_picture(config, rows, layers, printed):
    """Check that the picture of the network has the numbers of the printed table."""
    with chain_rule._precision(config):
        params, x, target = chain_rule._problem(config)
        (_, info), _ = chain_rule._backprop(params, x, target)
        figure = _chain_rule_report.draw_chain(rows, info, np.asarray(x))
    texts = {text.get_text() for text in figure.axes[0].texts}
    for row in layers:
        for name in ("error", "slope", "delta", "input", "grad"):
            number = f"{row[name]:.4g}"
            assert number in texts
            assert number in printed


def check_resume(config, result):
    """Resume a run that was killed after its first job; the rows must be the same."""
    path, picture = config.out / "results.jsonl", config.out / "factors.png"
    lines, drawn = path.read_text().splitlines(keepends=True), picture.read_bytes()
    path.write_text("".join(line for line in lines if '"digit"' in line))
    again = chain_rule.main(dataclasses.replace(config, resume=True))
    untimed = lambda row: row | {"wall_seconds": 0}
    assert list(map(untimed, again.rows)) == list(map(untimed, result.rows))
    assert picture.read_bytes() == drawn


def test_chain_rule_in_float32():
    config = chain_rule.Config(hidden=3, precision="float32")
    params, x, target = chain_rule._problem(config)
    others = chain_rule._other_gradients(params, x, target)
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {jnp.dtype("float32")}
    for layer in range(2):
        pair = (others[name][layer] for name in ("differences", "jax.grad"))
        assert 1e-7 < chain_rule._apart(*pair) < 0.1


def test_chain_rule_takes_digits_that_there_are(tmp_path):
    with pytest.raises(DataError, match="example must be less than the 1347 digits"):
        chain_rule.main(chain_rule.Config(example=1347, out=tmp_path))


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (chain_rule, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (chain_rule, {"example": -1}, "example must be at least 0, got -1"),
        (chain_rule, {"seeds": 2}, "seeds must be 1, got 2: this study shows one"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
