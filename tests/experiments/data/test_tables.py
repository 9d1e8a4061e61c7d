"""Tests of reading tables in many file formats, and of the error messages."""

import bz2
import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.data.tables import read_columns

NAN = np.nan
RAW = b"v\n\0\0\0\1\0\0\2"  # Zero bytes like these occur in no supported text encoding.


def read(folder, content, *names, **options):
    path = folder / "my.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_columns(path, names or ("v",), **options)


def rows(*cells, head="d;v"):
    """Return the text of a table whose last column contains the given cells.

    Columns are separated by semicolons.
    """
    return "".join(f"{line}\n" for line in (head, *(f"a;{cell}" for cell in cells)))


NUMBERS = {
    "comma": (rows("1,5", "-2,25", ",5", "3"), [1.5, -2.25, 0.5, 3]),
    "comma as English": ('d,v\na,"1,5"\na,"2,75"\n', [1.5, 2.75]),
    "one column": ("v\n1,5\n2,75\n", [1.5, 2.75]),
    "groups of points": (rows("1.234,5", "1.234"), [1234.5, 1234]),
    "millions": (rows("1.234.567", "1.234", "999"), [1234567, 1234, 999]),
    "groups of commas": ('d,v\na,"1,234.5"\na,"1,234,567"\n', [1234.5, 1234567]),
    "lakh": ('d,v\na,"1,23,456.5"\na,"12,34,567"\n', [123456.5, 1234567]),
    "leading zero": (rows("0.234", "1.234"), [0.234, 1.234]),
    "power": (rows("1.234", "1.5e-3", "2E5"), [1.234, 0.0015, 2e5]),
    "four digits": (rows("1.234", "1.2345"), [1.234, 1.2345]),
    "spaces": (
        rows("1 234,5", "1\u00a0234,25", "12\u202f345"),
        [1234.5, 1234.25, 12345],
    ),
    "apostrophes": (rows("1'234.5", "1’234’567"), [1234.5, 1234567]),
    "minus": (rows("−5", "–6", "-7", "+8"), [-5, -6, -7, 8]),
    "percent": (rows("5 %", "7,5%", "0", "-"), [5, 7.5, 0, NAN]),
    "euro": (rows("1.234,50 €", "€ 5", "-€6", "€-7"), [1234.5, 5, -6, -7]),
    "dollar": ('d,v\na,"$1,234.50"\na,-$5\na,\n', [1234.5, -5, NAN]),
    "missing": (
        rows("1", "", ".", "-", "–", "#N/A", "NA", "n/a", "NaN", "#NV", "#DIV/0!", "2"),
        [1, *10 * [NAN], 2],
    ),
    "spaces around": (rows("  1 ", "\u00a02\u00a0"), [1, 2]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_read_as_they_are_meant(name, tmp_path):
    content, expected = NUMBERS[name]
    np.testing.assert_array_equal(read(tmp_path, content).columns["v"], expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows("1.234", "999"), r"in line 2 can be 1\.234 or 1234\. Give --decimal"),
        (rows("999", "1,234"), r"'1,234' in line 3 can be 1234 or 1\.234"),
        ("d\tv\na\t1.234\n", "not clear"),
        # The reader may skip a first row that contains units. Texts that begin like
        # numbers are no units.
        ("d,v\na,5-\nb,6\n", "line 2 .* has '5-'"),
        ("d,v\na,0x10\nb,6\n", "line 2 .* has '0x10'"),
        ("d,v\na,-inf\nb,6\n", "line 2 .* has '-inf'"),
        ("d,v\na,１２\nb,6\n", "line 2 .* has '１２'"),
        ('d,v\na,"' + 400 * (400 * "5" + "\n"), "no CSV file: .* quote"),
        ("v\n1,234\n", "not clear"),
        # A point in a time of day does not show whether numbers have decimal points or
        # commas.
        ("t;v\n12.30;1.234\n13.30;999\n", "not clear"),
        (rows("1_5"), "line 2 .* has '1_5'"),
        (rows("1", "2020_01"), "line 3 .* has '2020_01'"),
        (rows("1.5", "1,5"), "must hold numbers; line 3 .* has '1,5'"),
        (rows("1,5", "12.34"), "has '12.34', and line 2 has '1,5', with another dec"),
        (rows("12.34.5"), "has '12.34.5'"),
        (rows("1.23,5"), "has '1.23,5'"),
        (rows("1 23"), "has '1 23'"),
        (rows("--5"), "has '--5'"),
        (rows("١٢"), "must hold numbers"),
        (rows("inf"), "has 'inf'"),
        (rows("1e999"), "has '1e999'"),
        (rows("5 kW"), "has '5 kW'"),
        (rows("5 %", "6"), r"several units: '5 %' in line 2 and '6' in line 3"),
        (rows("5 €", "6 $"), "several units"),
        ("d,v\n1,1,5\n", "line 2 .* has 3 fields, and its header has 2"),
        ("d,v,w\n1,2,3\n1\n", "line 3 .* has 1 fields, and so no 'v'"),
        ('d,v\n1,"5\n2,6\n', "no CSV file after line 1: .* quote that is not closed"),
        ('d,v\n1,5\n2,"6"7\n', "no CSV file after line 2"),
        ("d,v\n#1,5\n2,6\n", "line 2 .* begins with #, .* but has a number"),
        ("1,5\n2,6\n", "no names of columns, .* position of a column, from 1 to 2"),
        ("a,a,v\n1,2,3\n", None),
        ("v,v\n1,2\n", "twice or more in it"),
        ("day,volt\n1,2\n", r"not in it; there are: day, volt\."),
        ("a, b;w\n1;2\n", r"not in it; there are: 'a, b', w\."),
        ("", "is empty"),
        ("\n\n# nothing\n", "is empty"),
        (b"PK\x03\x04rest", "a workbook or a zip archive, not text"),
        (gzip.compress(b"v\n1\n2\n" * 9, mtime=0)[:-9], "damaged, or cut short"),
        (RAW, "zero bytes"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(content, message, tmp_path):
    if message is None:
        assert read(tmp_path, content).columns["v"] == [3]
        return
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "value", "why"),
    [
        ('d,v\na,"1,234"\na,999\n', 1234, "commas are between the fields"),
        ("d,v\na,1.234\na,999\n", 1.234, "commas are between the fields"),
        ("w;v\n12,5;1.234\n3;999\n", 1234, "column 'w' has '12,5'"),
        ("w;v\n12.567891;1,234\n3;999\n", 1234, "column 'w' has '12.567891'"),
    ],
)
def test_the_rest_of_a_file_tells_the_decimal_mark(content, value, why, tmp_path):
    table = read(tmp_path, content)
    np.testing.assert_array_equal(table.columns["v"], [value, 999])
    (note,) = table.notes
    assert why in note
    assert "--decimal" in note


def test_options_decide(tmp_path):
    german = rows("1.234", "999")
    assert read(tmp_path, german, decimal=",").columns["v"].tolist() == [1234, 999]
    assert read(tmp_path, german, decimal=".").columns["v"].tolist() == [1.234, 999]
    found = read(tmp_path, "a b,v\n1,5\n", " v", delimiter=",")
    assert found.columns[" v"] == [5]
    assert read(tmp_path, "a\tv\n1\t5\n", delimiter="tab").columns["v"] == [5]
    for options, message in {
        "decimal": "decimal must be '.' or ',', got 'x'",
        "delimiter": "delimiter must be one character, .* got 'xy'",
        "encoding": "encoding must be one that Python knows, .* got 'nope'",
    }.items():
        bad = {"decimal": "x", "delimiter": "xy", "encoding": "nope"}[options]
        with pytest.raises(ValueError, match=message):
            read(tmp_path, german, **{options: bad})
    with pytest.raises(ValueError, match=r"not text in --encoding utf-8: .* at byte 2"):
        read(tmp_path, b"v\n\xff\n", encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [
        '"Date, time";"Load, MW";"v"\n2020-01-01;1;5\n2020-01-02;2;6\n',
        'd;"v"\n1;5\n2;6\n',
        "sep=;\nd;v\n1;5\n2;6\n",
        '"sep=|"\nd|v\n1|5\n2|6\n',
        "d|v\n1|5\n2|6\n",
        "d\tv\n1\t5\n2\t6",
        "d, v\n1, 5\n2, 6\n",
        "\n\nd,v\n1,5\n\n2,6\n\n\n",
        "# a file, with a comment; and more\nd,v\n1,5\n# one, two, three\n2,6\n",
        "# d,v\n1,5\n2,6\n",
        "d;v\n;MW\n1;5\n2;6\n",
        "d;w;v\n[s];-;[m³/h]\n1;2;5\n2;3;6\n",
        "d;v\ns;1/s\n1;5\n2;6\n",
        "d;v\ns;10^6 m3\n1;5\n2;6\n",
        "d,v\r\n1,5\r\n2,6\r\n",
        "d,v\r1,5\r2,6\r",
        "d,v,\n1,5,\n2,6\n",
        "Text;v\na;5\n#N/A;6\n",
        "\ufeffv,d\n5,1\n6,2\n",
        "Größe,v\n1,5\n2,6\n".encode("cp1252"),
        "Größe,v\n1,5\n2,6\n".encode("utf-16"),
        "d,v\n1,5\n2,6\n".encode("utf-16-le"),
        "d,v\n1,5\n2,6\n".encode("utf-16-be"),
        "d,v\n1,5\n2,6\n".encode("utf-32"),
        gzip.compress(b"d,v\n1,5\n2,6\n", mtime=0),
        bz2.compress(b"d,v\n1,5\n2,6\n"),
        lzma.compress(b"d,v\n1,5\n2,6\n"),
    ],
)
def test_layouts_and_encodings(content, tmp_path):
    assert read(tmp_path, content).columns["v"].tolist() == [5, 6]


def test_names_with_line_breaks_and_files_without_names(tmp_path):
    content = 'd;"Load\n(MW)"\n1;5\n2;6\n'
    for name in ("Load (MW)", "Load\n(MW)"):
        assert read(tmp_path, content, name).columns[name].tolist() == [5, 6]
    table = read(tmp_path, "1,5\n2,6\n3,7\n", "2")
    assert table.columns["2"].tolist() == [5, 6, 7]
    assert "numbered from 1" in table.notes[0]
    table = read(tmp_path, "2020-01-01,5,x\n2020-01-02,6,y\n", "2")
    assert table.columns["2"].tolist() == [5, 6]
    table = read(tmp_path, "0,1\n5,6\n7,8\n", "1")
    assert table.columns["1"].tolist() == [6, 8]
    assert table.notes == ("the first row of my.csv is read as names: 0, 1.",)
    years = read(tmp_path, "land;1999;2000\nA;5;6\n", "1999")
    assert years.columns["1999"].tolist() == [5]
    table = read(tmp_path, "d;v\n;MW\n1;5\n")
    assert table.notes == ("the first row of my.csv is read as units: MW.",)
    assert "cp1252" in read(tmp_path, "é,v\n1,5\n".encode("cp1252")).notes[0]


def dated(days, head="d,v"):
    return "".join(
        f"{line}\n" for line in (head, *(f"{d},{i}" for i, d in enumerate(days)))
    )


@pytest.mark.parametrize(
    ("days", "order"),
    [
        (["2020-01-03", "2020-01-02", "2020-01-01"], [2, 1, 0]),
        (["3.1.2020", "2.1.2020", "1.1.2020"], [2, 1, 0]),
        (["2020-01-02 00:30", "2020-01-01 23:30", "2020-01-01 22:30"], [2, 1, 0]),
        (["20200103", "20200102", "20200101"], [2, 1, 0]),
        (["2003", "2002", "2001"], [2, 1, 0]),
        (["1580000300", "1580000200", "1580000100"], [2, 1, 0]),
        (["01/15/2020", "01/14/2020", "12/31/2019"], [2, 1, 0]),
        (["31/12/2019", "30/12/2019", "01/11/2019"], [2, 1, 0]),
        (["Jan 2020", "Dec 2019", "Nov 2019"], [2, 1, 0]),
        (["2020-Q2", "2020-Q1", "2019-Q4"], [2, 1, 0]),
        (["Q2/2020", "Q1/2020", "Q4/2019"], [2, 1, 0]),
        (["2020-1-12", "2020-1-9", "2020-1-1"], [2, 1, 0]),
        (["2021-W01", "2020-W53", "2020-W52"], [2, 1, 0]),
        (["2021W011", "2020W537", "2020W536"], [2, 1, 0]),
        (["20/01/01", "19/12/31", "19/12/30"], [2, 1, 0]),
        (["01-01-20", "31-12-19", "30-12-19"], [2, 1, 0]),
        (["2020-01-02T00:00:00.500Z", "2020-01-02T00:00Z", "2020-01-01"], [2, 1, 0]),
        (["1/12/20 9:00 PM", "1/12/20 8:00 AM", "1/11/20 9:00 AM"], [2, 1, 0]),
        (["2020-01-01", "2020-01-03", "2020-01-02"], [0, 2, 1]),
        (["2020-01-01", "2020-01-02", "2020-01-03"], [0, 1, 2]),
        # The hour is repeated at the end of summer time; its two rows keep their order.
        (["2021-10-31 03:00", "2021-10-31 02:00", "2021-10-31 02:00"], [2, 1, 0]),
    ],
)  # fmt: skip
def test_rows_are_put_in_order_of_time(days, order, tmp_path):
    table = read(tmp_path, dated(days, "date,v"))
    assert table.columns["v"].tolist() == order
    told = " ".join(table.notes)
    turned, sorted_ = "newest row first" in told, "not in order" in told
    assert (turned, sorted_) == (order == [2, 1, 0], order == [0, 2, 1])


def test_hours_in_a_column_of_their_own_are_part_of_the_time(tmp_path):
    # The newest day is first, but the hours of each day go up.
    lines = "".join(f"2020-01-0{day},{hour}\n" for day in (2, 1) for hour in range(24))
    lines = lines.replace("\n", ",5\n")
    table = read(tmp_path, "Date,Hour,v\n" + lines.replace(",5\n", ",6\n", 24))
    assert table.columns["v"].tolist() == [5] * 24 + [6] * 24
    (note,) = table.notes
    assert "48 rows moved" in note
    # A day has the hours 1 to 24.
    lines = "".join(f"2020-01-01,{hour}.0,5\n" for hour in range(1, 25))
    assert not read(tmp_path, "Date,HE,v\n" + lines + "2020-01-02,1.0,5\n").notes
    lines = "".join(f"2020,{month},5\n" for month in ("Jan", "February", "Mar"))
    assert not read(tmp_path, "Year,Month,v\n" + lines).notes


def test_gaps_and_doubled_hours_are_told(tmp_path):
    hours = ["00:00", "01:00", "02:00", "02:00", "03:00", "06:00", "07:00"]
    table = read(tmp_path, dated([f"2021-10-31 {hour}" for hour in hours]))
    assert table.columns["v"].tolist() == [*range(7)]
    repeats, gap = table.notes
    assert "'d' repeats 1 time, first 2021-10-31 02:00" in repeats
    assert "1 gap, where the usual step is 1 hour" in gap
    assert "from 2021-10-31 03:00 to 2021-10-31 06:00" in gap
    halves = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    table = read(tmp_path, dated([f"2021-10-31 {half}" for half in halves]))
    # The table keeps the order of the rows in the file.
    assert table.columns["v"].tolist() == [*range(6)]
    assert "goes back 1 time, first from 2021-10-31 02:30 to" in table.notes[1]
    # Date and time are in separate columns; rows are sorted from newest to oldest.
    lines = "".join(f"31.10.2021;0{h}:00;{h}\n" for h in (6, 5, 3, 2, 2, 1))
    table = read(tmp_path, "Datum;Zeit;v\n" + lines)
    assert table.columns["v"].tolist() == [1, 2, 2, 3, 5, 6]
    assert len(table.notes) == 3
    lines = "".join(f"2021,1,{d},{d}\n" for d in (1, 2, 4))
    table = read(tmp_path, "year,month,day,v\n" + lines)
    assert "1 gap" in table.notes[0]
    # These Unix times, times with an offset from UTC, months and working days have no
    # gaps.
    for days in (
        ["1580000100", "1580000160", "1580000220"],
        ["2021-10-31T02:00+02:00", "2021-10-31T02:00+01:00", "2021-10-31T03:00+01:00"],
        ["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"],
        ["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"],
    ):
        assert not read(tmp_path, dated(days, "time,v")).notes
    lost = ["2020-01-01", "2020-02-01", "2020-04-01", "2020-05-01"]
    assert "usual step is 1 month" in read(tmp_path, dated(lost)).notes[0]
    unclear = [f"2020-01-{day:02}" for day in range(1, 20)] + ["soon"]
    assert (
        "has no time that can be read in 1 row"
        in read(tmp_path, dated(unclear)).notes[0]
    )


def test_times_of_no_known_form_are_told(tmp_path):
    (note,) = read(tmp_path, dated(["3rd day", "2nd day"], "date,v")).notes
    assert "'3rd day' in 'date' have no known form" in note
    assert not read(tmp_path, dated(["3rd day", "2nd day"], "what,v")).notes


def test_falling_values_are_not_taken_for_times(tmp_path):
    table = read(tmp_path, "time,v\n5,1\n3,2\n4,3\n1,4\n")
    assert table.columns["v"].tolist() == [1, 2, 3, 4]
    # All rows but one are in descending order of time.
    mostly = [*range(40, 20, -1), 30]
    table = read(tmp_path, dated(mostly, "time,v"))
    assert table.columns["v"].tolist() == [*range(21)]
    table = read(tmp_path, "level,v\n5,1\n4,2\n3,3\n")
    assert table.columns["v"].tolist() == [1, 2, 3]
    assert not table.notes


@pytest.mark.data
def test_real_files_with_decimal_commas():
    folder = Path(os.environ["BPVARIANTS_DATA"]) / "breathing"
    files = sorted(folder.glob("*.csv"))
    assert len(files) == 27
    for path in files:
        table = read_columns(path, ("x", "y", "z"))
        text = path.read_text("ascii").replace(",", ".").splitlines()[1:]
        expected = np.array([line.split(";")[2:] for line in text], float)
        np.testing.assert_array_equal(np.stack([*table.columns.values()], 1), expected)
        # In the last row, all cells are zero, also the time stamp.
        ends_in_zeros = not expected[-1].any()
        assert any("goes back" in note for note in table.notes) or not ends_in_zeros


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "name", "first", "length"),
    [
        ("seattle_weather/seattle-weather.csv", "temp_max", 12.8, 1461),
        ("vix/vix-daily.csv", "CLOSE", 17.24, 9235),
        ("sunspots/sunspots.csv", "SUNACTIVITY", 5, 309),
        ("wall_following/sensor_readings_24.data", "1", 0.438, 5456),
        ("digits/digits.csv.gz", "3", 5, 1797),
    ],
)
def test_other_real_files(file, name, first, length):
    values = read_columns(Path(os.environ["BPVARIANTS_DATA"]) / file, [name]).columns[
        name
    ]
    assert (values[0], len(values)) == (first, length)
