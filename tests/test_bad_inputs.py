"""Tests that wrong calls raise errors, which name argument, value and remedy."""

import builtins
import collections
import re

import pytest

from tests.bad_inputs import entry, names, PAGE, page, Refusal, refusal, TABLE


@pytest.fixture(scope="module")
def found(plain_jax):
    """Return the names that the calls in the table use, with JAX's default settings."""
    with plain_jax():
        yield names()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.slow] if "slow" in row.marks else [])
        for row in TABLE
    ],
    ids=[f"{row.area}: {row.did}" for row in TABLE],
)
def test_a_wrong_call_gets_a_clear_error(row, found):
    refused = refusal(row, found)
    assert refused is not None, "the call was accepted"
    error, message, file = refused
    assert row.error in [kind.__name__ for kind in type(error).__mro__]
    home = type(error).__module__
    assert home in ("builtins", *_homes(row)) or home.startswith("bpvariants"), home
    rest = message
    for words in row.words:
        before, found_words, rest = rest.partition(words)
        assert found_words, f"no {words!r} in {before!r} of {message!r}"
    assert len(message) <= 600
    if "network" not in row.marks:
        assert "site-packages" not in file, f"{file}: {message}"
    known = _of_any_version(PAGE.read_text())
    remedy = "run python -m tests.bad_inputs"
    assert _of_any_version(entry(row, message)) in known, remedy


def _of_any_version(text):
    """Return a text without what depends on the version of Python, JAX or SciPy.

    Python 3.13 suggests names of arguments; the number of bytes of a step is JAX's; the
    list of kinds of WAV files is SciPy's.
    """
    text = re.sub(r"\.?\s+Did you mean '\w+'\?", "", text)
    text = re.sub(r"Only\s+'RIFF'[^.]*supported", "Only … supported", text)
    return re.sub(r"\d+ bytes", "… bytes", text)


def _homes(row):
    return ["jax.errors", "jax._src.errors"] if "network" in row.marks else []


def test_the_table_is_large_and_each_call_is_in_it_once():
    assert len(TABLE) >= 150
    for same in ((row.area, row.did) for row in TABLE), (row.call for row in TABLE):
        assert not [what for what, n in collections.Counter(same).items() if n > 1]
    for row in TABLE:
        assert row.did.endswith("."), row.did
        known = hasattr(builtins, row.error)
        assert known or row.error in ("NonFiniteError", "TracerBoolConversionError")


def test_the_page_has_all_rows_in_the_order_of_the_table():
    """Check the page without its error messages, which another test checks."""
    text = PAGE.read_text()
    marks = {row: f"<{i}>\n" for i, row in enumerate(TABLE)}
    for part in page(marks).split("\n<"):
        first, _, frame = part.rpartition(">\n")
        assert frame in text or first == part
    places = [text.find(f"{row.did}\n\n```text\n{row.call}\n\n") for row in TABLE]
    assert -1 not in places
    assert places == sorted(places)
    assert text.count("```text\n") == len(TABLE)


def test_an_accepted_call_is_told_apart_from_a_refused_one(found):
    row = TABLE[0]
    assert refusal(row._replace(call="bptt"), found) is None
    assert isinstance(refusal(row, found), Refusal)
