"""Tests of report.html: its structure, and what is recorded for it."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import report
from experiments.harness.jobs import Job
from experiments.harness.study import run_study, Study
from experiments.report._template import TEMPLATE
from tests.experiments.pages import check


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Is the page complete?

    A study that shows one of each kind.
    """

    rates: tuple[float, ...] = (0.1,)


def figure():
    drawn = Figure()
    axis = drawn.subplots()
    axis.plot([0, 10], [1.0, 0.25], label="bptt")
    axis.set(title="A task", xlabel="updates", ylabel="loss")
    return drawn


def finish(folder, config, rows):
    report.show_table(
        "Errors <1", ["", "error, %"], [["group"], ["bptt", "-1.5 (-.2 to 1e-05)"]],
        "Note\nmore",
        marked={1},
    )  # fmt: skip
    report.save_picture(folder, "curves", figure())
    report.save_pictures(folder, {"left": figure(), "right": figure()}, caption="Two.")
    report.wide_console().print("[bold]Printed & recorded[/bold]")
    report.conclude("No difference; give --first-seed 1 or x--y.")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "a b"
    jobs = lambda config: [Job("one", 1, lambda way: {"value": 1})]
    result = run_study("complete", Config(seeds=2, out=out), jobs, finish)
    return (result.folder / "report.html").read_text()


def test_every_study_writes_a_page(study):
    page = check(study)
    assert "<h1>Is the page complete?</h1>" in study
    assert "<p>A study that shows one of each kind.</p>" in study
    assert "python -m experiments complete --seeds 2</pre>" in study
    assert "Errors &lt;1" in study
    assert '<th scope="rowgroup" colspan="2">group</th>' in " ".join(study.split())
    assert study.count('<tr class="marked">') == 1
    assert "Printed &amp; recorded" in study
    assert "<td>−1.5 (−.2 to 1e-05)</td>" in study  # minus signs, but in powers of 10
    option = '<span class="option">--first-seed</span>'  # is not broken in two
    said = f'<p class="conclusion">No difference; give {option} 1 or x--y.</p>'
    assert said in study
    assert len(page.all("img")) == 3
    assert len(page.all("figcaption")) == 2 + 0
    alt = page.all("img")[0]["alt"]
    assert (
        alt
        == "A task: loss against updates, 0 to 10. Curves: bptt falls from 1 to 0.25."
    )
    assert '<a href="#curves">Picture: A task</a>' in study
    # Without headings, the contents list tables and pictures.
    assert [link["href"] for link in page.all("a")][:3] == [
        "#errors-1", "#curves", "#left",
    ]  # fmt: skip


def test_headings_are_the_contents(tmp_path):
    with report.recording() as blocks:
        report.heading("Results")
        report.heading("Part", level=3)
        report.show_table("Table", ["", "x"], [["a", "1"]])
        report.heading("Results")  # a second heading of the same name
    report.write_page(tmp_path, blocks, study="s", config=Config(), seconds=1)
    page = check((tmp_path / "report.html").read_text())
    assert [link["href"] for link in page.all("a")][:3] == [
        "#results", "#part", "#results-2",
    ]  # fmt: skip


def test_a_column_of_texts_is_aligned_with_its_heading(tmp_path):
    rows = [["a", "1", "measured outside this project"], ["b", "2", "this run"]]
    with report.recording() as blocks:
        report.show_table("Table", ["", "x", "source"], rows)
    report.write_page(tmp_path, blocks, study="s", config=Config(), seconds=1)
    page = (tmp_path / "report.html").read_text()
    for cell in ('<th scope="col" class="text">source', '<td class="text">this run'):
        assert cell in page
    assert '<th scope="col">x' in page
    assert "<td>1" in page


def test_nothing_is_recorded_outside_of_a_recording(capsys):
    report.say("outside")
    with report.recording() as blocks:
        report.say("[bold]inside[/bold]")
        report.say("[exact]", exact=True)
        report.conclude("No difference.", about="Left")
    texts = [block.text for block in blocks]
    assert texts == ["inside", "[exact]", "No difference."]
    told = capsys.readouterr().out
    assert "[exact]" in told
    assert "Left: No difference." in told


def test_only_css_has_widths_and_the_template_loads_nothing():
    assert "src=" not in TEMPLATE.replace('src="{{ file.data }}"', "")
    assert "<link" not in TEMPLATE
    assert "<script" not in TEMPLATE


def test_alternative_texts_say_what_is_seen():
    assert report.describe(Figure()) == "A picture without axes."
    drawn = Figure()
    left, right = drawn.subplots(1, 2)
    left.bar(["a", "b"], [1.0, 2.5], label="error")
    left.set(title="Bars", ylabel="error, %")
    right.plot([1, 2], [np.nan, np.nan], label="diverged")
    right.plot([1.0, 2.0], ["rtrl", "uoro"], "o", label="cosine")
    right.set(title="Curves")
    assert report.describe(drawn) == (
        "Bars: error, % against position. Bars: error 1, 2.5. Curves. Curves: diverged "
        "has no finite value, cosine for rtrl, uoro."
    )
