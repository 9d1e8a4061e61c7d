"""Write docs/ledger.md: every published number, and what became of it here.

    python -m docs.ledger                                   # writes the pages anew
    python -m docs.ledger --enter FOLDER … --commit COMMIT  # first enters runs

The records are in docs/ledger_records/, one file for each section of the page, and one
line for each record. `check` says what a record must have. The sections on Proben1 are
computed from experiments/resilient/proben1_published.json and from
docs/ledger_records/proben1_runs.json, which `--enter` writes from folders of finished
runs of the study `proben1`. The table in docs/proben1.md is written, too.
"""

import argparse
import json
import math
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from scipy.special import stdtrit

from docs import ledger_proben1 as proben1

DOCS = pathlib.Path(__file__).resolve().parent
RECORDS = DOCS / "ledger_records"
PAGE = DOCS / "ledger.md"
STATES = {
    "reproduced": "Our figure agrees with the published figure by the rule below.",
    "deviates": "We have a figure, and it does not agree. A note says why.",
    "not yet": "A study or a command exists, but no figure that can be traced to one.",
    "not attempted": "No study computes this figure. A note says why.",
}
RELATIVE = 0.01  # largest relative difference, if no spread was published
Record = dict[str, Any]


class Group(NamedTuple):
    """Records in one table of the page."""

    title: str
    source: str  # who published or measured the numbers
    records: list[Record]
    about: str = ""  # text above the table


class Section(NamedTuple):
    """A heading of the page, with its groups."""

    title: str
    groups: list[Group]


def load() -> list[Section]:
    """Return all sections, in the order of their files."""
    sections = []
    for path in sorted(RECORDS.glob("[0-9]*.json")):
        read = json.loads(path.read_text("utf-8"))
        groups = [Group(**group) for group in read["groups"]]
        if read.get("computed") == "proben1":
            groups = [Group(**group) for group in proben1.groups()] + groups
        sections.append(Section(read["section"], groups))
    return sections


def records() -> Iterator[Record]:
    """Yield every record of every section."""
    for section in load():
        for group in section.groups:
            yield from group.records


def check(record: Record) -> None:
    """Raise ValueError if a record is not complete, or if its status is not right.

    A record has:

    - id: a name that no other record has;
    - what: the quantity and its setting;
    - published: the published figure, as text;
    - status: one of STATES.

    If there is a figure of ours, the record also has `ours` ({"mean", "sd", "n"} over n
    runs, or {"value"} of one computation), the `command`, and the `commit` at which it
    was computed. Then `value` is the published figure as a number, and `sd` is its
    standard deviation if it was published.

    If a test asserts the agreement, the record has `test` (FILE::NAME) and `tolerance`,
    the largest absolute difference that the test allows. Then `ours` may be missing.

    All records that are not reproduced have `why`. If a page of the repository quotes
    our figure, the record has `quoted`: [page, text]. In a table of published numbers,
    a number that was only measured outside this project has `"elsewhere": true`.
    """
    known = {"id", "what", "published", "status", "value", "sd", "ours", "command"}
    known |= {"commit", "test", "tolerance", "why", "quoted", "elsewhere"}
    problem = None
    if unknown := record.keys() - known:
        problem = f"has unknown fields {sorted(unknown)}"
    elif missing := {"id", "what", "published", "status"} - record.keys():
        problem = f"has no {sorted(missing)}"
    elif record["status"] not in STATES:
        problem = f"has the unknown status {record['status']!r}"
    elif ("test" in record) != ("tolerance" in record):
        problem = "must have both test and tolerance, or none of the two"
    elif "ours" in record and not {"command", "commit", "value"} <= record.keys():
        problem = "has a figure of ours without command, commit or published value"
    elif "commit" in record and not re.fullmatch(r"[0-9a-f]{7}", record["commit"]):
        problem = "must name a commit by seven digits"
    elif record["status"] != "reproduced" and not record.get("why"):
        problem = "needs why, because it is not reproduced"
    elif (verdict := _verdict(record)) and verdict != record["status"]:
        problem = f"says {record['status']}, but its numbers say {verdict}"
    elif not verdict and record["status"] in ("reproduced", "deviates"):
        problem = f"says {record['status']}, but has neither a figure nor a test"
    if problem:
        raise ValueError(f"record {record.get('id', record)} {problem}")


def _verdict(record: Record) -> str | None:
    """Return the status that follows from the numbers; None if there are none."""
    if "ours" not in record:
        return "reproduced" if "test" in record else None
    ours, value = record["ours"], record["value"]
    found = ours["mean"] if "mean" in ours else ours["value"]
    close = abs(found - value) <= allowed(record) * (1 + 1e-9)
    return "reproduced" if close else "deviates"


def allowed(record: Record) -> float:
    """Return how far our figure may be from the published one, to agree with it."""
    if "tolerance" in record:
        return record["tolerance"]
    rounding = _rounding(record["published"])
    if record.get("sd") is not None:
        return 2 * (record["sd"] + rounding) + rounding
    return RELATIVE * abs(record["value"]) + rounding


def _rounding(text: str) -> float:
    """Return half a unit of the last digit of the first number in a text."""
    found = re.search(r"\d*\.?\d+(?:e(-?\d+))?", text)
    assert found, text
    digits = found[0].split("e")[0]
    decimals = len(digits.partition(".")[2])
    return 0.5 * 10.0 ** (int(found[1] or 0) - decimals)


def interval(ours: dict[str, float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean, by Student's t; None for a single value."""
    if "mean" not in ours or ours["n"] < 2:
        return None
    half = stdtrit(ours["n"] - 1, 0.975) * ours["sd"] / math.sqrt(ours["n"])
    return ours["mean"] - half, ours["mean"] + half


def page() -> str:
    """Return the text of docs/ledger.md."""
    sections = load()
    lines = [_INTRODUCTION, *_counts(sections)]
    for section in sections:
        lines += [f"\n## {section.title}"]
        for group in section.groups:
            lines += _group(group)
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
<!-- Written by `python -m docs.ledger` from docs/ledger_records. Do not edit. -->

# The ledger of published numbers

This page lists published numbers about the methods of bpvariants, and what became of
each number in this project. Some numbers were not published, but measured outside this
project with other programs; the line above each table says so.

A row has one of four states:
"""

_RULES = f"""
**When do two figures agree?** If a standard deviation over runs was published, our mean
must be within two of these standard deviations, plus rounding. If none was published,
our figure must be within {100 * RELATIVE:g} % of the published figure, plus rounding.
If a test asserts the agreement, its tolerance decides, and the row names the test. The
direction does not matter: a figure of ours that is better than the published figure
deviates, too.

**How to read a row.** "19 (3)" is a mean and a standard deviation over runs. The
interval is the 95 % interval of our mean, by Student's t with the number of runs in the
row. A single computation has no interval. The numbers in the last column refer to the
notes below the table. A note gives the command that computes our figure, with the
commit at which the figure was computed or first written down; or it says why a figure
deviates or is missing. Commands that begin with `python -m pytest` run a test that
fails if the figures do not agree.

**How to add a figure.** Edit the record in `docs/ledger_records/`, and run `python -m
docs.ledger`. The command refuses records that are not complete, and records whose state
does not follow from their numbers."""


def _counts(sections: list[Section]) -> list[str]:
    lines = [f"- **{state}**: {text}" for state, text in STATES.items()]
    lines += ["", f"| section | rows | {' | '.join(STATES)} |"]
    lines += ["|---" * (2 + len(STATES)) + "|"]
    total, published = Counter(), Counter()
    for section in sections:
        found = [r["status"] for group in section.groups for r in group.records]
        total.update(found)
        published.update(
            record["status"]
            for group in section.groups
            for record in group.records
            if group.source.startswith("Published") and not record.get("elsewhere")
        )
        cells = [str(found.count(state)) for state in STATES]
        link = f"[{section.title}](#{_slug(section.title)})"
        lines.append(f"| {link} | {len(found)} | {' | '.join(cells)} |")
    for name, counts in (("of these, published", published), ("all", total)):
        cells = [f"**{counts[state]}**" for state in STATES]
        lines.append(f"| **{name}** | **{counts.total()}** | {' | '.join(cells)} |")
    return [*lines, _RULES]


def _slug(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _group(group: Group) -> list[str]:
    notes: dict[str, int] = {}
    rows = []
    for record in group.records:
        what = record["what"]
        if record.get("elsewhere"):
            what += " (measured elsewhere)"
        numbers = [notes.setdefault(n, len(notes) + 1) for n in _notes(record)]
        cells = [what, record["published"], *_ours(record), record["status"]]
        cells.append(", ".join(map(str, numbers)))
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    lines = ["", f"### {group.title}", "", group.source]
    if group.about:
        lines += ["", group.about]
    lines += ["", "| what | published | ours | 95 % interval | state | notes |"]
    lines += ["|---" * 6 + "|", *rows, ""]
    return lines + [f"{number}. {note}" for note, number in notes.items()]


def _notes(record: Record) -> list[str]:
    notes = []
    if "command" in record:
        notes.append(f"`{record['command']}`, commit {record['commit']}")
    if "test" in record:
        notes.append(f"`python -m pytest {record['test']} -m 'slow or not slow'`")
    return [*notes, record["why"]] if "why" in record else notes


def _ours(record: Record) -> tuple[str, str]:
    """Return the cells with our figure and its interval."""
    if "ours" not in record:
        return _tested(record), "–"
    ours = record["ours"]
    if "value" in ours:
        return f"{ours['value']:.4g}", "–"
    given = round(-math.log10(2 * _rounding(record["published"])))
    size = 1 - math.floor(math.log10(ours["sd"])) if ours["sd"] else 0
    written = len(repr(float(ours["sd"])).partition(".")[2])
    decimals = max(given, min(size, written), 0)
    show = lambda x: f"{x:.{decimals}f}".replace("-", "−")
    found = interval(ours)
    text = f"{show(ours['mean'])} ({show(ours['sd'])}), {ours['n']} runs"
    return text, f"{show(found[0])} to {show(found[1])}" if found else "–"


def _tested(record: Record) -> str:
    """Return the cell of a record without a figure of ours, which a test may hold."""
    if "test" not in record:
        return "–"
    tolerance = record["tolerance"]
    return f"equal within {tolerance:.2g}" if tolerance else "equal"


def main(arguments: list[str]) -> None:
    """Enter runs if asked to, check all records, and write the pages."""
    parser = argparse.ArgumentParser(description="Write docs/ledger.md.")
    parser.add_argument("--enter", nargs="+", type=pathlib.Path, default=[])
    parser.add_argument("--commit", help="commit of the runs that are entered")
    options = parser.parse_args(arguments)
    if options.enter:
        if not options.commit:
            parser.error(
                "--enter needs --commit, the commit at which the runs were made"
            )
        proben1.enter(options.enter, options.commit[:7])
    seen = Counter(record["id"] for record in records())
    if twice := [name for name, count in seen.items() if count > 1]:
        raise ValueError(f"records with the same id: {twice}")
    for record in records():
        check(record)
    PAGE.write_text(page(), "utf-8")
    proben1.write_page()
    counts = Counter(record["status"] for record in records())
    print(", ".join(f"{state}: {counts[state]}" for state in STATES))


if __name__ == "__main__":
    main(sys.argv[1:])
