"""Records of the ledger on Proben1, and the table in docs/proben1.md.

Both are computed from the published tables (experiments/resilient/
proben1_published.json) and from our runs (docs/ledger_records/proben1_runs.json), which
`enter` collects from folders of finished runs of the study `proben1`.
"""

import json
import math
import pathlib
import re
import statistics
from typing import Any

DOCS = pathlib.Path(__file__).resolve().parent
PUBLISHED = DOCS.parent / "experiments" / "resilient" / "proben1_published.json"
RUNS = DOCS / "ledger_records" / "proben1_runs.json"
PAGE = DOCS / "proben1.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
TITLES = {
    "3": "Table 3: linear networks, test error in %",
    "8": "Table 8: multilayer networks with all shortcuts, test error in %",
    "10": "Table 10: multilayer networks without shortcuts, test error in %",
}
SETTINGS = {
    "3": "Settings as the report states them, except that the update is Rprop⁻: see "
    "[Proben1](proben1.md).",
    "8": "The settings are inferred, and the update is Rprop⁻: see "
    "[Proben1](proben1.md).",
}
SETTINGS["10"] = SETTINGS["8"]
PAPER_RUNS = {"3": 10, "8": 60, "10": 60}
# The test of table 3, which trains by Rprop⁺.
TEST = "tests/experiments/resilient/test_proben1.py::test_table_3_is_reproduced"
TESTED = ("cancer1", "card1", "gene1", "heart1", "thyroid1")
NAMES = {"rprop_minus": "Rprop⁻", "rprop_plus": "Rprop⁺", "irprop_plus": "iRprop⁺"}
NAMES["irprop_minus"] = "iRprop⁻"
QUANTITIES = {  # {key: (name, largest rounding error of the published mean)}
    "test": ("test error", 0.005),
    "classification": ("misclassified %", 0.005),
    "total": ("epochs", 0.5),
    "relevant": ("epochs to the least validation error", 0.5),
    "gl": ("GL", 0.005),
}


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def groups() -> list[dict[str, Any]]:
    """Return the groups of the ledger for tables 3, 8 and 10."""
    published, runs = _read(PUBLISHED), _read(RUNS)
    found = []
    for table, title in TITLES.items():
        ours = runs.get(table, {}).get("rprop_minus", {"rows": {}})
        records = [
            _record(table, name, row["test"], ours)
            for name, row in published[f"table{table}"].items()
        ]
        source = f"Published: {published['source'].split('. Means')[0]}, table {table}."
        if table == "3":
            records.append(_MUSHROOM)
        found.append(
            {"title": title, "source": source, "records": records}
            | {"about": SETTINGS[table]}
        )
    return found


def _record(table: str, name: str, test: list[float], ours: dict) -> dict[str, Any]:
    mean, deviation = test
    record: dict[str, Any] = {"id": f"proben1-{table}-{name}", "what": name}
    record |= {"published": f"{mean:.2f} ({deviation:.2f})"}
    row = ours["rows"].get(name)
    command = f"python -m experiments proben1 --tables {table} --variants rprop_minus"
    if row is None and table == "3" and name in TESTED:
        tolerance = 2 * (deviation + 0.005) + 0.005
        record |= {"status": "reproduced", "test": TEST, "tolerance": tolerance}
        return record
    if row is None:
        why = f"`{command}` computes this row; no run of it was entered."
        return record | {"status": "not yet", "why": why}
    found = {"mean": row["test"][0], "sd": row["test"][1], "n": ours["runs"]}
    record |= {"value": mean, "sd": deviation, "ours": found, "command": command}
    record |= {"commit": ours["commit"]}
    limit = 2 * (deviation + 0.005) + 0.005
    if abs(found["mean"] - mean) <= limit * (1 + 1e-9):
        return record | {"status": "reproduced"}
    return record | {"status": "deviates", "why": _why(row, mean, limit)}


def _why(row: dict[str, Any], mean: float, limit: float) -> str:
    if abs(row["median"] - mean) <= limit:
        return "The median of our runs agrees; a few runs move the mean."
    difference = row["test"][0] / mean - 1
    side = "higher" if difference > 0 else "lower"
    return f"Our mean is {abs(difference):.1%} {side}. The cause is not known."


_MUSHROOM = {
    "id": "proben1-3-mushroom1",
    "what": "mushroom1",
    "published": "0.011",
    "status": "not attempted",
    "why": "The study has the 30 problems that are in tables 3, 8 and 10.",
}


def deviation(table: str, key: str, published: list[float], ours, runs: int) -> float:
    """Return our mean minus the published mean, in standard errors of the difference.

    Args:
      table: "3", "8" or "10", which decides the number of published runs.
      key: one of QUANTITIES.
      published: mean and standard deviation.
      ours: mean and standard deviation.
      runs: number of our runs.
    """
    theirs = (published[1] + QUANTITIES[key][1]) / math.sqrt(PAPER_RUNS[table])
    error = math.hypot(theirs, ours[1] / math.sqrt(runs))
    return (ours[0] - published[0]) / error


def enter(folders: list[pathlib.Path], commit: str) -> None:
    """Add the rows of finished runs of the study `proben1` to the file of our runs."""
    kept = _read(RUNS) if RUNS.exists() else {}
    for folder in folders:
        lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
        for row in map(json.loads, lines):
            variants = kept.setdefault(row["table"], {})
            new = {"commit": commit, "runs": len(row["test"]), "rows": {}}
            entry = variants.setdefault(row["variant"], new)
            same = {key: entry[key] for key in ("commit", "runs")}
            if same != {key: new[key] for key in same}:
                raise ValueError(f"{folder} has other runs than those entered: {same}")
            entry["rows"][row["set"]] = _summary(row)
    order = list(_read(PUBLISHED)["table3"])
    text = ["{"]
    for table in (table for table in TITLES if table in kept):
        text.append(f' "{table}": {{')
        for variant, entry in sorted(kept[table].items()):
            text.append(f'  "{variant}": {{"commit": "{entry["commit"]}",')
            text.append(f'   "runs": {entry["runs"]}, "rows": {{')
            rows = sorted(entry["rows"].items(), key=lambda item: order.index(item[0]))
            lines = [f'    "{name}": {json.dumps(row)}' for name, row in rows]
            text.append(",\n".join(lines))
            text.append("  }},")
        text[-1] = text[-1].rstrip(",")
        text.append(" },")
    text[-1] = text[-1].rstrip(",")
    RUNS.write_text("\n".join([*text, "}"]) + "\n", "utf-8")


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    digits = lambda x: float(f"{x:.6g}")
    found: dict[str, Any] = {
        key: [digits(statistics.fmean(row[key])), digits(statistics.stdev(row[key]))]
        for key in QUANTITIES
    }
    return found | {"median": digits(statistics.median(row["test"]))}


def table() -> str:
    """Return the table of docs/proben1.md: how far each variant is from the report."""
    published, runs = _read(PUBLISHED), _read(RUNS)
    if not runs:
        return "No runs are entered."
    header = ["table", "update", "problems", *(name for name, _ in QUANTITIES.values())]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for number in (number for number in TITLES if number in runs):
        for variant, entry in sorted(runs[number].items()):
            cells = [number, NAMES[variant], str(len(entry["rows"]))]
            for key in QUANTITIES:
                squares = [
                    deviation(
                        number,
                        key,
                        published[f"table{number}"][name][key],
                        row[key],
                        entry["runs"],
                    )
                    ** 2
                    for name, row in entry["rows"].items()
                ]
                cells.append(f"{math.sqrt(statistics.fmean(squares)):.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return the text of docs/proben1.md with its table as it is now."""
    block = f"{BEGIN}\n{table()}\n{END}"
    return re.sub(f"{BEGIN}.*?{END}", lambda _: block, text, flags=re.DOTALL)


def write_page() -> None:
    """Write the table in docs/proben1.md anew."""
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
