"""Tables of measured ratios in Markdown, written into the pages of the documentation.

A page marks where the table of a benchmark belongs:

    <!-- benchmarks: NAME -->
    …
    <!-- end of benchmarks: NAME -->

Whatever stands between the marks is replaced by the table of the benchmark NAME. Marks
of benchmarks that were not run are left alone.
"""

import math
import re
from pathlib import Path

from experiments import report
from experiments.benchmarks._records import versions
from experiments.harness.errors import DataError
from experiments.harness.jobs import Row

MARKS = re.compile(
    r"(<!-- benchmarks: (?P<name>\w+) -->\n)(?P<body>.*?)"
    r"(<!-- end of benchmarks: (?P=name) -->)",
    re.DOTALL,
)
SAID = ("jax", "optax", "torch", "jaxopt", "optimistix", "braintrace")


def write_tables(page: Path, rows: list[Row]) -> list[str]:
    """Replace the tables of a page by those of a run; return the names replaced."""
    try:
        text = page.read_text()
    except OSError as error:
        raise DataError(
            f"--tables: {page} cannot be read: {error.strerror}."
        ) from error
    marks = [match["name"] for match in MARKS.finditer(text)]
    if not marks:
        raise DataError(
            f"--tables: {page} has no line <!-- benchmarks: NAME --> with its end."
        )
    of = {name: [row for row in rows if _benchmark(row) == name] for name in marks}
    found = [name for name in marks if of[name]]

    def replaced(match: re.Match) -> str:
        name = match["name"]
        body = table(of[name]) if of[name] else match["body"]
        return f"{match[1]}{body}{match[4]}"

    if report.writes():
        report.write_atomically(page, MARKS.sub(replaced, text))
    return found


def table(rows: list[Row]) -> str:
    """Return a Markdown table: an implementation a line, groups one after another."""
    lines = [
        "| | ms | ratio, 95 % interval | floor / time | note |",
        "|---|---|---|---|---|",
    ]
    group = None
    for row in rows:
        if row["group"] != group:
            lines.append(f"| **{row['group']}** | | | | |")
        group = row["group"]
        cells = [row["name"], f"{row['ms']:.3g}", ratio(row), share(row), row["note"]]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    found = versions()
    of = ", ".join(f"{name} {found[name]}" for name in SAID if name in found)
    lines += ["", f"Commit {found['commit']}, {found['devices']}, {of}."]
    return "\n".join(lines) + "\n"


def sentence(rows: list[Row]) -> str:
    """Say how many rows are slower and faster than the first rows of their groups."""
    firsts: set[str] = set()
    counts, faster, several = {"slower": 0, "same": 0, "unknown": 0}, [], 0
    for row in rows:
        if row["group"] not in firsts:
            firsts.add(row["group"])
            continue
        several += 1
        low, high = (row.get(name) or math.nan for name in ("low", "high"))
        if high < 1:
            faster.append(f"{row['name']} ({row['group']})")
        else:
            kind = "slower" if low > 1 else "same" if low <= 1 <= high else "unknown"
            counts[kind] += 1
    if not several:
        return "No implementation is compared with another."
    names = f" ({report.listed(faster)})" if 0 < len(faster) < 6 else ""
    said = (
        "Each row is compared with the first row of its group, by 95 % intervals. "
        f"Rows compared: {several}. Slower: {counts['slower']}. Faster: {len(faster)}"
        f"{names}. No difference: {counts['same']}."
    )
    return said + f" Without an interval: {counts['unknown']}." * bool(
        counts["unknown"]
    )


def ratio(row: Row) -> str:
    """Return a row's ratio with its 95 % interval; without it if there is none."""
    low, high = (row.get(name) or math.nan for name in ("low", "high"))
    told = "" if math.isnan(low + high) or low == high else f" [{low:.2f}, {high:.2f}]"
    return f"{row['ratio']:.2f}{told}"


def share(row: Row) -> str:
    """Return which share of a row's time the floor is; "" if no floor is known."""
    floor = row.get("floor_ms") or math.nan
    return "" if math.isnan(floor) else f"{floor / row['ms']:.0%}"


def _benchmark(row: Row) -> str:
    return row["job"].split(":")[0]
