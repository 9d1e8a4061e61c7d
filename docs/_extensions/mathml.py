"""Sphinx extension: show the formulas of notebooks as MathML.

Browsers draw MathML themselves, so the site needs no program from another server, as
MathJax would. A formula that docutils cannot convert is a warning.
"""

import re
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

# Commands that docutils does not know. MathML makes brackets large by itself.
UNKNOWN = {r"\\dots\b": r"\\ldots", r"\\[Bb]igg?[lr]?(?![a-z])": ""}
log = logging.getLogger(__name__)


def write(translator: "HTML5Translator", node: nodes.Element, as_block: bool) -> None:
    """Write a formula, and leave out its children."""
    formula = node.astext()
    for pattern, known in UNKNOWN.items():
        formula = re.sub(pattern, known, formula)
    try:
        translator.body.append(tex2mathml(formula, as_block=as_block))
    except MathError as error:
        log.warning("cannot convert %r: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def write_inline(translator: "HTML5Translator", node: nodes.math) -> None:
    """Write a formula within a sentence."""
    write(translator, node, as_block=False)


def write_block(translator: "HTML5Translator", node: nodes.math_block) -> None:
    """Write a formula in a line of its own."""
    write(translator, node, as_block=True)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Make `html_math_renderer = "mathml"` possible."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True}
