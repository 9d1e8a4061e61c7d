"""Tests of tables in narrow terminals: no digit is cut."""

import re

import pytest
from rich.console import Console

from experiments import report
from experiments.report import _studies, _tables

HEADER = ["rule × update", "test accuracy, %", "ms/step", "compile s", "note"]
LONG = "a note of many words that is longer than a short cell"
ROWS = [
    ["GRU of 24 units, eight rows"],
    [
        "truncated_bptt, lookback 16, every 8 × adam(0.01)",
        "91.8 ± 2",
        "3.03",
        "2.5",
        "-",
    ],
    ["bptt × sgd(0.5)", "86.3 ± 4", "0.00876", "12345.6", LONG],
]


def printed(rows, header, width, monkeypatch, capsys):
    def console(recorded=True):
        return Console(width=width, force_terminal=True, no_color=True, highlight=False)

    monkeypatch.setattr(_studies, "wide_console", console)
    report.show_table("A title", header, rows, "A note")
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [40, 60, 80, 130])
def test_a_narrow_terminal_shows_every_number(width, monkeypatch, capsys):
    text = printed(ROWS, HEADER, width, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= width
    for row in ROWS[1:]:
        for cell in row[1:4]:
            assert cell in text
    words = " ".join(text.split())
    for word in ("truncated_bptt", "lookback", "adam(0.01)", "accuracy", "many"):
        assert word in words
    assert "…" not in text
    # Each further table repeats the names of the rows.
    tables = text.count("──")
    assert tables >= 1
    assert text.count("sgd(0.5)") == sum("─" in line for line in text.splitlines())


def test_a_wide_terminal_shows_one_table(monkeypatch, capsys):
    text = printed(ROWS, HEADER, 160, monkeypatch, capsys)
    assert text.count("sgd(0.5)") == 1
    assert "test accuracy, %" in text


def test_many_columns_continue_below(monkeypatch, capsys):
    header = ["", *(f"column {i}" for i in range(20))]
    rows = [["a", *(f"{i}.123456789" for i in range(20))]]
    text = printed(rows, header, 80, monkeypatch, capsys)
    assert all(cell in text for cell in rows[0][1:])
    assert max(map(len, text.splitlines())) <= 80


def test_brackets_are_no_markup(monkeypatch, capsys):
    text = printed([["[bold]", "[1, 2]"]], ["", "x"], 80, monkeypatch, capsys)
    assert "[bold]" in text
    assert "[1, 2]" in text


def test_every_width_is_kept():
    for width in range(30, 140, 7):
        tables = _tables.fitting("", HEADER, ROWS, width)
        console = Console(width=width)
        assert all(console.measure(table).maximum <= width for table in tables)
