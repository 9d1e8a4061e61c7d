"""Tests of the study memory_time, run at a small size."""

import pytest

from experiments.through_time import memory_time


def test_it_measures_what_it_predicts(tmp_path, plain_jax, check_run, capsys):
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
    shown = " ".join(capsys.readouterr().out.split())
    assert "slope of memory" in shown
    assert "Least memory at T = 128: " in shown
    assert "Memory grows as T to the power of" in shown
    check_run(result, tmp_path, ["memory_time"])


def test_only_the_lost_measurement_is_made_again(tmp_path, plain_jax):
    config = memory_time.Config(
        lengths=(4,), batch=2, inputs=2, units=2, growth=(4, 8), repeats=2, out=tmp_path
    )
    with plain_jax():
        rows = memory_time.main(config).rows
        path = tmp_path / "results.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        resumed = memory_time.main(memory_time.Config(out=tmp_path, resume=True)).rows
    assert resumed[:-1] == rows[:-1]
    for policy in ("None", "slots(√T)"):
        assert resumed[-1][policy]["mib"] == rows[-1][policy]["mib"]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="growth must be at least 4 steps each"):
        memory_time.Config(growth=(3,))
    with pytest.raises(ValueError, match=r"seeds must be 1, because .* Got 2"):
        memory_time.Config(seeds=2)
