"""Tests of the ledger of published numbers: its records, and the pages made of them."""

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

from experiments.studies import STUDIES

ROOT = Path(__file__).parents[2]
ledger = importlib.import_module("docs.ledger")
proben1 = importlib.import_module("docs.ledger_proben1")
GOOD = {
    "id": "a", "what": "test error", "published": "19 (3)", "status": "reproduced",
    "value": 19, "sd": 3, "ours": {"mean": 22.0, "sd": 4.0, "n": 20},
    "command": "python -m experiments encoders", "commit": "35c77ad",
}  # fmt: skip


@cache
def records():
    return list(ledger.records())


@cache
def names_of_tests(path):
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_pages_are_those_that_the_command_writes():
    remedy = "run `python -m docs.ledger`"
    assert ledger.PAGE.read_text("utf-8") == ledger.page(), remedy
    text = proben1.PAGE.read_text("utf-8")
    assert text == proben1.with_table(text), remedy
    assert text.count(proben1.BEGIN) == text.count(proben1.END) == 1


def test_each_record_is_complete():
    for record in records():
        ledger.check(record)
    ids = [record["id"] for record in records()]
    assert len(set(ids)) == len(ids) > 400


def test_commands_and_tests_exist():
    for record in records():
        if "command" in record:
            words = record["command"].split()
            assert words[:3] == ["python", "-m", "experiments"], record["id"]
            assert words[3] in STUDIES, record["id"]
        if "test" in record:
            path, _, name = record["test"].partition("::")
            assert name in names_of_tests(path), record["test"]
        for name in re.findall(r"python -m experiments (\w+)", record.get("why", "")):
            assert name in STUDIES, record["id"]
        for test in re.findall(r"python -m pytest (\S+)`", record.get("why", "")):
            path, _, name = test.partition("::")
            assert name in names_of_tests(path), record["id"]


def test_pages_and_records_have_the_same_figures():
    quoted = [record for record in records() if "quoted" in record]
    assert len(quoted) > 25
    for record in quoted:
        page, text = record["quoted"]
        assert text in (ROOT / page).read_text("utf-8"), record["id"]
        numbers = [float(x) for x in re.findall(r"\d*\.?\d+", text)]
        ours = record["ours"]
        if "value" in ours:
            assert ours["value"] in numbers, record["id"]
        else:
            assert numbers == [ours["mean"], ours["sd"]], record["id"]


def test_a_good_record_passes():
    ledger.check(GOOD)
    ledger.check(GOOD | {"ours": {"mean": 27.0, "sd": 4.0, "n": 20}, "sd": 3.3})
    tested = {key: GOOD[key] for key in ("id", "what", "published", "status")}
    ledger.check(tested | {"test": "tests/a.py::test_b", "tolerance": 0.1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": "x"}, r"unknown fields \['notes'\]"),
        ({"published": None}, r"has no \['published'\]"),
        ({"status": "done"}, "unknown status 'done'"),
        ({"test": "tests/a.py::test_b"}, "both test and tolerance"),
        ({"command": None}, "without command, commit"),
        ({"commit": "now"}, "must name a commit by seven digits"),
        ({"status": "deviates"}, "needs why"),
        ({"ours": {"value": 27.0}}, "says reproduced, but its numbers say deviates"),
        ({"status": "not yet", "why": "x"}, "says not yet, but its numbers say repr"),
        ({"ours": None, "status": "deviates", "why": "x"}, "neither a figure nor"),
    ],
)
def test_wrong_records_are_refused(change, message):
    record = {key: x for key, x in (GOOD | change).items() if x is not None}
    with pytest.raises(ValueError, match=f"record a .*{message}"):
        ledger.check(record)


@pytest.mark.parametrize(
    ("published", "value", "sd", "want"),
    [
        ("30", 30, None, 0.3 + 0.5),
        (".0382", 0.0382, None, 0.000382 + 0.00005),
        ("5.3e-5", 5.3e-5, None, 5.3e-7 + 5e-7),
        ("3.52 (0.04)", 3.52, 0.04, 2 * (0.04 + 0.005) + 0.005),
    ],
)
def test_what_agreement_means(published, value, sd, want):
    record = {"published": published, "value": value, "sd": sd}
    assert ledger.allowed(record) == pytest.approx(want)
    assert ledger.allowed(record | {"tolerance": 7.0}) == 7


def test_intervals_are_those_of_student():
    low, high = ledger.interval({"mean": 10.0, "sd": 2.0, "n": 4})
    # The 97.5 % quantile of Student's t with 3 degrees of freedom is 3.182446.
    assert (low, high) == pytest.approx((10 - 3.182446, 10 + 3.182446))
    assert ledger.interval({"value": 10.0}) is None


def test_runs_of_proben1_are_entered(tmp_path, monkeypatch):
    monkeypatch.setattr(proben1, "RUNS", tmp_path / "runs.json")
    row = {"table": "3", "set": "cancer1", "variant": "rprop_minus"}
    row |= {key: [1.0, 2.0, 6.0] for key in proben1.QUANTITIES}
    other = row | {"set": "card1", "test": [10.61, 10.62, 10.6]}
    for name, rows in {"one": [other], "two": [row]}.items():
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in rows)
        (tmp_path / name / "results.jsonl").write_text(text)
    proben1.enter([tmp_path / "one"], "1234567")
    proben1.enter([tmp_path / "two"], "1234567")
    entry = json.loads((tmp_path / "runs.json").read_text())["3"]["rprop_minus"]
    assert list(entry["rows"]) == ["cancer1", "card1"]
    assert entry["rows"]["cancer1"]["test"] == pytest.approx([3, 7**0.5], rel=1e-5)
    assert entry["rows"]["cancer1"]["median"] == 2
    found = {record["id"]: record for record in proben1.groups()[0]["records"]}
    assert found["proben1-3-card1"]["status"] == "reproduced"
    assert found["proben1-3-cancer1"]["status"] == "deviates"
    assert found["proben1-3-cancer2"]["status"] == "not yet"
    for record in found.values():
        ledger.check(record)
    with pytest.raises(ValueError, match="has other runs than those entered"):
        proben1.enter([tmp_path / "two"], "7654321")


@pytest.mark.slow
def test_deviations_are_those_of_the_study():
    """Compare the statistics with those that the study prints under its tables."""
    study = importlib.import_module("experiments.resilient._proben1_report")
    values = [9.8, 10.1, 10.4, 10.2]
    for table in proben1.TITLES:
        for key in proben1.QUANTITIES:
            row = {"table": table, "published": {key: [9.9, 0.2]}, key: values}
            mine = [10.125, 0.25]  # mean and standard deviation of values
            got = proben1.deviation(table, key, [9.9, 0.2], mine, 4)
            assert got == pytest.approx(study.deviation(row, key))
