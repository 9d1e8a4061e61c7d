"""The study of memory against time, at a small size."""

import json

import pytest

from experiments.through_time import memory_time


def test_it_measures_what_it_predicts(tmp_path, plain_jax, capsys):
    config = memory_time.Config(
        lengths=(128,), batch=2, inputs=2, units=8, growth=(8, 16), repeats=2,
        out=tmp_path,
    )  # fmt: skip
    with plain_jax():
        result = memory_time.main(config)
    policies = [row for row in result.rows if row["kind"] == "policy"]
    assert [row["policy"] for row in policies[:2]] == ["None", '"step"']
    assert [row["evaluations"] for row in policies[:2]] == [128, 256]
    for row in policies:
        assert row["mib"] > 0.9 * row["mib_predicted"]
        assert row["policy"] == "None" or row["mib_ratio"] < 0.6
    assert "slope of memory" in capsys.readouterr().out
    assert (tmp_path / "memory_time.png").stat().st_size > 10_000
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="growth must be at least 4 steps each"):
        memory_time.Config(growth=(3,))
