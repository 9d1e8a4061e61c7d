"""Colours of curves, labels at curves' ends, ticks, and legends of all pictures."""

import doctest
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from experiments import choices, report
from experiments.networks import cells
from experiments.report import _figures, _styles

# Names of the same rule or update, which share a style.
SAME = ({"snap", "snap_1"}, {"rprop", "irprop_minus"})


@pytest.mark.parametrize("module", [_figures, _styles])
def test_examples(module):
    tested = doctest.testmod(module)
    assert tested.attempted > 0
    assert tested.failed == 0


def test_each_rule_update_and_cell_has_a_style():
    rules = (*choices.RULES, "snap_1", "snap_2", "snap_3")
    assert set(rules) <= set(_styles.RULES)
    assert set(choices.UPDATES) <= set(_styles.UPDATES)
    assert set(cells.CELLS) <= set(_styles.CELLS)
    for name in rules:
        assert set(report.rule_style(name)) == {"color", "linestyle"}


def test_names_of_your_own_are_grey():
    """A study that gets another rule must still draw it."""
    styles = report.rule_styles(["mine", "yours", "rtrl"])
    assert styles["mine"] != styles["yours"]
    assert report.update_style("newton")["color"] == _styles.OTHER.colour
    known = _styles.RULES | _styles.UPDATES | _styles.CELLS
    assert _styles.OTHER not in known.values()


@pytest.mark.parametrize("table", ["RULES", "UPDATES", "CELLS"])
def test_two_names_never_share_colour_and_line_style(table):
    styles = getattr(_styles, table)
    for one, other in itertools.combinations(styles, 2):
        if {one, other} not in SAME:
            assert styles[one] != styles[other], (one, other)


def test_settings_after_a_name_change_nothing():
    for name in ("truncated_bptt, lookback 20, every 10", "truncated_bptt(20)"):
        assert report.rule_style(name) == report.rule_style("truncated_bptt")
    assert report.update_style("adam(0.01)") == report.update_style("adam")
    assert report.rule_style("rflo_random") != report.rule_style("rflo")
    assert report.rule_style("rbp") == report.rule_style("recurrent_backprop")


def test_settings_of_one_rule_have_different_shades():
    names = [f"truncated_bptt, lookback {h}" for h in (1, 10, 100)] + ["rtrl"]
    styles = report.rule_styles(names)
    assert len({style["color"] for style in styles.values()}) == 4
    for name in names[2:]:
        assert styles[name]["color"] == report.rule_style(name)["color"]


def test_colours_are_those_of_okabe_and_ito_or_grey():
    okabe_ito = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"}
    okabe_ito |= {"#cc79a7", _styles.GREY}
    for table in (_styles.RULES, _styles.UPDATES, _styles.CELLS, _styles.KINDS):
        assert {to_hex(style.colour) for style in table.values()} <= okabe_ito


def drawn(figure: Figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def crowded(count, height=3.6):
    """Return a figure with `count` curves whose ends are close to each other."""
    figure, axes = report.panels(1, 2, height=height)
    for axis in axes[0]:
        for i in range(count):
            axis.plot([1, 10, 100], [1, 1 + i, 5 + 0.001 * i], label=f"curve {i}")
        axis.set(xlabel="updates", ylabel="loss", title="a title")
    report.log_ticks(axes[0, 1], "xy")
    return figure, axes[0]


@pytest.mark.parametrize("count", [2, 9, 16])
def test_labels_at_ends_do_not_overlap_and_are_not_cut(count):
    figure, axes = crowded(count)
    report.label_ends(*axes)
    renderer = drawn(figure)
    boxes = [
        text.get_window_extent(renderer)
        for axis in axes
        for text in axis.texts
        if text.get_text().startswith("curve")
    ]
    assert len(boxes) == 2 * count
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    width, _ = figure.canvas.get_width_height()
    assert all(box.x0 > 0 and box.x1 <= width for box in boxes)


def test_labels_stand_in_the_order_of_the_ends():
    figure, axes = crowded(5)
    report.label_ends(*axes)
    for axis in axes:
        heights = [text.get_position()[1] for text in axis.texts]
        assert heights == sorted(heights)
    assert figure.axes[0].texts[0].get_text() == "curve 0"


def test_a_curve_over_another_is_named_with_it():
    _, axes = report.panels()
    for name, y in {"a": [1, 2], "b": [1, 2], "c": [2, 1]}.items():
        axes[0, 0].plot([0, 1], y, label=name)
    report.label_ends(axes[0, 0])
    texts = [text.get_text() for text in axes[0, 0].texts]
    assert texts == ["a = b\n(these lines coincide)", "c"]


def test_a_label_stands_at_the_last_finite_point():
    _, axes = report.panels()
    axes[0, 0].plot([0, 1, 2], [0.0, 5.0, np.nan], label="diverges")
    axes[0, 0].plot([0, 2], [-10, -10], label="other")
    report.label_ends(axes[0, 0])
    axis = axes[0, 0]
    at = axis.transLimits.transform([(0, 5.0)])[0, 1]
    assert axis.texts[0].get_position()[1] == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize("count", [1, 4, 23])
def test_a_legend_is_not_cut(count):
    figure, axes = report.panels(1, 2, width=4)
    for axis in axes[0]:
        for i in range(count):
            axis.plot([0, 1], [0, i], label=f"truncated_bptt, lookback {i}, every 10")
    report.legend_below(figure)
    renderer = drawn(figure)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == count
    box, whole = legend.get_window_extent(renderer), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0
    assert box.y1 <= min(axis.get_window_extent().y0 for axis in figure.axes)


@pytest.mark.parametrize(
    ("low", "high", "seen"),
    [
        (0.008, 20, ["0.01", "0.1", "1", "10"]),
        (0.9, 60, ["1", "2", "5", "10", "20", "50"]),
        (1e-8, 1, ["10⁻⁸", "10⁻⁶", "0.0001", "0.01", "1"]),
        (0.5, 2e5, ["1", "10", "100", "1,000", "10,000", "100,000"]),
    ],
)
def test_ticks_are_plain_numbers(low, high, seen):
    figure, axes = report.panels()
    axes[0, 0].plot([0, 1], [low, high])
    axes[0, 0].set_ylim(low, high)
    report.log_ticks(axes[0, 0])
    drawn(figure)
    axis = axes[0, 0].yaxis
    shown = [
        label.get_text()
        for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        if low <= at <= high
    ]
    assert set(seen) <= set(shown)
    assert not any("$" in text for text in shown)


def test_places_keep_within_the_panel():
    places = _figures.spread([0.0, 0.0, 100.0], [10.0, 10.0, 10.0], 0.0, 100.0)
    assert places == [5.0, 15.0, 95.0]
    # More labels than fit are centred, so that they go beyond both ends equally.
    places = _figures.spread([1.0] * 4, [10.0] * 4, 0.0, 20.0)
    assert places == [-5.0, 5.0, 15.0, 25.0]


def test_numbers_are_written_in_full_where_they_are_short():
    values = 0.0001, 0.5, 1, 2000, 1e6, 2.5e-7, -0.1, 0
    shown = "0.0001", "0.5", "1", "2,000", "10⁶", "2.5·10⁻⁷", "-0.1", "0"
    assert [report.number(value) for value in values] == [*shown]


def test_a_limit_of_a_linear_axis_does_not_stay():
    _, axes = report.panels()
    axes[0, 0].plot([0, 1], [0.01, 90.0])
    axes[0, 0].set_ylim(top=30)
    report.log_ticks(axes[0, 0])
    low, high = axes[0, 0].get_ylim()
    assert 0.005 < low < 0.01
    assert high == 30
