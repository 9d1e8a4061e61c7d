"""Colours and line styles: one fixed pair for each rule, update, cell and baseline.

The colours are those of Okabe and Ito, which readers with colour-blindness can tell
apart. To give a name a style, add a line to one of the tables below.

References:
  Okabe, Ito, "Color universal design", 2008, https://jfly.uni-koeln.de/color/.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.colors import to_hex, to_rgb

BLACK, GREY = "#000000", "#888888"
ORANGE, SKY, GREEN, BLUE = "#e69f00", "#56b4e9", "#009e73", "#0072b2"
VERMILLION, PURPLE = "#d55e00", "#cc79a7"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE, BLACK, GREY)
SOLID, DASHED, DOTTED, MIXED = "-", "--", ":", "-."

Dashes = Any  # a line style of matplotlib


class Style(NamedTuple):
    """Colour and dashes of a curve."""

    colour: str
    dashes: Dashes = SOLID


OTHER = Style("#555555", (0, (6, 1.5)))  # of names that no table has
KINDS = {  # kinds of backpropagation, and the two directions in time
    "static": Style(BLUE),
    "through time": Style(BLACK),
    "recurrent": Style(GREEN),
    "equilibrium": Style(GREEN),
    "resilient": Style(SKY),
    "forgetting": Style(PURPLE),
    "forward in time": Style(VERMILLION),
    "online": Style(VERMILLION),
}
RULES = {
    "bptt": Style(BLACK),
    "truncated_bptt": Style(BLUE, DASHED),
    "artbp": Style(SKY, MIXED),
    "rtrl": Style(VERMILLION),
    "diagonal_rtrl": Style(VERMILLION, MIXED),
    "layerwise_rtrl": Style(ORANGE, (0, (3, 1, 1, 1, 1, 1))),
    "snap": Style(ORANGE),
    "snap_1": Style(ORANGE),
    "snap_2": Style(ORANGE, DASHED),
    "snap_3": Style(ORANGE, MIXED),
    "rflo": Style(GREEN),
    "rflo_random": Style(GREEN, DOTTED),
    "eprop": Style(GREEN, DASHED),
    "kf_rtrl": Style(PURPLE),
    "sketched_rtrl": Style(BLACK, DOTTED),
    "uoro": Style(SKY),
    "forward_gradient": Style(PURPLE, DASHED),
    "pes": Style(GREY, DASHED),
    "backprop": Style(BLUE),
    "feedback_alignment": Style(VERMILLION, DASHED),
    "direct_feedback_alignment": Style(VERMILLION, DOTTED),
    "uniform_sign_symmetry": Style(GREY, DOTTED),
    "batchwise_sign_symmetry": Style(BLUE, DOTTED),
    "frozen_sign_symmetry": Style(GREY, MIXED),
    "recurrent_backprop": Style(GREEN, MIXED),
    "fixed_point": Style(PURPLE, DOTTED),
    "neumann": Style(PURPLE, MIXED),
    "cg": Style(SKY, DASHED),
    "jfb": Style(ORANGE, DOTTED),
    "unrolled": Style(BLACK, DASHED),
    "equilibrium_propagation": Style(SKY, DOTTED),
}
SHORT = {  # {short name of a rule in tables: its name}
    "tbptt": "truncated_bptt",
    "bp": "backprop",
    "fa": "feedback_alignment",
    "dfa": "direct_feedback_alignment",
    "usf": "uniform_sign_symmetry",
    "brsf": "batchwise_sign_symmetry",
    "frsf": "frozen_sign_symmetry",
    "rbp": "recurrent_backprop",
    "ep": "equilibrium_propagation",
}
UPDATES = {
    "sgd": Style(BLACK),
    "momentum": Style(BLACK, DASHED),
    "adam": Style(VERMILLION),
    "adamw": Style(VERMILLION, DASHED),
    "rmsprop": Style(ORANGE),
    "forgetting": Style(PURPLE),
    "forgetting_normalised": Style(PURPLE, DASHED),
    "manhattan": Style(GREY),
    "rprop": Style(BLUE),
    "irprop_minus": Style(BLUE),  # another name of the same update
    "irprop_plus": Style(SKY),
    "rprop_minus": Style(BLUE, DASHED),
    "rprop_plus": Style(SKY, DASHED),
    "half_back": Style(GREEN, DASHED),
    "probabilistic_rprop": Style(GREEN),
    "least_squares": Style(GREEN, MIXED),
    "lbfgs": Style(ORANGE, DASHED),
    "grprop": Style(GREY, MIXED),
    "optax_rprop": Style(ORANGE, MIXED),
    "torch_rprop": Style(BLACK, DOTTED),
}
CELLS = {
    "tanh": Style(ORANGE),
    "gru": Style(BLUE),
    "lstm": Style(GREEN, DASHED),
    "lru": Style(VERMILLION),
    "min_gru": Style(SKY, MIXED),
    "rtu": Style(PURPLE, DASHED),
}


def rule_style(name: str) -> dict[str, Any]:
    """Return the colour and line style of a rule, as arguments of `Axes.plot`.

    Text after the name, such as "(0.1)" or ", lookback 20", is ignored. A name that no
    table has, such as that of your own rule, is grey.

    Example:
      >>> rule_style("rtrl")
      {'color': '#d55e00', 'linestyle': '-'}
    """
    return _style(RULES | {a: RULES[b] for a, b in SHORT.items()}, name)


def rule_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the styles of several rules; settings of one rule have different shades.

    The last setting of a rule, such as the longest lookback, has the full colour.

    Example:
      >>> styles = rule_styles([f"truncated_bptt, lookback {h}" for h in (1, 9)])
      >>> [style["color"] for style in styles.values()]
      ['#4d9cc9', '#0072b2']
    """
    styles = {name: rule_style(name) for name in names}
    for look in {tuple(style.values()) for style in styles.values()}:
        same = [name for name, style in styles.items() if tuple(style.values()) == look]
        for i, name in enumerate(same, 1):
            share = 0.4 + 0.6 * i / len(same)
            styles[name] = {"color": shade(look[0], share), "linestyle": look[1]}
    return styles


def update_style(name: str) -> dict[str, Any]:
    """Return the colour and line style of an update, as arguments of `Axes.plot`.

    Text after the name, such as "(0.1)", is ignored.

    Example:
      >>> update_style("adam(0.01)")
      {'color': '#d55e00', 'linestyle': '-'}
    """
    return _style(UPDATES, name)


def cell_style(name: str) -> dict[str, Any]:
    """Return the colour and line style of a recurrent cell, for `Axes.plot`.

    Example:
      >>> cell_style("gru")
      {'color': '#0072b2', 'linestyle': '-'}
    """
    return _style(CELLS, name)


def kind_colour(name: str) -> str:
    """Return the colour of a kind of backpropagation, such as "static" or "online"."""
    return _style(KINDS, name)["color"]


def shade(colour: str, share: float) -> str:
    """Mix a colour with white; a share of 1 is the colour itself, 0 is white.

    Use shades for settings of one method, such as several lookbacks of truncated BPTT.

    Example:
      >>> shade("#000000", 0.5)
      '#808080'
    """
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def window(lookback: int, every: int) -> str:
    """Return the words for the two settings of truncated BPTT in all studies.

    Errors are sent back once in `every` steps, and go back `lookback` steps.

    Example:
      >>> window(20, 10)
      'lookback 20, every 10'
    """
    return f"lookback {lookback}, every {every}"


def _style(table: dict[str, Style], name: str) -> dict[str, Any]:
    first = re.split(r"[^a-z0-9_]", name, maxsplit=1)[0]
    found = table.get(name) or table.get(first) or OTHER
    return {"color": found.colour, "linestyle": found.dashes}
