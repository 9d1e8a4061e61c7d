"""Check of a figure: nothing written is cut, and no two texts overlap."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SLACK = 1.5  # pixels by which the boxes of two texts may overlap


def check_tidy(figure: Figure) -> None:
    """Assert that legends and texts are inside the figure and do not overlap.

    The texts are titles, names of axes, and the labels at the ends of curves.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = list(_boxes(figure, canvas.get_renderer()))
    whole = figure.bbox
    for name, box in boxes:
        inside = whole.x0 - SLACK <= box.x0 and box.x1 <= whole.x1 + SLACK
        inside &= whole.y0 - SLACK <= box.y0 and box.y1 <= whole.y1 + SLACK
        assert inside, f"{name} is cut: {box.extents} in {whole.extents}"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(wide, high) <= SLACK, f"{one} overlaps {other}"


def _boxes(figure, renderer):
    """Return pairs (text, box on the screen) of all that must not overlap."""
    texts = [figure._suptitle] if figure._suptitle is not None else []
    for axis in figure.axes:
        if axis.get_visible():
            texts += [axis.title, axis.xaxis.label, axis.yaxis.label]
            texts += [text for text in axis.texts if text.get_gid() == "end of curve"]
    for text in texts:
        if text.get_text().strip() and text.get_visible():
            yield text.get_text(), text.get_window_extent(renderer)
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    for legend in filter(None, legends):
        yield "a legend", legend.get_window_extent(renderer)
