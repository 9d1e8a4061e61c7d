"""Sphinx extension: describe the pictures that notebooks draw.

A picture in a notebook's output has no description, which a screen reader needs. This
extension takes it from the text before the cell: the sentences that are about the
picture, or else the title of the section.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
ABOUT = re.compile(
    r"\b(pictures?|panels?|curves?|bars|circle|columns?|dashed)\b", re.IGNORECASE
)


def description(section: str, paragraphs: list[str]) -> str:
    """Return a description of a picture.

    Args:
      section: the title of the section.
      paragraphs: the paragraphs of the section before the picture; only the last one
        that has a sentence about a picture is used.
    """
    for text in reversed(paragraphs):
        sentences = SENTENCE.split(" ".join(text.split()))
        if found := [each for each in sentences if ABOUT.search(each)]:
            end = "" if section.endswith(("?", "!", ".")) else "."
            return f"{section}{end} {' '.join(found)}"
    return f"Picture of the section: {section}"


def describe(app: "Sphinx", doctree: "document") -> None:
    """Give a description to each picture of a notebook that has none."""
    from docutils import nodes  # the tests, which import this file, do not need it

    if "/notebooks/" not in app.env.docname:
        return
    title, paragraphs = "", []
    for node in doctree.findall():
        if isinstance(node, nodes.title):
            title, paragraphs = node.astext(), []
        elif isinstance(node, nodes.paragraph):
            paragraphs.append(node.astext())
        elif isinstance(node, nodes.image) and not node.get("alt"):
            node["alt"] = description(title, paragraphs)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Describe pictures of each page after it has been read."""
    app.connect("doctree-read", describe)
    return {"parallel_read_safe": True}
