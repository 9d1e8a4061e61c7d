"""Tests of the list of studies."""

from experiments import studies
from experiments.harness import listing


def test_the_groups_have_each_study_once():
    names = [name for group in studies.GROUPS.values() for name in group]
    assert len(names) == len(set(names)) == len(studies.STUDIES)
    for width in (60, 80, 120):
        lines = listing.listing(width).splitlines()
        assert max(map(len, lines)) < width
        entries = [line for line in lines if line[:2] == "  " and line[2] != " "]
        assert [line.split()[0] for line in entries] == names
    assert "Needs a download: MNIST." in listing.listing(120)
    entry = lambda minutes: studies.Entry("module", "about", minutes)
    said = [listing.needs(entry(minutes)) for minutes in (0.5, 9.4, None)]
    assert said == ["About 30 s.", "About 9 min.", ""]
