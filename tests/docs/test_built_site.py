"""The check of a built site finds broken links and pictures without descriptions."""

import pytest

from tests.docs import built_site

GOOD = """
<h1 id="top">Title</h1> <a href="#top">up</a> <a href="b.html#part">b</a>
<a href="https://elsewhere.org/x">x</a> <a href="sub/">folder</a>
<img src="a.png" alt="The loss falls from 2 to 1 nat.">
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<h2 id="part">b</h2><a href="index.html">a</a>')
    (tmp_path / "sub" / "index.html").write_text('<a href="../b.html">b</a>')
    (tmp_path / "a.png").touch()
    return tmp_path


def test_a_good_site_has_no_faults(site):
    assert built_site.faults(site) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('<a href="c.html">c</a>', "no such file: c.html"),
        ('<a href="b.html#other">b</a>', "no such place on the page: b.html#other"),
        ('<a href="#other">b</a>', "no such place on the page: #other"),
        ('<script src="missing.js"></script>', "no such file: missing.js"),
        ('<img src="a.png">', "a picture without a description: a.png"),
        ('<img src="a.png" alt="_images/abc.png">', "a picture without a description"),
    ],
)
def test_faults_are_found(site, line, fault):
    (site / "new.html").write_text(line)
    found = [each for each in built_site.faults(site) if each.startswith("new.html: ")]
    assert found[0].startswith(f"new.html: {fault}")
